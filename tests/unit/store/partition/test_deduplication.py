"""Operations whose ids do not rise: refused, never applied out of order, never taken for applied."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
import pytest

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.commands import Command, Outcome
from socketcluster_store.data.applied_log import PREFIX, AppliedLog, remember
from socketcluster_store.data.channel_rules import ChannelRules
from socketcluster_store.engines.memory import MemoryEngine
from socketcluster_store.engines.sorted_map import SortedMap
from socketcluster_store.errors import InvalidError
from socketcluster_store.executor import ExecutorOptions
from socketcluster_store.links import WorkerLink
from socketcluster_store.partition.deduplication import NOT_OWNED, WorkerProcess
from socketcluster_store.partition.partition import Partition
from socketcluster_store_client.messages import Operation
from socketcluster_store_client.partitioning import partition_of

ADD, GET, SET = store_pb2.VERB_ADD, store_pb2.VERB_GET, store_pb2.VERB_SET
encode = msgspec.msgpack.encode
NUMBER = partition_of("s")


@pytest.fixture
async def partition(tmp_path: Path) -> AsyncIterator[Partition]:
    opened = Partition(
        await MemoryEngine(tmp_path, ExecutorOptions(1 << 20)).open(NUMBER),
        session_timeout=1200,
        max_value_bytes=1 << 20,
        channel_rules=ChannelRules(()),
        message_id_window=300,
        tell_workers=lambda _: None,
        on_fenced=lambda _: None,
        turns=asyncio.Semaphore(1),
    )
    await opened.load()
    yield opened
    await opened.close()


def relink() -> WorkerLink:
    """Return another link of the same process."""
    return WorkerLink("worker", "incarnation", 1 << 20)


@pytest.fixture
async def link() -> WorkerLink:
    return relink()


async def apply(partition: Partition, link: WorkerLink, operations: Sequence[Operation]) -> list[Outcome]:
    outcomes = partition.apply(link, operations)
    return outcomes if isinstance(outcomes, list) else await outcomes


def write(operation_id: int, epoch: int, verb: int = ADD) -> Operation:
    keys = ("list",) if verb == ADD else ("key",)
    value = b"" if verb == GET else encode(operation_id)
    return Operation(operation_id, verb, "s", keys, value=value, partition=NUMBER, epoch=epoch, behind=operation_id - 1)


async def stored(partition: Partition, link: WorkerLink, key: str = "list") -> object:
    (value,) = await apply(partition, link, [Operation(1, GET, session_id="s", keys=(key,), partition=NUMBER)])
    assert isinstance(value, bytes)
    return msgspec.msgpack.decode(value)


@pytest.mark.parametrize("verb", [ADD, SET])
async def test_ids_that_do_not_rise_within_a_request_are_refused(
    partition: Partition, link: WorkerLink, verb: int
) -> None:
    epoch = partition.epoch
    await apply(partition, link, [Operation(1, store_pb2.VERB_SESSION_ATTACH, session_id="s"), write(2, epoch, verb)])
    outcomes = await apply(partition, link, [write(number, epoch, verb) for number in (4, 3, 4, 5)])
    assert [isinstance(outcome, InvalidError) for outcome in outcomes] == [False, True, True, False]
    assert await stored(partition, link, "list" if verb == ADD else "key") == ([2, 4, 5] if verb == ADD else 5)
    again = await apply(partition, relink(), [write(number, epoch, verb) for number in (4, 5, 6)])
    assert again == ([encode(1), encode(2), encode(3)] if verb == ADD else [b""] * 3)


async def test_ids_that_come_again_must_rise_as_well(partition: Partition, link: WorkerLink) -> None:
    epoch = partition.epoch
    await apply(partition, link, [write(number, epoch) for number in (2, 3)])
    outcomes = await apply(partition, relink(), [write(number, epoch) for number in (3, 2, 4)])
    assert outcomes[0] == encode(1)
    assert isinstance(outcomes[1], InvalidError)
    assert outcomes[2] == encode(2)


@pytest.mark.parametrize("verb", [ADD, SET])
async def test_ids_that_do_not_rise_on_a_stream_are_refused(partition: Partition, link: WorkerLink, verb: int) -> None:
    """A long request is applied in portions, and an operation may be overtaken by one of another request."""
    epoch = partition.epoch
    await apply(partition, link, [Operation(1, store_pb2.VERB_SESSION_ATTACH, session_id="s"), write(2, epoch, verb)])
    link = relink()
    assert await apply(partition, link, [write(4, epoch, verb)]) == [encode(1) if verb == ADD else b""]
    (outcome,) = await apply(partition, link, [write(3, epoch, verb)])
    assert isinstance(outcome, InvalidError)
    for again in (4, 2):
        (outcome,) = await apply(partition, link, [write(again, epoch, verb)])
        assert isinstance(outcome, InvalidError) == (again == 4)
    assert await stored(partition, link, "list" if verb == ADD else "key") == ([2, 4] if verb == ADD else 4)
    assert await apply(partition, relink(), [write(4, epoch, verb)]) == [encode(1) if verb == ADD else b""]


async def test_sendings_of_an_earlier_epoch_do_not_count(partition: Partition, link: WorkerLink) -> None:
    """They may stand in the request before those of the present one."""
    epoch = partition.epoch
    operations = [write(1, epoch + 1), write(2, epoch + 1), write(1, epoch), write(2, epoch), write(3, epoch, GET)]
    outcomes = await apply(partition, link, operations)
    assert outcomes[:2] == [NOT_OWNED] * 2
    assert outcomes[2:4] == [encode(0), encode(1)]
    assert await stored(partition, link) == [1, 2]


async def test_reads_may_come_again_in_any_order(partition: Partition, link: WorkerLink) -> None:
    epoch = partition.epoch
    await apply(partition, link, [Operation(1, store_pb2.VERB_SESSION_ATTACH, session_id="s"), write(5, epoch, SET)])
    outcomes = await apply(partition, link, [write(4, epoch, GET), write(6, epoch, SET), write(3, epoch, GET)])
    assert outcomes == [encode(5), b"", encode(6)]


def test_a_refusal_that_the_worker_has_is_not_written_with_what_comes_after_it() -> None:
    process = WorkerProcess(AppliedLog(b"worker/incarnation"))
    refused, unknown = Operation(1, SET), Operation(2, SET, behind=1)
    process.note_refused([refused, unknown], [InvalidError("no"), InvalidError("nor this")])
    last = Operation(3, SET, behind=1)
    kv = SortedMap()
    remember(kv, process.command(last, [last], [b""], [0], 5.0), [Command(SET, b"")], [b""])
    process.settle([last], [b""])
    ((_name, record),) = kv.scan(PREFIX)
    assert [result[0] for result in msgspec.msgpack.decode(record)[2]] == [2]
    assert not process.refused
    assert str(process.answer(unknown)) == "nor this"
    assert process.answer(refused) == b""
