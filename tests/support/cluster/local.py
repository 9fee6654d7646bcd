"""A cluster of local processes, started by the command that users start it by."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import psutil

from support.cluster.cluster import Cluster, until

ROOT = Path(__file__).parents[3]


class LocalCluster(Cluster):
    """``socketcluster run CONTROLLER ...`` on a free port.

    Args:
        controller: the user's module.
        data_dir: the stores' folder.
        workers: how many, or their ports as the option has them.
        options: further command-line options.
        command: the command ``socketcluster``, of this environment or of another one.
    """

    def __init__(
        self,
        controller: Path,
        data_dir: Path,
        *options: str,
        workers: int | str = 2,
        command: Sequence[str] = (sys.executable, "-m", "socketcluster"),
    ) -> None:
        self.log_path = data_dir / "cluster.log"
        self._argv = [
            *(*command, "run", str(controller)),
            *("--port", "0", "--workers", str(workers), "--data-dir", str(data_dir), *options),
        ]
        self.data_dir = data_dir
        self.url = ""
        self.process: asyncio.subprocess.Process

    async def __aenter__(self) -> Self:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        environ = {key: value for key, value in os.environ.items() if not key.startswith("SOCKETCLUSTER_")}
        with self.log_path.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self._argv, stdout=asyncio.subprocess.PIPE, stderr=log, env=environ
            )
        assert self.process.stdout is not None
        line = (await self.process.stdout.readline()).decode()
        if not line.startswith("ready "):
            await self.process.wait()
            raise AssertionError(f"the cluster did not start: {line!r}\n{self.log_path.read_text()}")
        self.url = line.split()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            family = self.children()
            self.process.send_signal(signal.SIGTERM)
            status = await self.process.wait()
            assert status == 0, f"the launcher exited with {status}\n{self.log_path.read_text()}"
            left = [child for child in family if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
            assert not left, f"processes outlived the cluster: {left}"

    @property
    def run_dir(self) -> Path:
        """The folder of the cluster's sockets."""
        return Path((self.data_dir / "socketcluster.lock").read_text())

    async def worker_names(self) -> list[str]:
        return [name for name in map(_name, self.children("worker")) if name is not None]

    async def worker_url(self, name: str) -> str:
        async def ports() -> list[int]:
            connections = self.find("worker", name).net_connections("tcp")
            listening = sorted((each.fd, each.laddr.port) for each in connections if each.status == psutil.CONN_LISTEN)
            return [port for _, port in listening]

        port, _of_other_workers = await until(ports, lambda found: len(found) == 2)
        return f"http://127.0.0.1:{port}"

    async def kill(self, service: str, name: str | None = None) -> None:
        process = self.find(service, name)
        process.kill()
        await asyncio.to_thread(_gone, process)

    async def start_killed_worker(self, name: str) -> None:
        """Nothing is to be done: the launcher starts it."""

    async def signal(self, service: str, number: int) -> None:
        """Send a signal to each process of a service."""
        for process in self.children(service):
            process.send_signal(number)

    async def hang_up(self, service: str) -> int:
        await self.signal(service, signal.SIGHUP)
        return len(self.children(service))

    async def log(self) -> str:
        return self.log_path.read_text()

    @contextmanager
    def paused(self, service: str, name: str | None) -> Iterator[None]:
        """Have a process do nothing, while its sockets stay open: it hangs."""
        process = self.find(service, name)
        process.suspend()
        try:
            yield
        finally:
            process.resume()

    async def stop_worker(self, name: str) -> None:
        process = self.find("worker", name)
        process.terminate()
        await asyncio.to_thread(_gone, process)

    def find(self, service: str, name: str | None) -> psutil.Process:
        """Return a process of a service: the one of that name, or any."""
        found = [child for child in self.children(service) if name is None or _name(child) == name]
        assert found, f"no {service} {name or ''} runs"
        return found[0]

    def children(self, service: str = "") -> list[psutil.Process]:
        """Return the launcher's processes, or those of one service."""
        launcher = psutil.Process(self.process.pid)
        return [child for child in launcher.children() if f"socketcluster_{service}" in " ".join(_argv(child))]


def _argv(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def _name(process: psutil.Process) -> str | None:
    """Return a service's name; nothing: it has ended meanwhile."""
    try:
        return process.environ()["SOCKETCLUSTER_NAME"]
    except psutil.NoSuchProcess:
        return None


def _gone(process: psutil.Process) -> None:
    process.wait(timeout=60)
