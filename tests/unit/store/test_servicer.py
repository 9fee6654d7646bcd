"""The servicer of a store by itself, with partitions and callers that the test plays: what ends links, and how."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import cast

import grpc
import pytest
from grpc import aio
from pydantic import SecretStr
from structlog.testing import capture_logs
from support.worker.running import until

from socketcluster_proto.v1 import store_pb2
from socketcluster_store import servicer as module
from socketcluster_store.commands import Outcome
from socketcluster_store.engine import Engine
from socketcluster_store.links import Links, WorkerLink
from socketcluster_store.ownership.partitions import Partitions
from socketcluster_store.servicer import StoreServicer
from socketcluster_store.settings import StoreSettings
from socketcluster_store_client.messages import Operation, decode_results, encode_operations
from socketcluster_store_client.partitioning import partition_of

CHANNEL = "news"
NUMBER, OTHER = partition_of(CHANNEL), (partition_of(CHANNEL) + 1) % 64

Apply = Callable[[WorkerLink, Sequence[Operation]], list[Outcome] | Awaitable[list[Outcome]]]


class PlayedPartition:
    """Does what the test says, and notes what links are told no more."""

    def __init__(self) -> None:
        self.applied: list[int] = []
        self.apply: Apply = self.done
        self.unsubscribed: list[list[str]] = []
        self.unwatched = 0
        self.released: list[list[str]] = []

    def done(self, _link: WorkerLink, operations: Sequence[Operation]) -> list[Outcome]:
        self.applied += [operation.id for operation in operations]
        return [b""] * len(operations)

    def unsubscribe(self, _link: WorkerLink, names: Iterable[str]) -> None:
        self.unsubscribed.append(list(names))

    def unwatch(self, _link: WorkerLink) -> None:
        self.unwatched += 1

    async def release(self, _link: WorkerLink, session_ids: Iterable[str]) -> None:
        self.released.append(list(session_ids))


class AbortedError(Exception):
    """A call was ended with a status."""


class Caller:
    """A worker's stream."""

    def __init__(self, servicer: StoreServicer, worker_id: str = "worker01") -> None:
        self.requests: asyncio.Queue[store_pb2.LinkRequest | None] = asyncio.Queue()
        self.answered: list[int] = []
        self.writing: Callable[[bytes], Awaitable[None]] = self._read
        opening = store_pb2.LinkOpen(worker_id=worker_id, app_name="socketcluster", incarnation="1")
        self.requests.put_nowait(store_pb2.LinkRequest(open=opening))
        self.call = asyncio.ensure_future(servicer.Link(self._sent(), self))

    def send(self, *operations: Operation) -> None:
        self.requests.put_nowait(store_pb2.LinkRequest(operations=encode_operations(operations)))

    async def status(self) -> grpc.StatusCode:
        """Return with which status the stream ended."""
        try:
            await self.call
        except AbortedError as error:
            return cast(grpc.StatusCode, error.args[0])
        return grpc.StatusCode.OK

    async def _sent(self) -> AsyncIterator[store_pb2.LinkRequest]:
        while (request := await self.requests.get()) is not None:
            yield request

    async def _read(self, reply: bytes) -> None:
        results = store_pb2.LinkReply.FromString(reply).results
        self.answered += [result.id for result in decode_results(results)] if results else []

    # As a gRPC context

    def peer(self) -> str:
        return "ipv4:192.0.2.1:4711"

    async def write(self, reply: bytes) -> None:
        await self.writing(reply)

    async def abort(self, status: grpc.StatusCode, _reason: str) -> None:
        raise AbortedError(status)


