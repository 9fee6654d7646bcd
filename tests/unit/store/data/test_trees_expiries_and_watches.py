"""When key chains expire, and what their watchers are told, on each engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lmdb
import pytest
from support.store.data import MAX_VALUE, PARTITION, Clock, Data, encode, number, watch

from socketcluster_store.commands import END_SESSION, EXPIRE_DUE, WATCHED, Command
from socketcluster_store.data.procedures import Procedures
from socketcluster_store.data.trees import EXPIRED_AT_ONCE
from socketcluster_store.engines.lmdb import environments
from socketcluster_store.engines.lmdb.engine import LmdbEngine
from socketcluster_store.errors import (
    EngineError,
    InvalidError,
    TooLargeError,
)
from socketcluster_store.executor import ExecutorOptions

# Expiry


async def test_what_is_due_is_removed(data: Data) -> None:
    await data.do("set", "a", value=1)
    await data.do("set", "b", value={"c": [1, 2], "d": 3})
    assert await data.do("expire", "a", value=10) is True
    assert await data.do("expire", "b", "c", "0", value=5.5) is True
    assert await data.do("expire", "nothing", value=5) is False
    assert data.partition.next_expiry() == data.clock.now + 5.5
    data.clock.now += 5
    await data.apply(Command(EXPIRE_DUE, b""))
    assert await data.do("get_expiry", "b", "c", "0") == 0.5
    data.clock.now += 0.5
    await data.apply(Command(EXPIRE_DUE, b""))
    assert await data.do("get_all") == {"a": 1, "b": {"c": [2], "d": 3}}
    data.clock.now += 100
    await data.apply(Command(EXPIRE_DUE, b""))
    assert await data.do("get_all") == {"b": {"c": [2], "d": 3}}
    assert data.partition.next_expiry() is None


async def test_an_expiry_can_be_taken_back_and_replaced(data: Data) -> None:
    await data.do("set", "a", value=1)
    assert await data.do("unexpire", "a") is False
    await data.do("expire", "a", value=10)
    await data.do("expire", "a", value=20)
    await data.do("set", "a", value=2)  # leaves it
    assert await data.do("get_expiry", "a") == 20
    assert data.partition.next_expiry() == data.clock.now + 20
    assert await data.do("unexpire", "a") is True
    assert data.partition.next_expiry() is None
    assert await data.do("get_expiry", "a") is None


@pytest.mark.parametrize(
    ("verb", "keys", "left"),
    [
        ("remove", ("a",), set()),
        ("remove", ("a", "b"), {("a",), ("a", "d")}),
        ("remove_all", (), set()),
        ("remove_all", ("a",), {("a",)}),
        ("pop", ("a", "b"), {("a",), ("a", "b"), ("a", "b", "0"), ("a", "d")}),
    ],
)
async def test_expiries_go_with_what_is_removed(
    data: Data, verb: str, keys: tuple[str, ...], left: set[tuple[str, ...]]
) -> None:
    await data.do("set", "a", value={"b": [1, {"c": 2}], "d": 3})
    chains = [("a",), ("a", "b"), ("a", "b", "0"), ("a", "b", "1", "c"), ("a", "d")]
    for chain in chains:
        assert await data.do("expire", *chain, value=10)
    await data.do(verb, *keys)
    assert {chain for chain in chains if await data.do("get_expiry", *chain) is not None} == left


@pytest.mark.parametrize("seconds", [-1, "1", None, True, float("nan"), float("inf"), 10**10])
async def test_times_that_are_none(data: Data, seconds: Any) -> None:
    await data.do("set", "a", value=1)
    with pytest.raises(InvalidError, match=r"EXPIRE \['a'\]: an expiry is a number of seconds"):
        await data.do("expire", "a", value=seconds)


async def test_much_that_is_due_is_removed_in_parts(data: Data) -> None:
    count = EXPIRED_AT_ONCE + 5
    for key in range(count):
        await data.do("set", f"k{key}", value=0, session=b"")
        await data.do("expire", f"k{key}", value=1, session=b"")
    data.clock.now += 1
    await data.apply(Command(EXPIRE_DUE, b""))
    assert await data.do("count", session=b"") == 5
    assert data.partition.next_expiry() == data.clock.now
    await data.apply(Command(EXPIRE_DUE, b""))
    assert await data.do("count", session=b"") == 0


async def test_expiries_of_an_ended_session_are_gone(data: Data) -> None:
    await data.do("set", "a", value=1)
    await data.do("expire", "a", value=1)
    await data.apply(Command(END_SESSION, b"s"))
    assert data.partition.next_expiry() is None
    await data.do("set", "a", value=2)
    assert await data.do("get_expiry", "a") is None


# Watching


@pytest.mark.parametrize(
    ("verb", "keys", "value", "told"),
    [
        ("set", ("a",), {"b": [5]}, [((), ("a",), "set", {"b": [5]}), (("a",), ("a",), "set", {"b": [5]})]),
        ("add", ("a", "b"), 9, [((), ("a", "b"), "add", 9), (("a",), ("a", "b"), "add", 9)]),
        ("concat", ("a", "b"), [8, 9], [((), ("a", "b"), "concat", [8, 9]), (("a",), ("a", "b"), "concat", [8, 9])]),
        ("pop", ("a", "b"), b"", [((), ("a", "b"), "pop", None), (("a",), ("a", "b"), "pop", None)]),
        (
            "remove_range",
            ("a", "b"),
            (-2, None),
            [((), ("a", "b"), "remove_range", [1, 3]), (("a",), ("a", "b"), "remove_range", [1, 3])],
        ),
        ("remove", ("a", "b"), b"", [((), ("a", "b"), "remove", None), (("a",), ("a", "b"), "remove", None)]),
        ("remove_all", ("a",), b"", [((), ("a",), "remove_all", None), (("a",), ("a",), "remove_all", None)]),
        ("remove_all", (), b"", [((), (), "remove_all", None), (("a",), ("a",), "remove", None)]),
        ("set", ("other",), 1, [((), ("other",), "set", 1)]),
        ("set", ("\0own",), 1, []),
        ("get", ("a",), b"", []),
        ("remove", ("nothing",), b"", []),
        ("pop", ("nothing",), b"", []),
        ("remove_range", ("a", "b"), (9, None), []),
    ],
)
async def test_watchers_are_told_what_was_done(
    data: Data, verb: str, keys: tuple[str, ...], value: Any, told: list[Any]
) -> None:
    await data.do("set", "a", value={"b": [1, 2, 3]})
    await watch(data, (), ("a",))
    await watch(data, ("a",), session=b"another")
    await data.do(verb, *keys, value=value)
    assert data.changes() == told


@pytest.mark.parametrize(
    ("verb", "keys", "value", "told"),
    [
        ("set", ("a",), {"b": [5]}, [("0", "set", 5), ("1", "remove", None)]),
        ("remove", ("a",), b"", [("0", "remove", None), ("1", "remove", None)]),
        ("remove", ("a", "b", "0"), b"", [("0", "set", 2), ("1", "set", 3)]),
        ("remove", ("a", "b", "1"), b"", [("1", "set", 3)]),
        ("add", ("a", "b"), 4, [("0", "set", 1), ("1", "set", 2)]),
        ("set", ("a", "b", "1"), 7, [("1", "set", 7)]),
    ],
)
async def test_watchers_are_told_what_a_change_above_did_to_theirs(
    data: Data, verb: str, keys: tuple[str, ...], value: Any, told: list[Any]
) -> None:
    await data.do("set", "a", value={"b": [1, 2, 3]})
    await watch(data, ("a", "b", "0"), ("a", "b", "1"))
    await data.do(verb, *keys, value=value)
    assert [(watched[-1], operation, value) for watched, _keys, operation, value in data.changes()] == told


async def test_watchers_are_told_of_expiries_and_the_session_s_end(data: Data) -> None:
    await data.do("set", "a", value=1)
    await data.do("expire", "a", value=1)
    await watch(data, ("a",))
    data.clock.now += 1
    await data.apply(Command(EXPIRE_DUE, b""))
    await data.apply(Command(END_SESSION, b"s"))
    assert data.changes() == [(("a",), ("a",), "expire", None), (("a",), ("a",), "end", None)]
    await data.do("set", "a", value=1)
    assert data.changes() == []


async def test_what_is_gone_does_not_expire(data: Data) -> None:
    await data.do("set", "a", value={"b": 1})
    await data.do("expire", "a", "b", value=1)
    await data.do("set", "a", value={})  # leaves the expiry
    await watch(data, ("a",))
    data.clock.now += 1
    await data.apply(Command(EXPIRE_DUE, b""))
    assert data.changes() == []
    assert data.partition.next_expiry() is None


async def test_changes_are_counted_until_nobody_watches(data: Data) -> None:
    await watch(data, ("a",))
    await data.do("set", "a", value=1)
    await data.transaction(("set", ["a"], {}), ("set", ["b"], 2), ("set", ["a", "b"], 3))
    changes = data.numbered()
    assert [change.number for change in changes] == [1, 2, 3]
    assert len({change.generation for change in changes}) == 1
    await data.do("unwatch", "a", value=True)  # another link watches
    await data.do("set", "a", value=1)
    assert [operation for *_rest, operation, _value in data.changes()] == ["stop", "set"]
    await data.do("unwatch", "a")
    await data.do("set", "a", value=1)
    assert [operation for *_rest, operation, _value in data.changes()] == ["stop"]
    (watched,) = await data.apply(Command(WATCHED, b""))
    assert watched == encode([])


async def test_the_whole_application_cannot_be_watched(data: Data) -> None:
    with pytest.raises(InvalidError, match="watched by key"):
        await data.do("watch", session=b"")
    with pytest.raises(TooLargeError, match="tag"):
        await data.do("watch", "a", value="x" * 100)


# What outlives the process


async def test_expiries_and_counts_are_found_again(tmp_path: Path, clock: Clock, procedures: Procedures) -> None:
    engine = LmdbEngine(tmp_path, ExecutorOptions(MAX_VALUE, clock=clock))
    data = Data(await engine.open(PARTITION), clock, procedures)
    await data.do("set", "a", value={"b": 1})
    await data.do("expire", "a", "b", value=10)
    await watch(data, ("a",))
    await data.do("set", "a", "c", value=2)
    (last,) = data.numbered()
    await data.partition.close()
    data = Data(await engine.open(PARTITION), clock, procedures)
    (watched,) = await data.apply(Command(WATCHED, b""))
    assert watched == encode([(b"s", ("a",))])
    assert data.partition.next_expiry() == clock.now + 10
    clock.now += 10
    await data.apply(Command(EXPIRE_DUE, b""))
    (expired,) = data.numbered()
    assert (expired.generation, expired.number, expired.operation) == (last.generation, last.number + 1, "expire")
    assert await data.do("get_all") == {"a": {"c": 2}}
    await data.partition.close()


async def test_a_failed_commit_is_forgotten(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(_environment: lmdb.Environment) -> None:
        raise lmdb.Error("no room")

    monkeypatch.setattr(environments, "MAP_BYTES", 256 * 1024)
    monkeypatch.setattr(environments, "grow", no_room)
    engine = LmdbEngine(tmp_path, ExecutorOptions(1 << 20, max_session_bytes=400_000, clock=clock), segment_bytes=4096)
    data = Data(await engine.open(PARTITION), clock, Procedures())
    await data.do("set", "a", value=1)
    await watch(data, ("a",))
    with pytest.raises(EngineError, match="no room"):
        await data.apply(
            Command(number("expire"), b"s", ("a",), encode(5)),
            Command(number("set"), b"s", ("a",), encode(2)),
            Command(number("set"), b"s", ("b",), encode("x" * 300_000)),
        )
    assert await data.do("get_expiry", "a") is None
    assert data.partition.next_expiry() is None
    assert data.changes() == []
    await data.do("set", "a", value=3)
    assert [change[2:] for change in data.changes()] == [("set", 3)]
    await data.partition.close()
