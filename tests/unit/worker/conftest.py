"""A whole worker in the test's own event loop, on a real store."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from pydantic import SecretStr
from support.worker.running import SECRET, Probe, Running, RunningWorker, StartWorker, Workers

from socketcluster_store.service import serve as serve_store
from socketcluster_store.settings import StoreSettings


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable[[], Any]]:
    """Use the event loop that services use."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for Unix sockets."""
    path = Path(tempfile.mkdtemp(prefix="sc", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def store(folder: Path) -> AsyncIterator[str]:
    """The address of a store."""
    settings = StoreSettings(
        listen=f"unix:{folder}/store", data_dir=folder / "data", engine="memory", secret=SecretStr(SECRET)
    )
    running = Running(lambda lifecycle: serve_store(settings, lifecycle))
    await running.ready()
    yield settings.listen
    await running.stop()


@pytest.fixture
async def start_worker(folder: Path, store: str) -> AsyncIterator[StartWorker]:
    """Start a worker whose controller is ``run``, with options; it is stopped at the test's end."""
    workers = Workers(folder, store)
    yield workers.start
    await workers.stop()


@pytest.fixture
def probe() -> Iterator[Probe]:
    """A controller that remembers what happens."""
    with Probe() as made:
        yield made


@pytest.fixture
async def worker(start_worker: StartWorker, probe: Probe) -> RunningWorker:
    """A worker with the usual options."""
    return await start_worker(probe.run)