class Played:
    """A servicer, and what it is given."""

    def __init__(self, *, remote: bool, link_grace: float = 0) -> None:
        self.partition, self.other = PlayedPartition(), PlayedPartition()
        self.closed = asyncio.Event()
        self.closed.set()
        partitions = SimpleNamespace(
            owned={NUMBER: self.partition, OTHER: self.other},
            announcement=store_pb2.Announcement,
            close=self.closed.wait,
        )
        self.links = Links()
        self.servicer = StoreServicer(
            StoreSettings(secret=SecretStr("a secret of the tests"), link_grace=link_grace),
            cast(Engine, SimpleNamespace(remote=remote, name="played")),
            "store-1",
            self.links,
            cast(Partitions, partitions),
        )

    async def caller(self) -> tuple[Caller, WorkerLink]:
        """Return a caller whose link is open, and that."""
        made = Caller(self.servicer)
        await until(lambda: any(True for _ in self.links))
        (link,) = self.links
        return made, link


@pytest.fixture(params=[False, True], ids=["in turn", "side by side"])
async def played(request: pytest.FixtureRequest) -> Played:
    return Played(remote=request.param)


@pytest.fixture
async def side_by_side() -> Played:
    return Played(remote=True)


def operation(number: int, partition: int = NUMBER, size: int = 0) -> Operation:
    return Operation(number, store_pb2.VERB_SET, "s", ("k",), value=bytes(size), partition=partition)


def fail(_link: WorkerLink, _operations: Sequence[Operation]) -> list[Outcome]:
    raise ZeroDivisionError("a bug")


async def test_a_link_that_its_worker_ends_is_cleaned_up_behind(played: Played) -> None:
    caller, link = await played.caller()
    link.channels.add(CHANNEL)
    link.sessions.add(CHANNEL)  # of the same partition
    caller.send(operation(1), operation(2, OTHER))
    await until(lambda: sorted(caller.answered) == [1, 2])
    caller.requests.put_nowait(None)
    assert await caller.status() is grpc.StatusCode.OK
    assert not list(played.links)
    assert played.partition.unsubscribed == [[CHANNEL]]
    assert (played.partition.unwatched, played.other.unwatched) == (1, 1)
    await until(lambda: played.partition.released == [[CHANNEL]])  # once its worker has had its time
    assert not played.other.released


async def test_a_partition_that_fails_in_no_expected_way_ends_the_link_and_is_told(played: Played) -> None:
    played.partition.apply = fail
    caller, _ = await played.caller()
    with capture_logs() as logs:
        caller.send(operation(1))
        assert await caller.status() is grpc.StatusCode.INTERNAL
    assert [line["exc_info"].args for line in logs if line["event"] == "a link failed"] == [("a bug",)]
    assert not list(played.links)
    again, _ = await played.caller()
    again.send(operation(2, OTHER))
    await until(lambda: again.answered == [2])
    again.call.cancel()


async def test_what_else_is_under_way_on_a_link_that_fails_is_waited_for(side_by_side: Played) -> None:
    """It may subscribe the link after all: who cleans up before that cleans up too early."""
    going_on = asyncio.Event()

    async def subscribe(link: WorkerLink, operations: Sequence[Operation]) -> list[Outcome]:
        await going_on.wait()
        link.channels.add(CHANNEL)
        return [b""] * len(operations)

    side_by_side.partition.apply = subscribe
    side_by_side.other.apply = fail
    caller, link = await side_by_side.caller()
    with capture_logs() as logs:
        caller.send(operation(1), operation(2, OTHER))
        await until(lambda: OTHER in link.last_call and link.last_call[OTHER].done())
        going_on.set()
        assert await caller.status() is grpc.StatusCode.INTERNAL
    assert side_by_side.partition.unsubscribed[-1:] == [[CHANNEL]]
    assert not link.under_way
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["a link failed"]


async def test_a_stream_that_breaks_is_no_error_of_the_store(played: Played) -> None:
    async def broken(_reply: bytes) -> None:
        raise aio.UsageError("the stream is done")

    with capture_logs() as logs:
        caller = Caller(played.servicer)
        caller.writing = broken
        assert await caller.status() is grpc.StatusCode.OK
    assert [line["log_level"] for line in logs if "broke" in line["event"]] == ["debug"]
    assert not [line for line in logs if line["log_level"] == "error"]


