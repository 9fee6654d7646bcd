"""Records of sessions that the engine refused: disk and memory agree again as soon as it takes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.worker.running import until

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.commands import Command, Outcome
from socketcluster_store.data.channel_rules import ChannelRules
from socketcluster_store.engine import EnginePartition
from socketcluster_store.engines.lmdb.engine import LmdbEngine
from socketcluster_store.errors import EngineError, InternalError, SessionOverError
from socketcluster_store.executor import ExecutorOptions
from socketcluster_store.links import WorkerLink
from socketcluster_store.partition import deadlines, session_operations
from socketcluster_store.partition.partition import Partition
from socketcluster_store.partition.validation import Validation
from socketcluster_store_client.messages import Operation
from socketcluster_store_client.partitioning import partition_of

ATTACH = store_pb2.VERB_SESSION_ATTACH
DETACH = store_pb2.VERB_SESSION_DETACH
RENEW = store_pb2.VERB_SESSION_RENEW
END = store_pb2.VERB_SESSION_END
SESSION = "s"
NUMBER = partition_of(SESSION)
RENEWED = next(name for name in (f"renewed{number}" for number in range(1000)) if partition_of(name) == NUMBER)
FALSE = msgspec.msgpack.encode(False)
TRUE = msgspec.msgpack.encode(True)
ATTACHED = b"\x01"


class Store:
    """A partition on a disk that is full now and then."""

    def __init__(self, engine: EnginePartition) -> None:
        self.engine = engine
        self.full = False
        self.told: list[store_pb2.Event] = []
        self._apply = engine.apply_now
        engine.apply_now = self._apply_now  # type: ignore[method-assign]
        self.partition = Partition(
            engine,
            session_timeout=1200,
            max_value_bytes=1 << 20,
            channel_rules=ChannelRules(()),
            message_id_window=300,
            tell_workers=self.told.extend,
            on_fenced=lambda _number: None,
            turns=asyncio.Semaphore(1),
        )
        self._last_id = 0

    def _apply_now(self, batch: Sequence[Command]) -> Any:
        if self.full and batch:
            raise EngineError("the disk is full")
        return self._apply(batch)

    async def apply(self, link: WorkerLink, verb: Any, **arguments: Any) -> Outcome:
        self._last_id += 1
        operation = Operation(self._last_id, verb, session_id=SESSION, partition=NUMBER, **arguments)
        outcomes = self.partition.apply(link, [operation])
        return (outcomes if isinstance(outcomes, list) else await outcomes)[0]

    async def put(self, link: WorkerLink) -> Outcome:
        return await self.apply(link, store_pb2.VERB_SET, keys=("k",), value=TRUE)

    async def records(self) -> dict[str, bytes]:
        """Return what the disk says, the first byte of each record."""
        return {session_id: record[:1] for session_id, record in await self.engine.records()}

    async def becomes(self, records: dict[str, bytes]) -> None:
        await until(lambda: not self.partition._sessions.unwritten)
        assert await self.records() == records


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "RETRY_PAUSE", 0.001)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    made = Store(await LmdbEngine(tmp_path, ExecutorOptions(1 << 20)).open(NUMBER))
    await made.partition.load()
    yield made
    made.full = False
    await made.partition.close()


def link(worker_id: str = "worker") -> WorkerLink:
    return WorkerLink(worker_id, "incarnation", 1 << 20)


async def test_an_attachment_is_written_with_the_next_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "RETRY_PAUSE", 3600)
    worker = link()
    store.full = True
    assert isinstance(await store.apply(worker, ATTACH), InternalError)
    store.full = False
    assert await store.apply(worker, ATTACH) == FALSE  # as if it had not been attached before
    assert await store.records() == {SESSION: ATTACHED}
    assert await store.apply(worker, ATTACH) == TRUE


async def test_an_attachment_is_written_with_the_next_write(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "RETRY_PAUSE", 3600)
    worker = link()
    store.full = True
    await store.apply(worker, ATTACH)
    store.full = False
    assert await store.put(worker) == b""
    assert await store.records() == {SESSION: ATTACHED}


async def test_an_attachment_is_written_by_itself(store: Store) -> None:
    store.full = True
    await store.apply(link(), ATTACH)
    await asyncio.sleep(0.01)  # it is tried, in vain
    store.full = False
    await store.becomes({SESSION: ATTACHED})
    assert not store.partition._sessions.unwritten
    assert await store.apply(link(), ATTACH) == FALSE  # the worker never had an answer


async def test_a_detachment_is_written_by_itself(store: Store) -> None:
    worker = link()
    await store.apply(worker, ATTACH)
    store.full = True
    assert isinstance(await store.apply(worker, DETACH), InternalError)
    assert await store.records() == {SESSION: ATTACHED}
    store.full = False
    await store.becomes({SESSION: b"\0"})


async def test_what_a_lost_link_held_is_let_go_of_by_itself(store: Store) -> None:
    worker = link()
    await store.apply(worker, ATTACH)
    store.full = True
    await store.partition.release(worker, [SESSION])
    assert await store.records() == {SESSION: ATTACHED}
    store.full = False
    await store.becomes({SESSION: b"\0"})


async def test_memory_is_what_is_written_whatever_was_refused(store: Store) -> None:
    worker, other = link(), link("other")
    store.full = True
    for verb in (ATTACH, DETACH, ATTACH, DETACH, ATTACH):
        await store.apply(worker, verb)
    await store.apply(other, ATTACH)
    await store.apply(worker, DETACH)
    store.full = False
    await store.becomes({SESSION: ATTACHED})
    assert set(store.partition._sessions.holders(SESSION)) == {other}


async def test_a_closing_partition_writes_what_is_left(store: Store, tmp_path: Path) -> None:
    worker = link()
    await store.apply(worker, ATTACH)
    store.full = True
    await store.apply(worker, DETACH)
    store.full = False
    await store.partition.close()
    again = Store(await LmdbEngine(tmp_path, ExecutorOptions(1 << 20)).open(NUMBER))
    assert await again.records() == {SESSION: b"\0"}
    await again.partition.load()
    store.partition = again.partition  # which the fixture closes


async def test_a_closing_partition_writes_who_has_a_session(store: Store, tmp_path: Path) -> None:
    """It lets go of the links, which is not to be taken for an end of their sessions."""
    worker = link()
    store.full = True
    await store.apply(worker, ATTACH)
    store.full = False
    await store.partition.close()
    assert worker.sessions == set()
    again = Store(await LmdbEngine(tmp_path, ExecutorOptions(1 << 20)).open(NUMBER))
    assert await again.records() == {SESSION: ATTACHED}
    await again.partition.load()
    store.partition = again.partition  # which the fixture closes


async def test_a_refused_renewal_leaves_who_has_the_session(store: Store) -> None:
    worker = link()
    await store.apply(worker, ATTACH)
    store.full = True
    assert isinstance(await store.apply(worker, RENEW, name=RENEWED), InternalError)
    await store.apply(worker, DETACH)
    store.full = False
    await store.becomes({SESSION: b"\0"})
    assert not store.partition._sessions.unwritten


async def test_a_refused_end_is_carried_out_and_told_later(store: Store) -> None:
    worker = link()
    await store.apply(worker, ATTACH)
    await store.put(worker)
    store.full = True
    assert isinstance(await store.apply(worker, END), InternalError)
    assert isinstance(await store.apply(worker, store_pb2.VERB_GET, keys=("k",)), SessionOverError)
    assert store.told == []
    store.full = False
    await until(lambda: store.told)
    assert [event.session_destroyed.session_id for event in store.told] == [SESSION]
    assert store.told[0].session_destroyed.on_purpose
    assert await store.records() == {SESSION: b"\x02"}
    (tree,) = await store.engine.apply([Command(store_pb2.VERB_GET, SESSION.encode(), ("k",))])
    assert tree == msgspec.msgpack.encode(None)


@pytest.mark.parametrize("refused_again", [False, True])
async def test_an_end_that_was_refused_until_its_id_is_free_again_is_told(
    store: Store, monkeypatch: pytest.MonkeyPatch, refused_again: bool
) -> None:
    monkeypatch.setattr(deadlines, "RETRY_PAUSE", 3600)
    sessions, ends = store.partition._sessions, store.partition._deadlines
    worker = link()
    await store.apply(worker, ATTACH)
    await store.put(worker)
    store.full = True
    await store.apply(worker, END)
    now = store.engine.clock()
    monkeypatch.setattr(ends, "_clock", lambda: now + 1201)
    if refused_again:
        await ends._end_due()
        assert store.told == []
        assert sessions.over.keys() == {SESSION}
        monkeypatch.setattr(ends, "_clock", lambda: now + 5000)
    store.full = False
    await ends._end_due()
    assert [event.session_destroyed.session_id for event in store.told] == [SESSION]
    assert store.told[0].session_destroyed.on_purpose
    assert await store.records() == {}
    assert (sessions.over, sessions.unended, SESSION in sessions) == ({}, set(), False)


async def test_a_refused_end_is_not_acknowledged_when_it_comes_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "RETRY_PAUSE", 3600)
    worker = link()
    await store.apply(worker, ATTACH)
    store.full = True
    await store.apply(worker, END)
    assert isinstance(await store.apply(worker, END), InternalError)
    store.full = False
    assert await store.apply(worker, END) == b""
    assert await store.records() == {SESSION: b"\x02"}
    assert isinstance(await store.apply(worker, END), SessionOverError)
    assert len(store.told) == 1


async def test_an_end_that_comes_again_while_it_is_being_carried_out_is_told_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "RETRY_PAUSE", 3600)
    sessions = store.partition._sessions
    worker = link()
    await store.apply(worker, ATTACH)
    store.full = True
    await store.apply(worker, END)
    store.full = False
    written, _commands = session_operations.unwritten(sessions, 10)  # the engine is at it
    again = Operation(9, END, session_id=SESSION)
    session_operations.change(again, sessions, Validation(store.partition.number, 1 << 20), 0.0)
    assert len(session_operations.written(written, sessions)) == 1
    assert session_operations.changed(again, sessions) == []
    assert not sessions.unended


async def test_a_session_without_a_record_ends_in_time(store: Store) -> None:
    """Nothing is left of one that a write began which was refused."""
    store.full = True
    assert isinstance(await store.put(link()), InternalError)
    sessions = store.partition._sessions
    sessions.due(store.engine.clock() + 1201, 9)
    store.full = False
    await until(lambda: not sessions.unwritten)
    assert await store.records() == {}
    assert SESSION not in sessions


async def test_a_detachment_while_the_session_is_renewed_is_not_lost(store: Store) -> None:
    """The worker does not know the new id; if the renewal fails, it holds the old one no more."""
    sessions = store.partition._sessions
    worker = link()
    await store.apply(worker, ATTACH)
    now = store.engine.clock()
    sessions.renew(SESSION, RENEWED, now)  # the engine is at it
    sessions.detach(SESSION, worker, now)
    sessions.renewal_failed(SESSION, RENEWED, now)
    assert not sessions.attached(SESSION)
    assert SESSION in sessions
