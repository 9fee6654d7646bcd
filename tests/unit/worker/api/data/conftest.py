"""A worker on a store with small limits and with procedures, which tests stop and start."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from support.worker.running import Running, RunningWorker

from socketcluster_store.service import serve
from socketcluster_store.settings import StoreSettings
from socketcluster_worker.api.data.tree import Tree
from socketcluster_worker.api.sockets.session import Session

SECRET = "a secret of the tests"
PROCEDURES = """
def run(store):
    @store.procedure
    def take(tree, amount):
        left = (tree.get("stock") or 0) - amount
        tree.set("stock", left)
        if left < 0:
            raise ValueError("sold out")
        return left

    @store.procedure
    def misuse(tree):
        tree.set("n", 1)
        tree.add(["n", "m"], 2)
"""
StartStore = Callable[[], Any]


@pytest.fixture
async def start_store(folder: Path) -> AsyncIterator[StartStore]:
    """Start the store, or start it again."""
    (folder / "store_controller.py").write_text(PROCEDURES)
    settings = StoreSettings(
        listen=f"unix:{folder}/store",
        data_dir=folder / "data",
        secret=SecretStr(SECRET),
        max_session_bytes=4000,
        max_value_bytes=2000,
        store_controller=folder / "store_controller.py",
    )
    started: list[Running] = []

    async def start() -> Running:
        running = Running(lambda lifecycle: serve(settings, lifecycle))
        started.append(running)
        await running.ready()
        return running

    yield start
    for running in started:
        if not running.task.done():
            await running.stop()


@pytest.fixture
async def running_store(start_store: StartStore) -> Running:
    """The store that is there from the beginning."""
    running: Running = await start_store()
    return running


@pytest.fixture
async def store(running_store: Running, folder: Path) -> str:
    """The address of it, for workers."""
    return f"unix:{folder}/store"


@pytest.fixture
async def session(worker: RunningWorker) -> Session:
    """A session."""
    return worker.worker.ws_server.sessions.get("worker00some-session")


@pytest.fixture(params=["session", "app"])
def tree(request: pytest.FixtureRequest, worker: RunningWorker, session: Session) -> Tree:
    """Both kinds of tree."""
    return session if request.param == "session" else worker.worker.store