async def test_a_link_that_is_closed_while_operations_are_applied_ends_though_its_worker_sends_no_more(
    played: Played,
) -> None:
    """A worker is told by that alone that it hears nothing any more."""
    going_on = asyncio.Event()

    async def late(link: WorkerLink, operations: Sequence[Operation]) -> list[Outcome]:
        link.close(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much waits")
        await going_on.wait()
        return [b""] * len(operations)

    played.partition.apply = late
    caller, _ = await played.caller()
    caller.send(operation(1))
    await until(lambda: not list(played.links))
    going_on.set()
    assert await caller.status() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_caller_that_is_gone_leaves_nothing_behind(side_by_side: Played) -> None:
    """What is under way ends first."""
    going_on = asyncio.Event()

    async def late(_link: WorkerLink, operations: Sequence[Operation]) -> list[Outcome]:
        await going_on.wait()
        return [b""] * len(operations)

    side_by_side.partition.apply = late
    caller, link = await side_by_side.caller()
    caller.send(operation(1))
    await until(lambda: link.under_way)
    caller.call.cancel()
    await until(lambda: not list(side_by_side.links))
    going_on.set()
    with pytest.raises(asyncio.CancelledError):
        await caller.call
    await until(lambda: not link.under_way)
    assert not caller.answered


@pytest.mark.parametrize(
    ("name", "bound", "size"),
    [("UNDER_WAY", 3, 0), ("UNDER_WAY_BYTES", 250, 100)],
)
async def test_so_much_is_under_way_and_no_more_is_read(
    side_by_side: Played, monkeypatch: pytest.MonkeyPatch, name: str, bound: int, size: int
) -> None:
    monkeypatch.setattr(module, name, bound)
    monkeypatch.setattr(module, "PATIENCE", 0)
    going_on = asyncio.Event()

    async def late(link: WorkerLink, operations: Sequence[Operation]) -> list[Outcome]:
        await going_on.wait()
        return side_by_side.partition.done(link, operations)

    side_by_side.partition.apply = late
    caller, link = await side_by_side.caller()
    for number in range(1, 9):
        caller.send(operation(number, size=size))
    await until(lambda: len(link.under_way) == 3)
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(link.under_way) == 3
    assert caller.requests.qsize() == 4  # and one was read, and waits
    going_on.set()
    await until(lambda: len(caller.answered) == 8)
    assert side_by_side.partition.applied == list(range(1, 9))
    caller.call.cancel()


async def test_a_store_that_stops_takes_no_links_and_lets_those_there_read_what_waits(played: Played) -> None:
    played.closed.clear()
    reading = asyncio.Event()
    caller, link = await played.caller()

    async def slow(reply: bytes) -> None:
        await reading.wait()
        await caller._read(reply)

    caller.writing = slow
    stopping = asyncio.ensure_future(played.servicer.close())
    await asyncio.sleep(0)
    assert await Caller(played.servicer, "worker02").status() is grpc.StatusCode.UNAVAILABLE
    caller.send(operation(1))  # partitions are still handed over
    await until(lambda: played.partition.applied == [1])
    played.closed.set()
    await asyncio.sleep(0)
    assert not link.closing.done()
    reading.set()
    await stopping
    assert await caller.status() is grpc.StatusCode.UNAVAILABLE
    assert caller.answered == [1]


async def test_a_worker_that_does_not_read_does_not_keep_a_store_from_stopping(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DRAIN_TIMEOUT", 0.001)
    caller, _ = await played.caller()

    async def never(_reply: bytes) -> None:
        await asyncio.Event().wait()

    caller.writing = never
    caller.send(operation(1))
    await until(lambda: played.partition.applied == [1])
    await played.servicer.close()
    assert await caller.status() is grpc.StatusCode.UNAVAILABLE
    assert not caller.answered


async def test_sessions_of_links_that_ended_before_are_not_released_by_a_store_that_stops() -> None:
    """The next owner of their partitions gives their workers the time to come back anew."""
    played = Played(remote=False, link_grace=60)
    caller, link = await played.caller()
    link.sessions.add(CHANNEL)
    caller.requests.put_nowait(None)
    await caller.call
    await played.servicer.close()
    for _ in range(5):
        await asyncio.sleep(0)
    assert played.partition.released == []
