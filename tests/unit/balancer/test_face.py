"""What a balancer's controller imports from the package, as its author's type checker sees it."""

from __future__ import annotations

from pathlib import Path

from mypy import api as mypy
from support.sources import ROOT

RIGHT = """
from socketcluster_balancer import Balancer, RefusedError, Request, WorkerInfo

def run(balancer: Balancer) -> None:
    @balancer.middleware("request")
    def keep_out(request: Request) -> None:
        if request.address[0] == "192.0.2.1" or "x" in request.query_all["x"][0] + request.headers["host"]:
            raise RefusedError(403, "You are not welcome here.", headers={"Retry-After": "30"})

    @balancer.middleware("upgrade")
    @balancer.middleware("request")
    async def route(request: Request) -> None:
        least: WorkerInfo = min(balancer.workers, key=lambda worker: worker.connections)
        request.worker = [least.name, "large"] if request.secure else least.id
"""
WRONG = """
from socketcluster_balancer import Balancer, Request, Worker  # wrong

def run(balancer: Balancer) -> None:
    @balancer.middleware("upgrad")  # wrong
    def misspelt(request: Request) -> None: ...
    @balancer.middleware("request")  # wrong
    def answers(request: Request) -> bool:
        return request.paht == "/"  # wrong
    @balancer.middleware("request")  # wrong
    def argument(request: int) -> None: ...
"""


def checked(folder: Path, source: str) -> set[int]:
    """Return the lines of a file of a user's that mypy finds fault with in strict mode."""
    path = folder / "mine.py"
    path.write_text(source)
    options = ["--strict", f"--config-file={ROOT / 'pyproject.toml'}", f"--cache-dir={ROOT / '.mypy_cache'}"]
    said, error, _status = mypy.run([*options, "--no-error-summary", str(path)])
    assert not error
    return {int(line.partition("mine.py:")[2].partition(":")[0]) for line in said.splitlines() if ": error:" in line}


def test_a_controller_is_typed(tmp_path: Path) -> None:
    assert checked(tmp_path, RIGHT) == set()


def test_what_a_controller_gets_wrong_is_found(tmp_path: Path) -> None:
    wrong = {number for number, line in enumerate(WRONG.splitlines(), start=1) if line.endswith("# wrong")}
    assert checked(tmp_path, WRONG) == wrong
