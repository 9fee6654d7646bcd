"""What carries the commands of a batch out: each has an outcome, whatever becomes of the others."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from support.store.data import Clock, Data, watch

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.commands import (
    CHANGES,
    END_SESSION,
    EXPIRE_DUE,
    FORGET,
    NOTE_TIME,
    PUT_RECORD,
    REMEMBER,
    TAKE_TIME_OVER,
    WATCHED,
    Command,
    Outcome,
)
from socketcluster_store.data import applied_log
from socketcluster_store.data.applied_log import AppliedLog
from socketcluster_store.data.procedures import Procedures, ProcedureTree, Store
from socketcluster_store.data.watches import KeyChange
from socketcluster_store.engines.sorted_map import SortedMap
from socketcluster_store.errors import (
    InvalidError,
    ProcedureError,
    Refusal,
    SessionTooLargeError,
    TooLargeError,
    UnknownProcedureError,
)
from socketcluster_store.executor import Executor, ExecutorOptions
from socketcluster_store_client.packing import pack

MAX_VALUE, MAX_SESSION = 200, 400
NUMBER = 7
GET, SET = store_pb2.VERB_GET, store_pb2.VERB_SET
NIL = pack(None)
decode_changes = msgspec.msgpack.Decoder(list[KeyChange]).decode


@pytest.fixture
def kv() -> SortedMap:
    return SortedMap()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def procedures() -> Procedures:
    return Procedures()


@pytest.fixture
def options(clock: Clock, procedures: Procedures) -> ExecutorOptions:
    return ExecutorOptions(MAX_VALUE, max_session_bytes=MAX_SESSION, procedures=procedures, clock=clock)


@pytest.fixture
def executor(options: ExecutorOptions) -> Executor:
    return Executor(NUMBER, options)


def put(key: str, value: object, session: bytes = b"s") -> Command:
    return Command(SET, session, [key], pack(value))


def get(*keys: str, session: bytes = b"s") -> Command:
    return Command(GET, session, keys)


def error(outcome: Outcome) -> str:
    assert isinstance(outcome, InvalidError)
    return str(outcome)


def changes(executor: Executor, kv: SortedMap) -> list[KeyChange]:
    (told,) = executor.apply(kv, [Command(CHANGES, b"")])
    assert isinstance(told, bytes)
    return decode_changes(told)


# Outcomes


def test_an_empty_batch_has_no_outcomes(executor: Executor, kv: SortedMap) -> None:
    assert executor.apply(kv, []) == []


def test_each_command_sees_those_before_it(executor: Executor, kv: SortedMap) -> None:
    assert executor.apply(kv, [get("k"), put("k", 1), get("k"), put("k", 2), get("k")]) == [
        NIL,
        b"",
        pack(1),
        b"",
        pack(2),
    ]


def test_what_is_refused_stops_no_others(executor: Executor, kv: SortedMap) -> None:
    before, refused, after, found = executor.apply(kv, [put("a", 1), put("b", "x" * MAX_VALUE), put("c", 3), get("b")])
    assert (before, after, found) == (b"", b"", NIL)
    assert isinstance(refused, TooLargeError)


def test_a_session_has_no_more_than_it_may(executor: Executor, kv: SortedMap) -> None:
    outcomes = executor.apply(kv, [put(key, "x" * 150) for key in "abc"])
    assert outcomes[:2] == [b"", b""]
    assert isinstance(outcomes[2], SessionTooLargeError)
    assert executor.apply(kv, [put("k", "x" * 150, session) for session in (b"", b"other")]) == [b"", b""]


def test_a_value_that_is_malformed_or_too_deep_is_refused_where_it_is_looked_into(
    executor: Executor, kv: SortedMap
) -> None:
    """They may stand there: of what is put as a whole only the form of MessagePack is looked at."""
    for key, raw in ((b"torn", b"\x92\x01"), (b"text", b"\xa2\xff\xff"), (b"deep", b"\x91" * 20_000 + b"\x01")):
        kv.put(b"d\x01s" + key, raw)
    torn, text, deep, whole, good = executor.apply(
        kv, [get("torn", "0"), get("text", "x"), get("deep", "0"), get("torn"), put("good", 1, b"other")]
    )
    assert "GET ['torn', '0']: the value that stands there is malformed" in error(torn)
    assert "the value that stands there is malformed" in error(text)
    assert "GET ['deep', '0']: the value is nested too deeply" in error(deep)
    assert (whole, good) == (b"\x92\x01", b"")


def test_a_command_that_there_is_not_fails_the_batch(executor: Executor, kv: SortedMap) -> None:
    """Which operations of workers become commands is said elsewhere; nothing is answered to others."""
    with pytest.raises(KeyError):
        executor.apply(kv, [put("k", 1), Command(-999, b"s")])


# Indexes


def test_what_was_not_committed_is_not_in_the_indexes_after_it_was_forgotten(
    executor: Executor, kv: SortedMap, clock: Clock
) -> None:
    expire = Command(store_pb2.VERB_EXPIRE, b"s", ["k"], pack(5))
    watch = Command(store_pb2.VERB_WATCH, b"s", ["k"], pack("tag"))
    executor.apply(kv, [put("k", 1)])
    assert executor.next_expiry() is None
    uncommitted = SortedMap(dict(kv.scan(b"")))
    executor.apply(
        uncommitted, [expire, watch, put("full", "x" * 190), put("fuller", "x" * 190), Command(CHANGES, b"")]
    )
    assert executor.next_expiry() == clock.now + 5
    executor.forget()
    assert executor.apply(kv, [put("k", 2), put("full", "x" * 190), Command(WATCHED, b"")]) == [b"", b"", pack([])]
    assert executor.next_expiry() is None
    assert changes(executor, kv) == []


def test_the_indexes_are_made_of_what_is_there(
    executor: Executor, kv: SortedMap, options: ExecutorOptions, clock: Clock
) -> None:
    executor.apply(
        kv,
        [
            put("k", 1),
            Command(store_pb2.VERB_EXPIRE, b"s", ["k"], pack(5)),
            Command(store_pb2.VERB_WATCH, b"s", ["k"], pack("tag")),
        ],
    )
    following = Executor(NUMBER, options)
    assert following.next_expiry() is None  # nothing was applied yet
    clock.now += 5
    assert following.apply(kv, [Command(WATCHED, b"")]) == [pack([(b"s", ["k"])])]
    assert following.next_expiry() == clock.now
    following.apply(kv, [Command(EXPIRE_DUE, b"")])
    assert [told.operation for told in changes(following, kv)] == []
    assert following.apply(kv, [get("k")]) == [NIL]
    assert following.next_expiry() is None


def test_changes_that_nobody_asks_for_are_counted(executor: Executor, kv: SortedMap) -> None:
    executor.apply(kv, [Command(store_pb2.VERB_WATCH, b"s", ["k"], pack("tag")), Command(CHANGES, b"")])
    executor.apply(kv, [put("k", 1)])  # a batch without CHANGES
    *_, told = executor.apply(kv, [put("k", 2), Command(CHANGES, b"")])
    assert isinstance(told, bytes)
    assert [(change.operation, change.number, change.value) for change in decode_changes(told)] == [("set", 2, pack(2))]


async def test_nobody_is_told_later_of_what_a_batch_did_that_told_nobody(data: Data) -> None:
    """On each engine."""
    await watch(data, ("a",))
    await data.partition.apply([Command(END_SESSION, b"s")])  # the last watch ends with it
    await watch(data, ("a",))  # is told of its beginning alone


def test_a_batch_that_fails_between_two_commands_leaves_indexes_that_can_be_forgotten(
    executor: Executor, kv: SortedMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor.apply(kv, [put("k", 1)])

    def fail(_prefix: bytes, /) -> Iterator[tuple[bytes, bytes]]:
        raise OSError("the disk failed")

    executor.forget()
    with monkeypatch.context() as patch:
        patch.setattr(kv, "scan", fail)
        with pytest.raises(OSError, match="the disk failed"):
            executor.apply(kv, [put("k", 2)])
    expire = Command(store_pb2.VERB_EXPIRE, b"s", ["k"], pack(5))
    assert executor.apply(kv, [get("k"), expire]) == [pack(1), pack(True)]
    assert executor.next_expiry() is not None


# Several commands as one


def test_transactions_and_procedures_have_the_limits_of_the_store(
    executor: Executor, kv: SortedMap, procedures: Procedures
) -> None:
    @Store(procedures).procedure
    def fill(tree: ProcedureTree, size: int) -> str:
        tree.set("k", size)
        return "x" * size

    def run(size: int) -> Command:
        return Command(store_pb2.VERB_RUN, b"s", (), pack([size]), "fill")

    steps = [(SET, ["k"], pack(1)), (SET, ["l"], pack("x" * MAX_VALUE))]
    refused, small, large, unknown, found = executor.apply(
        kv,
        [
            Command(store_pb2.VERB_TRANSACTION, b"s", (), pack(steps)),
            run(10),
            run(MAX_VALUE),
            Command(store_pb2.VERB_RUN, b"s", (), b"", "none"),
            get("k"),
        ],
    )
    assert isinstance(refused, TooLargeError)
    assert small == pack("x" * 10)
    assert isinstance(large, ProcedureError)
    assert isinstance(unknown, UnknownProcedureError)
    assert found == pack(10)


def test_a_transaction_has_no_commands_of_the_store_itself(executor: Executor, kv: SortedMap) -> None:
    for verb in (PUT_RECORD, END_SESSION, REMEMBER, FORGET, NOTE_TIME, store_pb2.VERB_WATCH, store_pb2.VERB_RUN):
        (refused,) = executor.apply(kv, [Command(store_pb2.VERB_TRANSACTION, b"s", (), pack([(verb, ["k"], b"")]))])
        assert "no verb of a transaction has the number" in error(refused)


def test_a_transaction_on_the_applications_tree_is_of_one_partition(executor: Executor, kv: SortedMap) -> None:
    here, elsewhere = (
        Command(store_pb2.VERB_TRANSACTION, b"", (), pack([(SET, [key], pack(1))])) for key in ("key26", "key0")
    )
    done, refused = executor.apply(kv, [here, elsewhere])
    assert isinstance(done, bytes)
    assert f"this one is {NUMBER}" in error(refused)


# What is remembered


def test_what_is_remembered_is_what_became_of_the_commands_before(executor: Executor, kv: SortedMap) -> None:
    log = AppliedLog(b"worker01/1")
    batch = [put("k", 1), put("l", "x" * MAX_VALUE)]
    remember = log.command(2, 0, (), lambda: (1, 2), 5.0)
    *outcomes, done = executor.apply(kv, [*batch, remember])
    assert (outcomes[0], done) == (b"", b"")
    assert isinstance(outcomes[1], Refusal)
    (kept,) = applied_log.read_records(kv.scan(applied_log.PREFIX)).values()
    assert (kept.highest, kept.at) == (2, 5.0)
    executor.apply(kv, [Command(FORGET, b"worker01/1", detail=[])])
    assert not list(kv.scan(applied_log.PREFIX))


# Time


def test_the_time_is_noted_and_goes_on_with_the_next_owner(
    executor: Executor, kv: SortedMap, options: ExecutorOptions, clock: Clock
) -> None:
    assert executor.apply(kv, [Command(TAKE_TIME_OVER, b"")]) == [b""]
    reached = executor.clock()
    executor.apply(kv, [Command(NOTE_TIME, b"")])
    assert [key for key, _ in kv.scan(b"")] == [b"t"]
    clock.now -= 500  # the next one's clock
    following = Executor(NUMBER, options)
    assert following.clock() == clock.now
    following.apply(kv, [Command(TAKE_TIME_OVER, b"")])
    assert following.clock() >= reached


def test_where_no_time_was_noted_it_is_not_before_what_was_applied(
    executor: Executor, kv: SortedMap, clock: Clock
) -> None:
    log = AppliedLog(b"worker01/1")
    executor.apply(kv, [put("k", 1), log.command(1, 0, (), lambda: (1,), clock.now + 90)])
    executor.apply(kv, [Command(TAKE_TIME_OVER, b"")])
    assert executor.clock() >= clock.now + 90
