"""Which operations become part of a batch, and what one that the engine refused leaves behind."""

from __future__ import annotations

from typing import Any

import pytest

from socketcluster_proto.v1 import store_pb2
from socketcluster_store import commands
from socketcluster_store.commands import CHANNEL_POSITION, PUT_RECORD, WATCHED
from socketcluster_store.data.applied_log import AppliedLog
from socketcluster_store.data.channel_rules import ChannelRules
from socketcluster_store.data.mutations import TRUE
from socketcluster_store.errors import InvalidError, Refusal, SessionOverError
from socketcluster_store.links import WorkerLink
from socketcluster_store.partition.batch import Batch, BatchBuilder
from socketcluster_store.partition.channels import Channels
from socketcluster_store.partition.deduplication import WorkerProcess
from socketcluster_store.partition.session_operations import SessionChanges
from socketcluster_store.partition.sessions import Sessions
from socketcluster_store.partition.validation import Validation
from socketcluster_store.partition.watchers import Watchers
from socketcluster_store_client.messages import Operation
from socketcluster_store_client.partitioning import partition_of

SESSION = "s"
NUMBER = partition_of(SESSION)
RENEWED, AGAIN = [name for name in map(str, range(10_000)) if partition_of(name) == NUMBER][:2]
NOW = 1000.0
GET, SET, ADD, WATCH = store_pb2.VERB_GET, store_pb2.VERB_SET, store_pb2.VERB_ADD, store_pb2.VERB_WATCH
UNWATCH, REMOVE = store_pb2.VERB_UNWATCH, store_pb2.VERB_REMOVE
ATTACH, RENEW, END = store_pb2.VERB_SESSION_ATTACH, store_pb2.VERB_SESSION_RENEW, store_pb2.VERB_SESSION_END


class Bench:
    """A builder, and what it builds for."""

    def __init__(self) -> None:
        self.sessions = Sessions(1200.0)
        self.watchers = Watchers()
        storage: Any = None
        self.builder = BatchBuilder(
            NUMBER,
            lambda: NOW,
            sessions=self.sessions,
            channels=Channels(ChannelRules(()), 300.0, storage, lambda: NOW),
            watchers=self.watchers,
            changes=SessionChanges(),
            validation=Validation(NUMBER, 1024),
        )
        self.link = WorkerLink("worker", "incarnation", 1 << 20)
        self.process = WorkerProcess(AppliedLog(b"worker/incarnation"))
        self._last = 0

    def build(self, *verbs: int, **fields: Any) -> Batch:
        operations = []
        for verb in verbs:
            self._last += 1
            operations.append(Operation(self._last, verb, partition=NUMBER, **{"session_id": SESSION} | fields))
        return self.builder.build(self.link, operations, self.process)


@pytest.fixture
async def bench() -> Bench:
    return Bench()


def verbs_of(batch: Batch) -> list[int]:
    return [command.verb for command in batch.commands]


async def test_every_verb_of_the_protocol_is_known(bench: Bench) -> None:
    assert bench.builder._verbs.keys() == set(store_pb2.Verb.values()) - {store_pb2.VERB_UNSPECIFIED}


@pytest.mark.parametrize("verb", [0, 9999, WATCHED, CHANNEL_POSITION, PUT_RECORD])
async def test_what_is_no_verb_of_the_protocol_is_refused(bench: Bench, verb: int) -> None:
    batch = bench.build(verb)
    assert isinstance(batch.outcomes[0], InvalidError)
    assert not batch.commands


async def test_outcomes_find_the_operations_that_they_are_of(bench: Bench) -> None:
    batch = bench.build(ATTACH, SET, 9999, GET)
    assert verbs_of(batch) == [PUT_RECORD, SET, GET, commands.REMEMBER]
    assert batch.places == [-1, 1, 3, -1]
    assert [type(outcome) for outcome in batch.outcomes] == [bytes, bytes, InvalidError, bytes]
    assert batch.refused


async def test_a_session_is_touched_once_in_a_batch(bench: Bench) -> None:
    batch = bench.build(ADD, SET, ADD)
    assert verbs_of(batch) == [ADD, PUT_RECORD, SET, ADD, commands.REMEMBER]
    assert batch.begun == [SESSION]


async def test_what_is_removed_begins_no_session(bench: Bench) -> None:
    batch = bench.build(REMOVE, keys=("k",))
    assert verbs_of(batch) == [REMOVE, commands.REMEMBER]
    assert SESSION not in bench.sessions


async def test_what_another_link_watches_is_counted_on(bench: Bench) -> None:
    unwatch = bench.build(UNWATCH, keys=("k",)).commands[0]
    bench.watchers.add(WorkerLink("other", "incarnation", 1 << 20), (SESSION.encode(), ("k",)))
    kept = bench.build(UNWATCH, keys=("k",)).commands[0]
    assert (unwatch.value, kept.value) == (b"", TRUE)


async def test_reads_change_nothing_and_writes_to_the_attached_no_deadline(bench: Bench) -> None:
    batch = bench.build(GET, GET)
    assert (verbs_of(batch), batch.last, batch.deadlines) == ([GET, GET], None, False)
    bench.build(ATTACH)
    assert not bench.build(SET, GET).deadlines
    assert bench.build(ADD).deadlines


async def test_changes_are_asked_for_while_somebody_watches(bench: Bench) -> None:
    assert not bench.build(SET).tells
    batch = bench.build(WATCH, keys=("k",))
    assert verbs_of(batch) == [WATCH, commands.CHANGES]
    assert not bench.build(GET).tells
    assert verbs_of(bench.build(SET))[-1] == commands.CHANGES


async def test_a_batch_that_the_engine_refused_leaves_no_watch_and_no_renewal(bench: Bench) -> None:
    bench.build(ATTACH)
    batch = bench.build(WATCH, RENEW, keys=("k",), name=RENEWED)
    assert bench.watchers.links
    assert not bench.sessions.attached(SESSION)
    bench.builder.undo(batch)
    assert not bench.watchers
    assert bench.sessions.attached(SESSION)
    assert RENEWED not in bench.sessions


async def test_renewals_that_the_engine_refused_are_undone_the_last_one_first(bench: Bench) -> None:
    bench.build(ATTACH)
    renewals = [
        Operation(number, RENEW, session_id=old, name=new, partition=NUMBER)
        for number, (old, new) in enumerate([(SESSION, RENEWED), (RENEWED, AGAIN)], start=10)
    ]
    batch = bench.builder.build(bench.link, renewals, bench.process)
    assert bench.link.sessions == {AGAIN}
    bench.builder.undo(batch)
    assert bench.link.sessions == {SESSION}
    assert bench.sessions.attached(SESSION)
    assert not bench.sessions.over


async def test_an_end_that_the_engine_refused_may_be_tried_again(bench: Bench) -> None:
    bench.build(ATTACH)
    batch = bench.build(END)
    assert isinstance(bench.build(SET).outcomes[0], SessionOverError)
    assert isinstance(bench.build(END).outcomes[0], Refusal)
    bench.builder.undo(batch)
    assert isinstance(bench.build(SET).outcomes[0], SessionOverError)
    assert bench.build(END).outcomes == [b""]
