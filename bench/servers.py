"""The servers that ``bench.store`` measures: stores and a Redis, each a process on loopback with its own folder."""

from __future__ import annotations

import abc
import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import Any, Self

import psutil
import redis.asyncio

from socketcluster_proto.v1 import store_pb2
from socketcluster_store_client.client import StoreClient

SECRET = token_hex(16)


class Server(AbstractAsyncContextManager["Server"], abc.ABC):
    """A process that can be stopped and started again on its data; entering the context starts it."""

    name: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.port = free_port()
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> float:
        """Start; return the seconds until it serves."""
        began = time.monotonic()
        await self._start()
        return time.monotonic() - began

    async def stop(self, how: int = signal.SIGTERM) -> None:
        """Stop."""
        assert self._process is not None  # noqa: S101  # it was started
        self._process.send_signal(how)
        await self._process.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if self._process is not None and self._process.returncode is None:
            await self.stop(signal.SIGKILL)

    def cpu(self) -> float:
        """Return the CPU seconds used so far."""
        times = psutil.Process(self.pid).cpu_times()
        return times.user + times.system

    def memory(self) -> int:
        """Return the resident bytes that are no mapped file's: those are the page cache's."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("the kernel does not tell RssAnon")

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None  # noqa: S101  # it was started
        return self._process.pid

    @abc.abstractmethod
    async def _start(self) -> None:
        """Start the process; return when it serves."""


class Store(Server):
    """A store on its own, with all partitions."""

    def __init__(self, folder: Path, engine: str, fsync: str, **environ: str) -> None:
        super().__init__(folder)
        self.name = engine if engine == "memory" else f"{engine}/{fsync}"
        self._environ = {
            **environ,
            "SOCKETCLUSTER_ENGINE": engine,
            "SOCKETCLUSTER_FSYNC": fsync,
            "SOCKETCLUSTER_LISTEN": f"127.0.0.1:{self.port}",
            # the port after that one may be a closed connection's, whom the kernel remembers for a minute
            "SOCKETCLUSTER_STREAM_LISTEN": f"127.0.0.1:{free_port()}",
            "SOCKETCLUSTER_DATA_DIR": str(folder),
            "SOCKETCLUSTER_SECRET": SECRET,
            "SOCKETCLUSTER_PARENT": str(os.getpid()),
            "LOG_LEVEL": "error",
        }

    async def _start(self) -> None:
        path = self.folder / "notify"
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(path))
            notify.setblocking(False)
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "socketcluster_store",
                env={**os.environ, **self._environ, "NOTIFY_SOCKET": str(path)},
            )
            ready = asyncio.ensure_future(asyncio.get_running_loop().sock_recv(notify, 100))
            ended = asyncio.ensure_future(self._process.wait())
            try:
                await asyncio.wait({ready, ended}, timeout=120, return_when=asyncio.FIRST_COMPLETED)
                if not ready.done():
                    status = self._process.returncode
                    raise RuntimeError(f"{self.name} {'takes too long' if status is None else f'ended: {status}'}")
            finally:
                for waiting in (ready, ended):
                    waiting.cancel()

    async def link(
        self,
        worker_id: str,
        on_message: Callable[[str, bytes, int, int], None] | None = None,
        *,
        on_destroyed: Callable[[str], None] | None = None,
        on_change: Callable[[store_pb2.DataChange], None] | None = None,
    ) -> StoreClient:
        """Link a worker."""
        client = StoreClient(
            [f"127.0.0.1:{self.port}"],
            worker_id=worker_id,
            app_name="socketcluster",
            secret=SECRET,
            on_session_message=lambda *_: None,
            on_session_destroyed=on_destroyed or (lambda *_: None),
            on_channel_message=on_message or (lambda *_: None),
            on_data_change=on_change or (lambda *_: None),
        )
        await client.start()
        await client.wait_ready()
        return client

    @asynccontextmanager
    async def linked(
        self,
        worker_id: str,
        *,
        on_destroyed: Callable[[str], None] | None = None,
        on_change: Callable[[store_pb2.DataChange], None] | None = None,
    ) -> AsyncIterator[StoreClient]:
        """Link a worker, and end the link again."""
        client = await self.link(worker_id, on_destroyed=on_destroyed, on_change=on_change)
        yield client
        await client.close()


class StoreOnRedis(Store):
    """A store with the engine ``valkey`` and the server that has its data; the CPU is that of both."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._redis = Redis(folder / "redis")
        url = f"valkey://127.0.0.1:{self._redis.port}"
        super().__init__(folder / "store", "valkey", "everysec", SOCKETCLUSTER_VALKEY_URL=url)

    async def _start(self) -> None:
        await self._redis.start()
        await super()._start()

    async def __aexit__(self, *error: Any) -> None:
        await super().__aexit__(*error)
        await self._redis.__aexit__(*error)

    def cpu(self) -> float:
        return super().cpu() + self._redis.cpu()


class Redis(Server):
    """Debian's redis-server, with the durability of the store's ``everysec``."""

    name = "redis/everysec"

    async def _start(self) -> None:
        options = {"port": self.port, "bind": "127.0.0.1", "dir": self.folder, "save": "", "appendonly": "yes"}
        self._process = await asyncio.create_subprocess_exec(
            "redis-server",
            *(str(part) for name, value in options.items() for part in (f"--{name}", value)),
            stdout=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(120), self.connect() as client:
            while True:
                try:
                    await client.ping()
                    return
                except redis.RedisError:  # it does not listen yet, or still loads
                    await asyncio.sleep(0.01)

    def connect(self) -> redis.asyncio.Redis:
        """Return a client with a pool of connections."""
        return redis.asyncio.Redis(port=self.port, max_connections=1000)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
