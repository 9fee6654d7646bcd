"""A partition between its links and an engine that takes its time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from socketcluster_proto.v1 import store_pb2
from socketcluster_runtime.messages import Operation
from socketcluster_runtime.routing import partition_of
from socketcluster_store.channel_rules import ChannelRules
from socketcluster_store.documents import Documents
from socketcluster_store.engines.base import Command, EnginePartition, Outcome
from socketcluster_store.engines.lmdb import LmdbEngine
from socketcluster_store.engines.memory import MemoryEngine
from socketcluster_store.errors import EngineError, FencedError, InternalError, TooLargeError, WrongTypeError
from socketcluster_store.links import WorkerLink
from socketcluster_store.partition import Partition
from socketcluster_store.repeats import NOT_OWNED

GET, SET, ADD, ATTACH = (
    store_pb2.VERB_GET,
    store_pb2.VERB_SET,
    store_pb2.VERB_ADD,
    store_pb2.VERB_SESSION_ATTACH,
)
SESSION = "s"
NUMBER = partition_of(SESSION)
MAX_VALUE = 1024
encode = msgspec.msgpack.encode


class SlowEngine:
    """The memory engine's partition, which waits where the test says so, and notes what it was asked."""

    def __init__(self, real: EnginePartition) -> None:
        self._real = real
        self.go = asyncio.Event()
        self.go.set()
        self.error: EngineError | None = None
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
        return await self._real.apply(batch)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[SlowEngine]:
    opened = await MemoryEngine(tmp_path, Documents(MAX_VALUE)).open(NUMBER)
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
        on_sessions_ended=lambda _: None,
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
        opened = await LmdbEngine(tmp_path / "p", Documents(1 << 20)).open(NUMBER)
        partition = await make(opened)
        assert [outcome for batch in batches for outcome in await apply(partition, link(), *batch)] == answers
        await partition.close()
    opened = await LmdbEngine(tmp_path / "p", Documents(1 << 20)).open(NUMBER)
    partition = await make(opened)
    assert await apply(partition, link(), add(2001, 2001)) == [encode(2000)]
    assert len(await opened.applied()) == 1  # the worker has the others
    await partition.close()


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
