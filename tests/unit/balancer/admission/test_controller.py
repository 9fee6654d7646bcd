"""How the balancer's controller is loaded, and what is said of one that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from socketcluster_balancer.admission.controller import Controller
from socketcluster_balancer.api import Balancer
from socketcluster_runtime.errors import ControllerError

pytestmark = pytest.mark.usefixtures("own_modules")


async def run_file(path: Path) -> Balancer:
    made = Controller(path, Balancer("tested", "socketcluster"))
    await made.run()
    return made.balancer


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_run_may_be_plain_or_async(tmp_path: Path, kind: str) -> None:
    source = f"{kind} run(balancer):\n    balancer.middleware('request')(print)\n"
    path = tmp_path / "balancer_controller.py"
    path.write_text(source)
    assert (await run_file(path)).by_stage["request"] == (print,)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def run(balancer):\n    balancer.middleware('upgrad')", ":2: ValueError: there is no stage 'upgrad'"),
        ("def run(balancer):\n    balancer.middleware('request')(7)", ":2: TypeError: middleware is a function"),
        (
            "def run(balancer):\n    balancer.middleware('request')(lambda: None)",
            ":2: TypeError: middleware is called with the request alone, and <function",
        ),
        (
            "def run(balancer):\n    balancer.middleware('request')(lambda request, more: None)",
            "missing a required argument",
        ),
        ("def run(balancer)\n    pass", ":1: SyntaxError: "),
        ("pass", "no function run(balancer)"),
    ],
)
async def test_what_is_wrong_with_it_is_told_with_its_line(tmp_path: Path, source: str, said: str) -> None:
    path = tmp_path / "balancer_controller.py"
    path.write_text(source)
    with pytest.raises(ControllerError) as error:
        await run_file(path)
    assert str(error.value).startswith(str(path))
    assert said in str(error.value)
