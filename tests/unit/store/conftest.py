"""Stores that run in the test's own event loop, stores that are processes, and workers that link to them."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from support.store.data import MAX_SESSION, MAX_VALUE, PARTITION, Clock, Data
from support.store.processes import SECRET
from support.store.running import LinkedWorker, LinkWorker, RunningStore, StartStore, StoreProcesses
from support.store.valkey import Cluster, Server, valkey_engine

from socketcluster_store.data.procedures import Procedures
from socketcluster_store.engine import Engine
from socketcluster_store.engines.lmdb.engine import LmdbEngine
from socketcluster_store.engines.memory import MemoryEngine
from socketcluster_store.executor import ExecutorOptions
from socketcluster_store.settings import StoreSettings


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
async def processes(folder: Path) -> AsyncIterator[StoreProcesses]:
    """Start store processes with this."""
    made = StoreProcesses(folder)
    yield made
    await made.end()


@pytest.fixture
async def start_store(folder: Path) -> AsyncIterator[StartStore]:
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
async def link_worker() -> AsyncIterator[LinkWorker]:
    """Link a worker to stores; the link is closed at the test's end."""
    async with contextlib.AsyncExitStack() as stack:

        async def link(
            *addresses: str,
            worker_id: str = "worker01",
            wait: bool = True,
            http: tuple[str, int] | None = None,
            **options: Any,
        ) -> LinkedWorker:
            worker = LinkedWorker(*addresses, worker_id=worker_id, **options)
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
