"""Stand-in processes: small, real ones, which speak the launcher's side of the contract."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

from socketcluster.plan import ChildSpec, notify_path
from socketcluster.supervisor import Supervisor

READY = """
import os, signal, socket, sys, time
def ready():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(f"READY=1\\nMAINPID={os.getpid()}".encode(), os.environ["NOTIFY_SOCKET"])
"""
"""What a stand-in begins with."""


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
        """Run a supervisor of such a process."""
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
        """End all of them."""
        for supervisor in self._lives:
            supervisor.kill()
        await asyncio.gather(*self._lives.values(), return_exceptions=True)
