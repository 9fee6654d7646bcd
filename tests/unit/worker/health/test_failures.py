"""What a worker's log says while its stores are away: conditions, not operations."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from support.store.passing import PassingStore
from support.worker.running import RunningWorker, StartWorker, until

from socketcluster_store_client.errors import StoreUnavailableError, TooLargeError
from socketcluster_worker.api.worker import Worker
from socketcluster_worker.health.failures import Failures

SECRET = "a secret of the tests"
SOON = 0.05
CUT_OFF = "this worker does not reach the stores: operations fail"
HANDLERS = "handlers fail: the stores do not answer"


@pytest.fixture
async def passing(folder: Path) -> AsyncIterator[PassingStore]:
    store = PassingStore(folder, SECRET)
    await store.start()
    yield store
    await store.stop()


@pytest.fixture
def store(passing: PassingStore) -> str:
    return passing.address


class Lines:
    """What was logged at the level warning or above, by event."""

    def __init__(self, log: list[Any]) -> None:
        self._log = log

    @property
    def counts(self) -> Counter[str]:
        bad = [line for line in self._log if line["log_level"] in ("warning", "error", "critical")]
        return Counter(line["event"] for line in bad if line["event"] != "store link broke")

    @property
    def tracebacks(self) -> int:
        return sum("exc_info" in line for line in self._log)


async def cut(worker: RunningWorker, passing: PassingStore) -> None:
    await passing.stop()
    await until(lambda: worker.service._client.reach.unreached)


async def test_what_a_controller_caught_is_not_logged(start_worker: StartWorker, passing: PassingStore) -> None:
    worker = await start_worker(store_timeout=SOON)
    exchange = worker.worker.ws_server.exchange
    with structlog.testing.capture_logs() as log:
        await cut(worker, passing)
        for _ in range(3):
            with pytest.raises(StoreUnavailableError):
                await exchange.publish("news", 1)
            with pytest.raises(StoreUnavailableError):
                await asyncio.ensure_future(exchange.publish("news", 1))
        kept = exchange.publish("news", 2)
        await until(lambda: kept._sent.done())
        with pytest.raises(StoreUnavailableError):
            await kept
        assert Lines(log).counts == {CUT_OFF: 1}
    assert worker.errors.empty()


async def test_what_nobody_waits_for_is_one_condition(start_worker: StartWorker, passing: PassingStore) -> None:
    worker = await start_worker(store_timeout=SOON, recovery_window=60)  # with one, broadcasts go by the stores
    server = worker.worker.ws_server
    with structlog.testing.capture_logs() as log:
        await cut(worker, passing)
        for number in range(20):
            server.exchange.publish(f"channel{number}", number)
            server.sessions.get(f"session{number}" + "x" * 20).emit("rand", number)
            server.emit("rand", number)
        for _ in range(60):
            error, _what = await worker.errors.get()  # whoever wants to know is told
            assert isinstance(error, StoreUnavailableError)
        assert Lines(log).counts == {CUT_OFF: 1}
        assert Lines(log).tracebacks == 0
        await passing.start()
        await until(lambda: not worker.service._client.reach.unreached)
        over = next(line for line in log if line["event"] == "this worker reaches the stores again")
        assert over["times"] >= 60


async def test_a_publication_that_is_refused_is_told_without_a_traceback(start_worker: StartWorker) -> None:
    worker = await start_worker()
    with structlog.testing.capture_logs() as log:
        worker.worker.ws_server.exchange.publish("news", b"x" * 33_000_000)
        error, what = await worker.errors.get()
    assert isinstance(error, TooLargeError)
    assert what == "publishing to 'news'"
    assert Lines(log).tracebacks == 0
    assert Lines(log).counts == {"publishing to 'news' failed": 1}


async def test_handlers_that_fail_for_the_stores_are_one_condition(
    start_worker: StartWorker, passing: PassingStore
) -> None:
    def run(worker: Worker) -> None:
        @worker.ws_server.on("connection")
        def connected(socket: Any) -> None:
            async def read() -> None:
                await worker.store.get("key")

            socket.on("read", read)

        @worker.http_server.on("req")
        async def asked(request: Any) -> None:
            if request.url.path == "/read":
                await worker.store.get("key")

    worker = await start_worker(run, store_timeout=SOON)
    websocket, client = await worker.socket(), await worker.connect()
    with structlog.testing.capture_logs() as log:
        await cut(worker, passing)
        for number in range(10):
            answer = await websocket.call("read", cid=number + 2)
            assert answer["error"]["name"] == "StoreUnavailableError"
            refused = await client.request("GET", "/read")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        lines = Lines(log)
        assert lines.counts == {CUT_OFF: 1, HANDLERS: 1, "a handler of 'read' failed": 1}
        assert lines.tracebacks == 1


async def test_other_errors_of_handlers_keep_their_tracebacks() -> None:
    failures = Failures()
    with structlog.testing.capture_logs() as log:
        for _ in range(3):
            failures.add(ValueError("a bug"), "a handler")
    assert Lines(log).tracebacks == 3
    failures.close()
