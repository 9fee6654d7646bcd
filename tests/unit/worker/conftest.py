"""A whole worker in the test's own event loop, on a real store."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop
from pydantic import SecretStr
from support.worker.running import Probe, Running, RunningWorker, StartWorker

from socketcluster_store.service import serve as serve_store
from socketcluster_store.settings import StoreSettings
from socketcluster_worker.api.worker import Worker
from socketcluster_worker.settings import WorkerSettings

SECRET = "a secret of the tests"
HOOK = "run_of_the_test"
CONTROLLER = f"from {HOOK} import run\n"


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
    started: list[RunningWorker] = []
    (folder / "controller.py").write_text(CONTROLLER)
    (folder / "handoff").mkdir()
    path = list(sys.path)

    async def start(run: Callable[[Worker], Any] | None = None, **options: Any) -> RunningWorker:
        given: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()

        async def run_all(worker: Worker) -> None:
            given.set_result(worker)
            result = run(worker) if run is not None else None
            if asyncio.iscoroutine(result):
                await result

        sys.modules[HOOK] = SimpleNamespace(run=run_all)  # type: ignore[assignment]
        settings = WorkerSettings(
            name=options.pop("name", f"worker{len(started)}"),
            secret=SecretStr(SECRET),
            stores=(store,),
            controller=folder / "controller.py",
            control_listen=f"unix:{folder}/control{len(started)}",
            http_listen="127.0.0.1:0",
            handoff_dir=folder / "handoff",
            **options,
        )
        worker = RunningWorker(settings, given)
        started.append(worker)
        await worker.ready()
        return worker

    yield start
    for worker in started:
        if not worker.task.done():
            await worker.stop()
    sys.modules.pop(HOOK, None)
    sys.modules.pop("controller", None)
    sys.path[:] = path


@pytest.fixture
def probe() -> Iterator[Probe]:
    """A controller that remembers what happens."""
    with Probe() as made:
        yield made


@pytest.fixture
async def worker(start_worker: StartWorker, probe: Probe) -> RunningWorker:
    """A worker with the usual options."""
    return await start_worker(probe.run)
