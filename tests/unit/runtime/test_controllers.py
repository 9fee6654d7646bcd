"""Controllers: how a user's file is loaded and run, and what is told of one that fails."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from socketcluster_runtime.controllers import load_run, run_controller, where
from socketcluster_runtime.errors import EX_CONFIG, ControllerError

pytestmark = pytest.mark.usefixtures("own_modules")


def write(folder: Path, source: str) -> Path:
    path = folder / "mine.py"
    path.write_text(source)
    return path


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_run_is_given_its_argument_plain_or_async(tmp_path: Path, kind: str) -> None:
    given: list[str] = []
    await run_controller(
        write(tmp_path, f"{kind} run(given):\n    given.append(__name__)\n"), "the_controller", "given", given
    )
    assert given == ["the_controller"]
    assert Path(sys.modules["the_controller"].__file__ or "") == tmp_path / "mine.py"


async def test_what_it_has_is_called_later_by_who_loads_it(tmp_path: Path) -> None:
    run = load_run(write(tmp_path, "def run(engine):\n    return engine * 2\n"), "the_controller", "run(engine)")
    assert run(4) == 8


@pytest.mark.parametrize("source", ["", "run = 5\n", "class run:\n    pass\nrun = None\n"])
async def test_one_without_run_is_told_what_to_write(tmp_path: Path, source: str) -> None:
    path = write(tmp_path, source)
    with pytest.raises(ControllerError) as failed:
        await run_controller(path, "the_controller", "balancer", None)
    assert str(failed.value) == f"{path}: the controller has no function run(balancer)"


async def test_the_error_of_a_library_is_told_with_the_line_that_called_it(tmp_path: Path) -> None:
    path = write(tmp_path, "import json\ndef run(worker):\n    json.loads('{')\n")
    with pytest.raises(ControllerError, match=rf"^{path}:3: JSONDecodeError: ") as failed:
        await run_controller(path, "the_controller", "worker", None)
    assert isinstance(failed.value.__cause__, json.JSONDecodeError)
    assert failed.value.exit_status not in (0, EX_CONFIG)  # it may be mended while the service is tried again


async def test_an_error_of_no_line_of_its_own_is_told_with_the_file(tmp_path: Path) -> None:
    assert where(tmp_path / "mine.py", ValueError("no")) == f"{tmp_path / 'mine.py'}: ValueError: no"


@pytest.mark.parametrize(
    ("name", "text"), [("missing.py", "there is no such"), (".", "there is no such"), ("a.txt", "ends in .py")]
)
async def test_what_is_no_python_file_is_told(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(ControllerError, match=text):
        load_run(tmp_path / name, "the_controller", "run()")
