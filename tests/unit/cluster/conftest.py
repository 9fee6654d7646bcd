"""Stand-in processes: small, real ones, which speak the launcher's side of the contract."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from socketcluster.notify import NotifyListener
from socketcluster.plan import ChildSpec, notify_path
from socketcluster.supervisor import Supervisor

READY = """
import os, signal, socket, sys, time
def ready():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(f"READY=1\\nMAINPID={os.getpid()}".encode(), os.environ["NOTIFY_SOCKET"])
"""
"""What a stand-in begins with."""


@pytest.fixture(autouse=True)
def _no_options_of_the_developer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("SOCKETCLUSTER_") or name in {"LOG_LEVEL", "LOG_FORMAT"}:
            monkeypatch.delenv(name)


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A private folder with a path short enough for Unix sockets."""
    path = Path(tempfile.mkdtemp(prefix="sc-test-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


class Stage:
    """Runs supervisors and hears which of their processes are ready."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._lives: dict[Supervisor, asyncio.Task[None]] = {}
        self._ready: asyncio.Queue[int] = asyncio.Queue()

    def spec(self, code: str, *fds: int, name: str = "worker-0") -> ChildSpec:
        """Return a stand-in that runs ``code`` after READY."""
        environ = {**os.environ, "NOTIFY_SOCKET": str(notify_path(self._run_dir))}
        return ChildSpec(name, (sys.executable, "-S", "-c", READY + code), environ, fds)

    def start(self, spec: ChildSpec, on_ready: Callable[[], None] = lambda: None) -> Supervisor:
        supervisor = Supervisor(spec, on_ready)
        self._lives[supervisor] = asyncio.create_task(supervisor.run())
        return supervisor

    def heard(self, pid: int) -> None:
        """Take a notification of readiness."""
        for supervisor in self._lives:
            if supervisor.pid == pid:
                supervisor.ready()
        self._ready.put_nowait(pid)

    async def next_ready(self) -> int:
        """Wait for the next process that says that it is ready; return its id."""
        return await self._ready.get()

    async def end(self, supervisor: Supervisor) -> None:
        """Wait for the end of a supervisor's life; raises what it raised."""
        await self._lives[supervisor]

    async def close(self) -> None:
        for supervisor in self._lives:
            supervisor.kill()
        await asyncio.gather(*self._lives.values(), return_exceptions=True)


@pytest.fixture
async def stage(run_dir: Path) -> AsyncIterator[Stage]:
    made = Stage(run_dir)
    with NotifyListener(notify_path(run_dir), made.heard):
        yield made
        await made.close()
