"""A partition between its links and an engine that takes its time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.commands import Command, Outcome
from socketcluster_store.data.channel_rules import ChannelRules
from socketcluster_store.engine import EnginePartition
from socketcluster_store.engines.lmdb.engine import LmdbEngine
from socketcluster_store.engines.memory import MemoryEngine
from socketcluster_store.errors import (
    EngineError,
    FencedError,
    InternalError,
    InvalidError,
    SessionOverError,
    TooLargeError,
    WrongTypeError,
)
from socketcluster_store.executor import ExecutorOptions
from socketcluster_store.links import WorkerLink
from socketcluster_store.partition.deduplication import NOT_OWNED
from socketcluster_store.partition.partition import Partition
from socketcluster_store_client.messages import Operation, read_published
from socketcluster_store_client.partitioning import partition_of

GET, SET, ADD, ATTACH = (
    store_pb2.VERB_GET,
    store_pb2.VERB_SET,
    store_pb2.VERB_ADD,
    store_pb2.VERB_SESSION_ATTACH,
)
PUBLISH, SUBSCRIBE = store_pb2.VERB_CHANNEL_PUBLISH, store_pb2.VERB_CHANNEL_SUBSCRIBE
SESSION = "s"
RENEW, END = store_pb2.VERB_SESSION_RENEW, store_pb2.VERB_SESSION_END
NUMBER = partition_of(SESSION)
RENEWED = next(name for name in map(str, range(10_000)) if partition_of(name) == NUMBER)
MAX_VALUE = 1024
encode = msgspec.msgpack.encode


class SlowEngine:
    """The memory engine's partition, which waits where the test says so, and notes what it was asked."""

    def __init__(self, real: EnginePartition) -> None:
        self._real = real
        self.go = asyncio.Event()
        self.go.set()
        self.error: EngineError | None = None
        self.later_error: EngineError | None = None
        self.asked: list[list[tuple[int, bytes]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def apply_now(self, batch: Sequence[Command]) -> list[Outcome] | Awaitable[list[Outcome]]:
        self.asked.append([(command.verb, command.value) for command in batch if command.verb in (GET, SET)])
        if self.error is not None:
            raise self.error
        return self._real.apply_now(batch) if self.go.is_set() else self._later(batch)

    async def _later(self, batch: Sequence[Command]) -> list[Outcome]:
        await self.go.wait()
        if self.later_error is not None and batch:  # a full disk takes nothing, and confirms the owner
            raise self.later_error
        return await self._real.apply(batch)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[SlowEngine]:
    opened = await MemoryEngine(tmp_path, ExecutorOptions(MAX_VALUE)).open(NUMBER)
    yield SlowEngine(opened)
    await opened.close()


@pytest.fixture
def fenced() -> list[int]:
    return []


async def make(engine: Any, fenced: list[int] | None = None) -> Partition:
    made = Partition(
        engine,
        session_timeout=1200,
        max_value_bytes=MAX_VALUE,
        channel_rules=ChannelRules(()),
        message_id_window=300,
        tell_workers=lambda _: None,
        on_fenced=([] if fenced is None else fenced).append,
        turns=asyncio.Semaphore(1),
    )
    await made.load()
    return made


@pytest.fixture
async def partition(engine: SlowEngine, fenced: list[int]) -> Partition:
    made = await make(engine, fenced)
    engine.asked.clear()
    return made


def link() -> WorkerLink:
    """A link of the one process there is; each call makes a later one."""
    return WorkerLink("worker", "incarnation", 1 << 20)


def put(number: int, value: Any, key: str = "k", epoch: int = 0) -> Operation:
    return Operation(
        number, SET, session_id=SESSION, keys=(key,), value=encode(value), partition=NUMBER, epoch=epoch, behind=1
    )


def get(number: int, key: str = "k") -> Operation:
    return Operation(number, GET, session_id=SESSION, keys=(key,), partition=NUMBER)


async def apply(partition: Partition, link: WorkerLink, *operations: Operation) -> list[Outcome]:
    outcomes = partition.apply(link, operations)
    return outcomes if isinstance(outcomes, list) else await outcomes


@pytest.fixture
async def attached(partition: Partition) -> WorkerLink:
    """A link that has the session attached, and has written before."""
    made = link()
    assert await apply(partition, made, Operation(1, ATTACH, session_id=SESSION, partition=NUMBER), put(2, 0)) == [
        encode(False),
        b"",
    ]
    return made


async def test_a_later_link_waits_for_what_an_earlier_one_has_under_way(
    partition: Partition, attached: WorkerLink, engine: SlowEngine
) -> None:
    engine.asked.clear()
    engine.go.clear()
    first = asyncio.create_task(apply(partition, attached, put(3, 3)))
    await asyncio.sleep(0)
    second = asyncio.create_task(apply(partition, link(), put(3, 3), put(4, 4), get(5)))
    third = asyncio.create_task(apply(partition, link(), get(6)))
    await asyncio.sleep(0)
    assert engine.asked == [[(SET, encode(3))]]
    engine.go.set()
    assert await first == [b""]
    assert await second == [b"", b"", encode(4)]
    assert await third == [encode(4)]
    assert engine.asked == [[(SET, encode(3))], [(SET, encode(4)), (GET, b"")], [(GET, b"")]]


async def test_what_comes_again_is_answered_as_the_first_time(
    partition: Partition, attached: WorkerLink, engine: SlowEngine
) -> None:
    refused = put(4, 1, "k")
    refused.keys = ("k", "below")
    first = await apply(partition, attached, put(3, 3), refused, put(5, "x" * MAX_VALUE), get(6))
    assert first[0] == b""
    assert [type(outcome) for outcome in first[1:3]] == [WrongTypeError, TooLargeError]
    assert first[3] == encode(3)
    again = await apply(partition, link(), put(3, 30), refused, put(5, 50), get(6))
    assert [str(outcome) for outcome in again] == [str(outcome) for outcome in first]
    assert await apply(partition, link(), get(7)) == [encode(3)]


def add(number: int, first: int) -> Operation:
    value = encode(number)
    return Operation(number, ADD, session_id=SESSION, keys=("l",), value=value, partition=NUMBER, behind=number - first)


async def test_the_next_owner_knows_of_thousands_without_an_answer(tmp_path: Path) -> None:
    batches = [[add(number, 1) for number in range(first, first + 40)] for first in range(1, 2001, 40)]
    answers = [encode(index) for index in range(2000)]
    for _ in range(2):
        opened = await LmdbEngine(tmp_path / "p", ExecutorOptions(1 << 20)).open(NUMBER)
        partition = await make(opened)
        assert [outcome for batch in batches for outcome in await apply(partition, link(), *batch)] == answers
        await partition.close()
    opened = await LmdbEngine(tmp_path / "p", ExecutorOptions(1 << 20)).open(NUMBER)
    partition = await make(opened)
    assert await apply(partition, link(), add(2001, 2001)) == [encode(2000)]
    assert len(await opened.applied()) == 1  # the worker has the others
    await partition.close()


async def test_only_what_changes_something_is_remembered(
    partition: Partition, attached: WorkerLink, engine: SlowEngine
) -> None:
    await apply(partition, attached, add(3, 3), get(4), Operation(5, ATTACH, session_id=SESSION, partition=NUMBER))
    ((_name, record),) = await engine.applied()
    assert [result[0] for result in msgspec.msgpack.decode(record)[2]] == [3]
    process = partition._deduplication.idle(attached.process)
    assert process is not None
    assert list(process._log._results) == [3]


async def test_a_message_that_comes_again_is_not_published_again(partition: Partition, attached: WorkerLink) -> None:
    def publish(number: int) -> Operation:
        return Operation(number, PUBLISH, name=RENEWED, value=encode(number), partition=NUMBER, behind=number - 3)

    def offset(outcome: Outcome) -> int:
        assert isinstance(outcome, bytes)
        return read_published(outcome).offset

    subscribe = Operation(3, SUBSCRIBE, name=RENEWED, partition=NUMBER)
    _position, first = await apply(partition, attached, subscribe, publish(4))
    again, second = await apply(partition, link(), publish(4), publish(5))
    assert [offset(outcome) for outcome in (first, again, second)] == [1, 1, 2]


async def test_a_session_begins_with_its_first_value(
    partition: Partition, attached: WorkerLink, engine: SlowEngine
) -> None:
    first = Operation(3, SET, session_id=RENEWED, keys=("k",), value=encode(1), partition=NUMBER)
    assert await apply(partition, attached, first) == [b""]
    assert RENEWED in dict(await engine.records())


async def test_what_waited_while_the_partition_was_lost_is_not_carried_out(
    partition: Partition, attached: WorkerLink, engine: SlowEngine
) -> None:
    engine.go.clear()
    first = asyncio.create_task(apply(partition, attached, put(3, 3)))
    await asyncio.sleep(0)
    second = asyncio.create_task(apply(partition, link(), put(4, 4)))
    await asyncio.sleep(0)
    partition.lose()
    engine.go.set()
    assert await first == [b""]
    assert await second == [NOT_OWNED]


async def test_what_is_meant_for_another_owner_is_not_carried_out(partition: Partition, attached: WorkerLink) -> None:
    assert await apply(partition, attached, put(3, 3, epoch=partition.epoch + 1), put(4, 4)) == [NOT_OWNED, b""]
    assert await apply(partition, attached, put(5, 5, epoch=partition.epoch)) == [b""]
    assert await apply(partition, attached, get(6)) == [encode(5)]


@pytest.mark.parametrize("wait", [False, True])
async def test_what_the_engine_cannot_do_is_said(
    partition: Partition, attached: WorkerLink, engine: SlowEngine, fenced: list[int], wait: bool
) -> None:
    async def fail(batch: Sequence[Command]) -> list[Outcome]:
        assert engine.error is not None
        raise engine.error

    if wait:
        engine.apply_now = fail  # type: ignore[method-assign]
    engine.error = EngineError("the disk is full")
    for outcome in await apply(partition, attached, put(3, 3), get(4)):
        assert isinstance(outcome, InternalError)
        assert str(outcome) == "the disk is full"
    engine.error = FencedError("taken over")
    assert await apply(partition, attached, put(5, 5), get(6)) == [NOT_OWNED, NOT_OWNED]
    assert fenced == [NUMBER]


def renew(number: int, renewed_id: str = RENEWED) -> Operation:
    return Operation(number, RENEW, session_id=SESSION, name=renewed_id, partition=NUMBER)


def get_renewed(number: int) -> Operation:
    return Operation(number, GET, session_id=RENEWED, keys=("k",), partition=NUMBER)


async def test_what_comes_after_a_renewal_finds_nothing_at_the_old_id(
    partition: Partition, attached: WorkerLink
) -> None:
    outcomes = await apply(partition, attached, put(3, 3), renew(4), put(5, 5), get(6), get_renewed(7))
    assert [type(outcome) for outcome in outcomes] == [bytes, bytes, SessionOverError, SessionOverError, bytes]
    assert outcomes[-1] == encode(3)
    (refused,) = await apply(partition, attached, get(8))  # by the short way, too
    assert isinstance(refused, SessionOverError)
    assert attached.sessions == {RENEWED}
    detach = Operation(9, store_pb2.VERB_SESSION_DETACH, session_id=SESSION, partition=NUMBER)
    assert await apply(partition, attached, detach) == [b""]
    again, attach = renew(10), Operation(11, ATTACH, session_id=SESSION, partition=NUMBER)
    assert [type(outcome) for outcome in await apply(partition, attached, again, attach)] == [SessionOverError] * 2


@pytest.mark.parametrize("renewed_id", ["", SESSION, RENEWED + "x", "x" * 200])
async def test_a_new_id_that_cannot_be_one_changes_nothing(
    partition: Partition, attached: WorkerLink, renewed_id: str
) -> None:
    (refused,) = await apply(partition, attached, renew(3, renewed_id))
    assert isinstance(refused, InvalidError | TooLargeError)
    assert await apply(partition, attached, get(4)) == [encode(0)]


async def test_a_session_that_is_not_there_is_not_renewed_to_its_own_id(
    partition: Partition, attached: WorkerLink
) -> None:
    renewing = Operation(3, RENEW, session_id=RENEWED, name=RENEWED, partition=NUMBER)
    detach = Operation(4, store_pb2.VERB_SESSION_DETACH, session_id=RENEWED, partition=NUMBER)
    refused, detached = await apply(partition, attached, renewing, detach)
    assert isinstance(refused, InvalidError)
    assert detached == b""
    async with asyncio.timeout(10):
        assert await apply(partition, attached, get_renewed(5)) == [encode(None)]


async def test_a_renewal_that_could_not_be_kept_is_none(
    partition: Partition, attached: WorkerLink, engine: SlowEngine
) -> None:
    engine.error = EngineError("the disk is full")
    (failed,) = await apply(partition, attached, renew(3))
    assert isinstance(failed, InternalError)
    engine.error = None
    assert await apply(partition, attached, put(4, 4), get(5), get_renewed(6)) == [b"", encode(4), encode(None)]
    assert attached.sessions == {SESSION}
    assert partition._sessions.over == {}


async def test_whoever_waits_for_a_renewal_goes_on_when_that_is_broken_off(
    partition: Partition, attached: WorkerLink, engine: SlowEngine
) -> None:
    engine.go.clear()
    renewing = asyncio.create_task(apply(partition, attached, renew(3)))
    await asyncio.sleep(0)
    other = WorkerLink("other", "incarnation", 1 << 20)
    waiting = asyncio.create_task(apply(partition, other, get(1)))
    await asyncio.sleep(0)
    renewing.cancel()
    engine.go.set()
    async with asyncio.timeout(10):
        (refused,) = await waiting
    assert isinstance(refused, SessionOverError)


@pytest.mark.parametrize("verb", [RENEW, END])
@pytest.mark.parametrize("error", [None, EngineError("the disk is full")])
async def test_nobody_is_refused_before_he_was_told_why(
    partition: Partition,
    attached: WorkerLink,
    engine: SlowEngine,
    monkeypatch: pytest.MonkeyPatch,
    verb: Any,
    error: EngineError | None,
) -> None:
    """A worker whose operation is refused sends it again if it knows the new id; else it ends the session there."""
    told: list[Any] = []
    monkeypatch.setattr(partition, "_tell_workers", told.extend)
    engine.go.clear()
    changing = asyncio.create_task(
        apply(partition, attached, Operation(3, verb, session_id=SESSION, name=RENEWED, partition=NUMBER))
    )
    await asyncio.sleep(0)
    engine.later_error = error
    other = WorkerLink("other", "incarnation 2", 1 << 20)
    refused = asyncio.create_task(
        apply(partition, other, Operation(1, ATTACH, session_id=SESSION, partition=NUMBER), put(2, 1), get(3, "else"))
    )
    for _ in range(20):
        await asyncio.sleep(0)
    assert not refused.done()
    engine.go.set()
    await changing
    kept = error is None or verb == END
    assert {type(each) for each in await refused} == {SessionOverError if kept else bytes}
    assert len(told) == (error is None)


async def test_nobody_is_refused_for_what_a_fenced_owner_may_not_have_done(
    partition: Partition, attached: WorkerLink, engine: SlowEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next owner may have the session still."""
    engine.go.clear()
    renewing = asyncio.create_task(apply(partition, attached, renew(3)))
    await asyncio.sleep(0)
    engine.later_error = FencedError("taken over")
    other = WorkerLink("other", "incarnation 2", 1 << 20)
    attach = Operation(1, ATTACH, session_id=SESSION, partition=NUMBER)
    waiting = asyncio.create_task(apply(partition, other, attach))
    for _ in range(20):
        await asyncio.sleep(0)
    monkeypatch.setattr(SlowEngine, "fenced", True, raising=False)
    engine.go.set()
    assert await renewing == [NOT_OWNED]
    assert await waiting == [NOT_OWNED]


async def test_whoever_waits_for_an_end_that_is_tried_again_goes_on_who_tries_it_once_more_too(
    partition: Partition, attached: WorkerLink, engine: SlowEngine
) -> None:
    end = Operation(3, END, session_id=SESSION, partition=NUMBER)
    engine.error = EngineError("the disk is full")
    assert isinstance((await apply(partition, attached, end))[0], InternalError)
    engine.error = None
    engine.go.clear()
    links = [WorkerLink(f"other{number}", "incarnation", 1 << 20) for number in range(3)]
    ops = (end, Operation(1, ATTACH, session_id=SESSION, partition=NUMBER), end)
    calls = []
    for each, operation in zip(links, ops, strict=True):
        calls.append(asyncio.create_task(apply(partition, each, operation)))
        await asyncio.sleep(0)
    engine.go.set()
    async with asyncio.timeout(10):
        ended, refused, again = await asyncio.gather(*calls)
    assert ended == [b""]
    assert [type(each) for each in (*refused, *again)] == [SessionOverError, SessionOverError]


async def test_the_next_owner_knows_what_was_renewed(
    partition: Partition, attached: WorkerLink, engine: SlowEngine
) -> None:
    """A store that dies has done all of a renewal, or nothing; asked again, the next one answers as the first."""
    assert await apply(partition, attached, put(3, 3), renew(4)) == [b"", b""]
    owner = await make(engine)
    assert await apply(owner, link(), renew(4)) == [b""]
    refused, found = await apply(owner, link(), get(5), get_renewed(6))
    assert isinstance(refused, SessionOverError)
    assert found == encode(3)
    assert RENEWED in owner._sessions


async def test_a_session_that_was_ended_is_over(partition: Partition, attached: WorkerLink, engine: SlowEngine) -> None:
    end = Operation(3, END, session_id=SESSION, partition=NUMBER)
    done, refused = await apply(partition, attached, end, put(4, 4))
    assert done == b""
    assert isinstance(refused, SessionOverError)
    assert attached.sessions == set()
    assert await apply(await make(engine), link(), Operation(3, END, session_id=SESSION, partition=NUMBER)) == [b""]
