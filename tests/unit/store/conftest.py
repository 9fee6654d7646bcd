"""Stores that run in the test's own event loop, stores that are processes, and workers that link to them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import SecretStr
from support.store.data import MAX_SESSION, MAX_VALUE, PARTITION, Clock, Data
from support.store.valkey import Cluster, Server, valkey_engine

from socketcluster_proto.v1 import store_pb2
from socketcluster_runtime.lifecycle import Lifecycle
from socketcluster_store.data.procedures import Procedures
from socketcluster_store.engine import Engine
from socketcluster_store.engines.lmdb.engine import LmdbEngine
from socketcluster_store.engines.memory import MemoryEngine
from socketcluster_store.executor import ExecutorOptions
from socketcluster_store.service import serve
from socketcluster_store.settings import StoreSettings
from socketcluster_store_client.channel_feed import Gap
from socketcluster_store_client.client import StoreClient

SECRET = "a secret of the tests"


class Worker:
    """A store client, and what it was told."""

    def __init__(
        self,
        *addresses: str,
        worker_id: str,
        secret: str = SECRET,
        app_name: str = "socketcluster",
        timeout: float = 60,
    ) -> None:
        self.session_messages: asyncio.Queue[tuple[str, str, bytes]] = asyncio.Queue()
        self.destroyed: asyncio.Queue[str] = asyncio.Queue()
        self.channel_messages: asyncio.Queue[tuple[str, bytes, int, int]] = asyncio.Queue()
        self.data_changes: asyncio.Queue[store_pb2.DataChange] = asyncio.Queue()
        self.gaps: asyncio.Queue[Gap] = asyncio.Queue()
        self.client = StoreClient(
            addresses,
            worker_id=worker_id,
            app_name=app_name,
            secret=secret,
            timeout=timeout,
            on_session_message=lambda *message: self.session_messages.put_nowait(message),
            on_session_destroyed=self.destroyed.put_nowait,
            on_channel_message=lambda *message: self.channel_messages.put_nowait(message),
            on_data_change=self.data_changes.put_nowait,
            on_channel_gap=self.gaps.put_nowait,
        )

    async def get(self, session_id: str, *keys: str) -> bytes:
        """Return what is stored."""
        return await self.client.call(store_pb2.VERB_GET, session_id=session_id, keys=keys)

    async def set(self, session_id: str, *keys: str, value: bytes) -> None:
        """Store a value."""
        assert await self.client.call(store_pb2.VERB_SET, session_id=session_id, keys=keys, value=value) == b""

    async def publish(self, channel: str, value: Any, message_id: str = "") -> tuple[int, int]:
        """Publish; return epoch and offset."""
        packed = msgspec.msgpack.encode(value)
        answer = await self.client.call(
            store_pb2.VERB_CHANNEL_PUBLISH, name=channel, value=packed, message_id=message_id
        )
        published = msgspec.msgpack.decode(answer)
        return published["epoch"], published["offset"]

    async def barrier(self, session_id: str = "") -> None:
        """Return when everything that was told before has arrived: answers and events travel on one stream."""
        await self.client.call(store_pb2.VERB_EXISTS, session_id=session_id, keys=["barrier"])


class RunningStore:
    """A store in this event loop."""

    def __init__(self, settings: StoreSettings) -> None:
        self.address = settings.listen
        self.is_ready = asyncio.Event()
        self.lifecycle = Lifecycle()
        self.lifecycle.ready = self.is_ready.set  # type: ignore[method-assign]
        self.task = asyncio.create_task(serve(settings, self.lifecycle))

    async def ready(self) -> None:
        """Return when the store serves; raise what kept it from doing so."""
        waiting = asyncio.create_task(self.is_ready.wait())
        await asyncio.wait({waiting, self.task}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            self.task.result()

    async def stop(self) -> None:
        """Stop as SIGTERM does."""
        self.lifecycle.stopping.set()
        await self.task


class Processes:
    """Store processes, each ended when the test ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[asyncio.subprocess.Process] = []
        self.address = f"unix:{folder}/process"

    async def start(self, *, ready: bool = True, **environment: str) -> asyncio.subprocess.Process:
        """Start a store process, and wait until it says that it is ready."""
        path = self._folder / f"notify{len(self._running)}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(path))
            notify.setblocking(False)
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "socketcluster_store",
                env={
                    **os.environ,
                    "SOCKETCLUSTER_LISTEN": self.address,
                    "SOCKETCLUSTER_DATA_DIR": str(self._folder / "data"),
                    "SOCKETCLUSTER_SECRET": SECRET,
                    "SOCKETCLUSTER_PARENT": str(os.getpid()),  # a run that is broken off leaves nothing behind
                    "NOTIFY_SOCKET": str(path),
                    **environment,
                },
                stderr=asyncio.subprocess.PIPE if not ready else None,
            )
            self._running.append(process)
            if ready:
                assert b"READY=1" in await asyncio.get_running_loop().sock_recv(notify, 100)
        return process

    async def end(self) -> None:
        """Kill what still runs."""
        for process in self._running:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
            await process.wait()


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Valkey that the tests share, each with an application of its own."""
    server = Server(tmp_path_factory.mktemp("valkey") / "single")
    try:
        server.start()
        yield server
    finally:
        server.end()


@pytest.fixture(scope="session")
def valkey_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Cluster of three, likewise."""
    cluster = Cluster(tmp_path_factory.mktemp("valkey-cluster"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.end()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    """A Valkey that the test may do anything to."""
    server = Server(tmp_path / "valkey", "--appendfsync", "always")
    server.start()
    yield server
    server.end()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for Unix sockets."""
    path = Path(tempfile.mkdtemp(prefix="sc", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def processes(folder: Path) -> AsyncIterator[Processes]:
    """Start store processes with this."""
    made = Processes(folder)
    yield made
    await made.end()


@pytest.fixture
async def start_store(folder: Path) -> AsyncIterator[Callable[..., Any]]:
    """Start a store with options; it is stopped at the test's end."""
    stores: list[RunningStore] = []

    async def start(*, wait: bool = True, **options: Any) -> RunningStore:
        options.setdefault("listen", f"unix:{folder}/store{len(stores)}")
        store = RunningStore(StoreSettings(secret=SecretStr(SECRET), data_dir=folder / "data", **options))
        stores.append(store)
        if wait:
            await store.ready()
        return store

    yield start
    for store in stores:
        if not store.task.done():
            await store.stop()


@pytest.fixture
async def link_worker() -> AsyncIterator[Callable[..., Any]]:
    """Link a worker to stores; the link is closed at the test's end."""
    async with contextlib.AsyncExitStack() as stack:

        async def link(
            *addresses: str,
            worker_id: str = "worker01",
            wait: bool = True,
            http: tuple[str, int] | None = None,
            **options: Any,
        ) -> Worker:
            worker = Worker(*addresses, worker_id=worker_id, **options)
            await worker.client.start(http)
            stack.push_async_callback(worker.client.close)
            if wait:
                await worker.client.wait_ready()
            return worker

        yield link


@pytest.fixture
def clock() -> Clock:
    """A time that the test sets."""
    return Clock()


@pytest.fixture
def procedures() -> Procedures:
    """What the partition has of procedures."""
    return Procedures()


@pytest.fixture
def procedure_timeout() -> float:
    """Seconds that a procedure may take."""
    return 0.5


@pytest.fixture
def options(clock: Clock, procedures: Procedures, procedure_timeout: float) -> ExecutorOptions:
    """Small limits."""
    return ExecutorOptions(
        MAX_VALUE,
        max_session_bytes=MAX_SESSION,
        procedures=procedures,
        procedure_timeout=procedure_timeout,
        clock=clock,
    )


@pytest.fixture(params=["memory", "lmdb", pytest.param("valkey", marks=pytest.mark.valkey)])
async def data_engine(
    request: pytest.FixtureRequest, tmp_path: Path, options: ExecutorOptions
) -> AsyncIterator[Engine]:
    """Each engine."""
    if request.param == "valkey":
        async with valkey_engine(request.getfixturevalue("valkey"), options) as made:
            yield made
    else:
        yield MemoryEngine(tmp_path, options) if request.param == "memory" else LmdbEngine(tmp_path, options)


@pytest.fixture
async def data(data_engine: Engine, clock: Clock, procedures: Procedures) -> AsyncIterator[Data]:
    """A partition."""
    made = Data(await data_engine.open(PARTITION), clock, procedures)
    yield made
    await made.partition.close()
