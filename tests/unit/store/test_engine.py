"""What every engine guarantees, on each engine; and what only a persistent one does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.store.valkey import valkey_engine

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.commands import END_SESSION, PUT_RECORD, RENEW_SESSION, Command, Outcome
from socketcluster_store.engine import Engine, EnginePartition
from socketcluster_store.engines.lmdb import environments
from socketcluster_store.engines.lmdb.engine import LmdbEngine
from socketcluster_store.engines.memory import MemoryEngine
from socketcluster_store.errors import (
    ChainTooDeepError,
    EngineError,
    InvalidError,
    PartitionLockedError,
    TooLargeError,
    WrongTypeError,
)
from socketcluster_store.executor import ExecutorOptions

GET = store_pb2.VERB_GET
SET = store_pb2.VERB_SET
REMOVE = store_pb2.VERB_REMOVE
EXISTS = store_pb2.VERB_EXISTS
GET_ALL = store_pb2.VERB_GET_ALL
REMOVE_ALL = store_pb2.VERB_REMOVE_ALL

MAX_VALUE = 1024
encode = msgspec.msgpack.encode
decode: Callable[[Any], Any] = msgspec.msgpack.decode


@pytest.fixture(
    params=[
        "memory",
        "lmdb",
        "lmdb, checkpointed all the time",
        pytest.param("valkey", marks=pytest.mark.valkey),
        pytest.param("valkey_cluster", marks=pytest.mark.valkey),
    ]
)
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Engine]:
    options = ExecutorOptions(MAX_VALUE)
    if request.param == "memory":
        yield MemoryEngine(tmp_path, options)
    elif request.param.startswith("valkey"):
        async with valkey_engine(request.getfixturevalue(request.param), options) as made:
            yield made
    else:
        yield LmdbEngine(tmp_path, options, segment_bytes=1 << 20 if request.param == "lmdb" else 256)


@pytest.fixture
async def partition(engine: Engine) -> AsyncIterator[EnginePartition]:
    opened = await engine.open(7)
    yield opened
    await opened.close()


def command(verb: int, *keys: str, value: Any = None, session: bytes = b"s") -> Command:
    return Command(verb, session, keys, encode(value) if verb == SET else b"")


async def one(partition: EnginePartition, verb: int, *keys: str, value: Any = None, session: bytes = b"s") -> Any:
    """Apply one command; return its decoded result, or the refusal."""
    (outcome,) = await partition.apply([command(verb, *keys, value=value, session=session)])
    if not isinstance(outcome, bytes):
        return outcome
    return decode(outcome) if outcome else b""


async def test_nothing_is_found_where_nothing_was_set(partition: EnginePartition) -> None:
    assert await one(partition, GET, "a") is None
    assert await one(partition, GET, "a", "b") is None
    assert await one(partition, EXISTS, "a") is False
    assert await one(partition, REMOVE, "a") is False
    assert await one(partition, REMOVE, "a", "b") is False
    assert await one(partition, GET_ALL) == {}
    assert await one(partition, GET_ALL, "a") == {}
    assert await one(partition, REMOVE_ALL) == b""
    assert await one(partition, REMOVE_ALL, "a") == b""


@pytest.mark.parametrize("value", [None, True, 0, -1, 2**63, 1.5, "text", b"bytes", [1, [2]], {"k": {"l": None}}, ""])
@pytest.mark.parametrize("keys", [("a",), ("a", "b"), tuple(f"k{n}" for n in range(32))])
async def test_what_is_set_is_got(partition: EnginePartition, value: Any, keys: tuple[str, ...]) -> None:
    assert await one(partition, SET, *keys, value=value) == b""
    assert await one(partition, GET, *keys) == value
    assert await one(partition, EXISTS, *keys) is True


async def test_commands_of_a_batch_see_those_before(partition: EnginePartition) -> None:
    outcomes = await partition.apply(
        [
            command(SET, "a", value=1),
            command(GET, "a"),
            command(SET, "a", value={}),
            command(SET, "a", "b", value=2),
            command(GET, "a", "b"),
            command(REMOVE, "a"),
            command(EXISTS, "a"),
        ]
    )
    assert outcomes == [b"", encode(1), b"", b"", encode(2), encode(True), encode(False)]


async def test_batches_are_applied_in_the_order_of_their_calls(partition: EnginePartition) -> None:
    count = 50
    calls = [partition.apply([command(SET, "n", value=n), command(GET, "n")]) for n in range(count)]
    outcomes: Sequence[list[Outcome]] = await asyncio.gather(*calls)
    assert [outcome[1] for outcome in outcomes] == [encode(n) for n in range(count)]
    assert await one(partition, GET, "n") == count - 1


async def test_a_refused_command_changes_nothing_and_stops_no_other(partition: EnginePartition) -> None:
    first, refused, last = await partition.apply(
        [command(SET, "a", value=1), command(SET, "a", "b", "c", value=2), command(SET, "z", value=3)]
    )
    assert first == last == b""
    assert isinstance(refused, WrongTypeError)
    assert await one(partition, GET_ALL) == {"a": 1, "z": 3}


async def test_a_scalar_in_the_way_is_named(partition: EnginePartition) -> None:
    await one(partition, SET, "a", "b", value="text")
    refusal = await one(partition, SET, "a", "b", "c", value=1)
    assert isinstance(refusal, WrongTypeError)
    assert str(refusal) == "SET ['a', 'b', 'c']: a text stands at ['a', 'b'], no map"
    assert await one(partition, GET, "a", "b", "c") is None
    assert await one(partition, EXISTS, "a", "b", "c") is False
    assert await one(partition, REMOVE, "a", "b", "c") is False
    assert isinstance(await one(partition, GET_ALL, "a", "b"), WrongTypeError)
    assert isinstance(await one(partition, REMOVE_ALL, "a", "b"), WrongTypeError)
    assert await one(partition, GET, "a") == {"b": "text"}


async def test_lists_are_walked_by_index(partition: EnginePartition) -> None:
    await one(partition, SET, "l", value=[10, {"k": 1}, 30])
    assert await one(partition, GET, "l", "0") == 10
    assert await one(partition, GET, "l", "1", "k") == 1
    assert await one(partition, GET, "l", "3") is None
    assert await one(partition, GET, "l", "-1") is None
    assert await one(partition, GET, "l", "²") is None
    assert await one(partition, SET, "l", "1", "k", value=2) == b""
    assert await one(partition, SET, "l", "3", value=40) == b""
    assert isinstance(await one(partition, SET, "l", "5", value=0), InvalidError)
    assert isinstance(await one(partition, SET, "l", "9" * 30, value=0), WrongTypeError)
    assert isinstance(await one(partition, SET, "l", "x", value=0), WrongTypeError)
    assert await one(partition, REMOVE, "l", "0") is True
    assert await one(partition, GET, "l") == [{"k": 2}, 30, 40]


async def test_nil_in_the_way_makes_room_for_a_map(partition: EnginePartition) -> None:
    await one(partition, SET, "a", value=None)
    assert await one(partition, SET, "a", "b", "c", value=1) == b""
    assert await one(partition, GET, "a") == {"b": {"c": 1}}


async def test_trees_are_apart(partition: EnginePartition) -> None:
    for session in (b"", b"s", b"sa", b"sab", b"sa\0b"):
        await one(partition, SET, "abc", value=session, session=session)
    await one(partition, REMOVE_ALL, session=b"sa")
    await partition.apply([Command(END_SESSION, b"s")])
    assert await one(partition, GET_ALL, session=b"s") == {}
    assert await one(partition, GET_ALL, session=b"sa") == {}
    for session in (b"", b"sab", b"sa\0b"):
        assert await one(partition, GET_ALL, session=session) == {"abc": session}


async def test_remove_all_below_a_key(partition: EnginePartition) -> None:
    await one(partition, SET, "a", value={"b": {"c": 1}, "d": 2})
    assert await one(partition, GET_ALL, "a") == {"b": {"c": 1}, "d": 2}
    assert await one(partition, REMOVE_ALL, "a", "b") == b""
    assert await one(partition, GET, "a") == {"b": {}, "d": 2}


@pytest.mark.parametrize(
    ("refused", "error"),
    [
        (Command(GET, b"s", ()), InvalidError),
        (Command(SET, b"s", (), encode(1)), InvalidError),
        (Command(SET, b"s", ["k"] * 33, encode(1)), ChainTooDeepError),
        (Command(GET, b"s", ["k"] * 33), ChainTooDeepError),
        (Command(SET, b"s", ["k" * 257], encode(1)), TooLargeError),
        (Command(SET, b"s", ["k"], encode("x" * MAX_VALUE)), TooLargeError),
        (Command(SET, b"s", ["full", "b"], encode("x" * 100)), TooLargeError),
        (Command(SET, b"s", ["k"], b""), InvalidError),
        (Command(SET, b"s", ["k"], b"\xc1"), InvalidError),
        (Command(SET, b"s", ["k"], b"\x01\x02"), InvalidError),
        (Command(SET, b"s", ["k", "l"], b"\x92\x01"), InvalidError),
    ],
)
async def test_refusals(partition: EnginePartition, refused: Command, error: type[Exception]) -> None:
    await one(partition, SET, "full", "a", value="x" * (MAX_VALUE - 50))
    before = await one(partition, GET_ALL)
    (outcome,) = await partition.apply([refused])
    assert type(outcome) is error
    assert await one(partition, GET_ALL) == before


async def test_a_value_that_is_nested_too_deep_for_python_is_refused(tmp_path: Path) -> None:
    partition = await MemoryEngine(tmp_path, ExecutorOptions(1 << 20)).open(0)
    (outcome,) = await partition.apply([Command(SET, b"s", ["k"], b"\x91" * 200_000 + b"\x01")])
    assert isinstance(outcome, InvalidError)
    assert await one(partition, GET_ALL) == {}
    await partition.close()


async def test_records_are_kept_until_their_session_ends(partition: EnginePartition) -> None:
    await partition.apply([Command(PUT_RECORD, b"a", (), b"1"), Command(PUT_RECORD, b"b", (), b"2")])
    await partition.apply([Command(PUT_RECORD, b"a", (), b"3"), command(SET, "k", value=1, session=b"a")])
    assert await partition.records() == [("a", b"3"), ("b", b"2")]
    assert await one(partition, GET_ALL, session=b"a") == {"k": 1}
    await partition.apply([Command(END_SESSION, b"a")])
    assert await partition.records() == [("b", b"2")]
    assert await one(partition, GET_ALL, session=b"a") == {}


async def test_a_renewed_session_s_data_are_at_the_new_id(partition: EnginePartition) -> None:
    await partition.apply(
        [command(SET, "k", value={"a": 1}, session=b"old"), command(SET, "\0own", value=2, session=b"old")]
    )
    await partition.apply([Command(store_pb2.VERB_EXPIRE, b"old", ["k", "a"], msgspec.msgpack.encode(1000))])
    await partition.apply([Command(RENEW_SESSION, b"old", (), b"new")])
    assert await one(partition, GET_ALL, session=b"new") == {"k": {"a": 1}}
    assert await one(partition, GET, "\0own", session=b"new") == 2
    assert await one(partition, GET_ALL, session=b"old") == {}
    assert await one(partition, store_pb2.VERB_GET_EXPIRY, "k", "a", session=b"new") > 900
    assert await one(partition, store_pb2.VERB_GET_EXPIRY, "k", "a", session=b"old") is None
    await partition.apply([Command(END_SESSION, b"new")])
    assert partition.next_expiry() is None


async def test_syncing_changes_nothing(partition: EnginePartition) -> None:
    await one(partition, SET, "a", value=1)
    await partition.sync()
    await partition.sync()
    assert await one(partition, GET, "a") == 1


# Of LMDB alone


@pytest.mark.parametrize("sync_each_commit", [False, True])
async def test_a_partition_is_found_again_with_a_higher_epoch(tmp_path: Path, sync_each_commit: bool) -> None:
    engine = LmdbEngine(tmp_path, ExecutorOptions(MAX_VALUE), sync_each_commit=sync_each_commit)
    first = await engine.open(3)
    await one(first, SET, "a", value=1)
    await first.apply([Command(PUT_RECORD, b"s", (), b"r")])
    await first.close()
    second = await engine.open(3)
    assert second.epoch == first.epoch + 1
    assert await one(second, GET, "a") == 1
    assert await second.records() == [("s", b"r")]
    await second.close()


async def test_a_partition_has_one_owner(tmp_path: Path) -> None:
    engine = LmdbEngine(tmp_path, ExecutorOptions(MAX_VALUE))
    partition = await engine.open(3)
    with pytest.raises(PartitionLockedError, match="03"):
        await engine.open(3)
    await partition.close()
    await (await engine.open(3)).close()


async def test_a_partition_grows_beyond_its_first_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "MAP_BYTES", 64 * 1024)
    engine = LmdbEngine(tmp_path, ExecutorOptions(1 << 20), segment_bytes=4096)
    partition = await engine.open(0)
    for number in range(300):
        await one(partition, SET, f"k{number:03}", value="x" * 1000)
    await one(partition, SET, "large", value="x" * 200_000)
    everything = {f"k{number:03}": "x" * 1000 for number in range(300)} | {"large": "x" * 200_000}
    assert await one(partition, GET_ALL) == everything
    await partition.close()
    partition = await engine.open(0)
    assert await one(partition, GET_ALL) == everything
    await partition.close()


async def test_what_is_no_environment_is_named(tmp_path: Path) -> None:
    (tmp_path / "00" / "1").mkdir(parents=True)
    (tmp_path / "00" / "1" / "data.mdb").write_bytes(b"garbage" * 10_000)
    engine = LmdbEngine(tmp_path, ExecutorOptions(MAX_VALUE))
    with pytest.raises(EngineError, match=r"cannot open partition 0 in .*00"):
        await engine.open(0)
    with pytest.raises(EngineError, match="cannot open partition 0"):  # and it is not locked now
        await engine.open(0)
