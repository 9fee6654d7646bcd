"""What each verb of the data does and refuses, on each engine."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import pytest
from support.store.data import MAX_VALUE, Data, encode, number

from socketcluster_store.commands import EXPIRE_DUE, Command
from socketcluster_store.errors import (
    ChainTooDeepError,
    InvalidError,
    SessionTooLargeError,
    TooLargeError,
    WrongTypeError,
)

# Lists and maps


@pytest.mark.parametrize(
    ("before", "index", "after"),
    [
        (None, 0, ["new"]),
        ([], 0, ["new"]),
        ([1, 2], 2, [1, 2, "new"]),
        ("scalar", 1, ["scalar", "new"]),
        (False, 1, [False, "new"]),
        ({}, 0, {"0": "new"}),
        ({"deep": 1, "3": 2, "01": 3}, 4, {"deep": 1, "3": 2, "01": 3, "4": "new"}),
    ],
)
@pytest.mark.parametrize("keys", [("k",), ("a", "b"), ("a", "b", "c")])
async def test_add(data: Data, keys: tuple[str, ...], before: Any, index: int, after: Any) -> None:
    if before is not None:
        await data.do("set", *keys, value=before)
    assert await data.do("add", *keys, value="new") == index
    assert await data.do("get", *keys) == after


@pytest.mark.parametrize(
    ("before", "more", "total", "after"),
    [
        (None, [1, 2], 2, [1, 2]),
        (None, {"a": 1}, 1, {"a": 1}),
        ([1], [2, 3], 3, [1, 2, 3]),
        ({"a": 1, "b": 2}, {"b": 3, "c": 4}, 3, {"a": 1, "b": 3, "c": 4}),
        ("scalar", [1], 2, ["scalar", 1]),
    ],
)
async def test_concat(data: Data, before: Any, more: Any, total: int, after: Any) -> None:
    await data.do("set", "k", "l", value=before)
    assert await data.do("concat", "k", "l", value=more) == total
    assert await data.do("get", "k", "l") == after


@pytest.mark.parametrize(("before", "more"), [([1], {"a": 1}), ({"a": 1}, [1]), (1, {"a": 1}), ([1], 2), (None, "x")])
async def test_what_cannot_be_concatenated(data: Data, before: Any, more: Any) -> None:
    await data.do("set", "k", value=before)
    with pytest.raises(WrongTypeError, match=r"CONCAT \['k'\]: "):
        await data.do("concat", "k", value=more)
    assert await data.do("get", "k") == before


@pytest.mark.parametrize(
    ("before", "popped", "after"),
    [
        (None, None, None),
        ([], None, []),
        ([1, 2], 2, [1]),
        ({"9": "a", "10": "b", "x": "c"}, "b", {"9": "a", "x": "c"}),
        ({"x": 1}, None, {"x": 1}),
    ],
)
async def test_pop(data: Data, before: Any, popped: Any, after: Any) -> None:
    await data.do("set", "k", value=before)
    assert await data.do("pop", "k") == popped
    assert await data.do("get", "k") == after
    assert await data.do("pop", "nothing") is None


RANGES = [(None, None), (0, None), (1, 3), (-2, None), (None, -1), (-100, 100), (3, 1), (5, 9), (2, 2)]


@pytest.mark.parametrize(("start", "stop"), RANGES)
async def test_ranges_are_slices(data: Data, start: int | None, stop: int | None) -> None:
    items = [10, 20, 30, 40]
    await data.do("set", "k", "l", value=items)
    assert await data.do("get_range", "k", "l", value=(start, stop)) == items[start:stop]
    assert await data.do("remove_range", "k", "l", value=(start, stop)) == items[start:stop]
    del items[start:stop]
    assert await data.do("get", "k", "l") == items
    assert await data.do("get_range", "k", "nothing", value=(start, stop)) == []
    assert await data.do("remove_range", "nothing", value=(start, stop)) == []


async def test_count(data: Data) -> None:
    await data.do("set", "l", value=[1, 2, 3])
    await data.do("set", "m", value={"a": 1})
    await data.do("set", "\0own", value=0)
    assert [await data.do("count", *keys) for keys in (["l"], ["m"], ["x"], ["l", "9"], [])] == [3, 1, 0, 0, 2]


async def test_remove_can_return_the_value(data: Data) -> None:
    await data.do("set", "k", value={"a": [1, 2]})
    assert await data.do("remove", "k", "a", "0", value=True) == 1
    assert await data.do("remove", "k", value=True) == {"a": [2]}
    assert await data.do("remove", "k", value=True) is None
    assert await data.do("remove", "k", value=False) is False


async def test_the_services_own_keys_are_passed_over(data: Data) -> None:
    await data.do("set", "\0own", value=1)
    await data.do("set", "k", value=2)
    assert await data.do("get_all") == {"k": 2}
    await data.do("remove_all")
    assert await data.do("get_all") == {}
    assert await data.do("get", "\0own") == 1


async def test_an_index_has_one_spelling(data: Data) -> None:
    await data.do("set", "l", value=[1, 2])
    assert await data.do("get", "l", "1") == 2
    for other in ("01", "+1", "-1", "1.0", ""):
        assert await data.do("get", "l", other) is None
        with pytest.raises(WrongTypeError, match="no index"):
            await data.do("set", "l", other, value=0)


# Errors


@pytest.mark.parametrize("verb", ["get_range", "remove_range", "pop", "count", "get_all", "remove_all"])
async def test_a_scalar_is_refused_with_operation_and_key_chain(data: Data, verb: str) -> None:
    await data.do("set", "k", value={"l": "text"})
    value = (0, None) if verb.endswith("range") else b""
    with pytest.raises(WrongTypeError, match=rf"{verb.upper()} \['k', 'l'\]: a text stands at \['k', 'l'\], no "):
        await data.do(verb, "k", "l", value=value)


@pytest.mark.parametrize("verb", ["get_range", "remove_range"])
async def test_a_map_has_no_ranges(data: Data, verb: str) -> None:
    await data.do("set", "k", value={})
    with pytest.raises(WrongTypeError, match="a map stands at"):
        await data.do(verb, "k", value=(0, None))


@pytest.mark.parametrize("bounds", [b"", 1, [1], [1, 2, 3], ["0", None], [True, 1], [0.0, 1]])
async def test_ranges_that_are_none(data: Data, bounds: Any) -> None:
    await data.do("set", "k", value=[1])
    for verb in ("get_range", "remove_range"):
        with pytest.raises(InvalidError, match=rf"{verb.upper()} \['k'\]"):
            await data.do(verb, "k", value=bounds)


ALL_VERBS = {
    "get": b"",
    "set": 1,
    "exists": b"",
    "remove": b"",
    "get_all": b"",
    "remove_all": b"",
    "add": 1,
    "concat": [1],
    "remove_range": (0, None),
    "pop": b"",
    "get_range": (0, None),
    "count": b"",
    "expire": 1,
    "unexpire": b"",
    "get_expiry": b"",
    "update": (b"", 1),
    "watch": b"",
}


@pytest.mark.parametrize("verb", ALL_VERBS)
async def test_a_chain_may_have_32_keys(data: Data, verb: str) -> None:
    await data.do(verb, *["k"] * 32, value=ALL_VERBS[verb])
    with pytest.raises(ChainTooDeepError, match=rf"{verb.upper()} \['k', .*at most 32 keys, this one has 33"):
        await data.do(verb, *["k"] * 33, value=ALL_VERBS[verb])


@pytest.mark.parametrize(
    "verb", [verb for verb in ALL_VERBS if verb not in ("watch", "get_all", "remove_all", "count")]
)
async def test_a_key_is_needed(data: Data, verb: str) -> None:
    with pytest.raises(InvalidError, match=rf"{verb.upper()} \[\]: a key chain has at least one key"):
        await data.do(verb, value=ALL_VERBS[verb])


@pytest.mark.parametrize("verb", ["set", "add", "concat"])
@pytest.mark.parametrize("keys", [("k",), ("k", "l")])
async def test_a_value_has_a_largest_size(data: Data, verb: str, keys: tuple[str, ...]) -> None:
    await data.do("set", *keys, value=["x" * (MAX_VALUE - 50)])
    before = await data.do("get_all")
    with pytest.raises(TooLargeError, match=rf"{verb.upper()} .*2000 are allowed"):
        await data.do(verb, *keys, value=["y" * (MAX_VALUE if verb == "set" else 100)])
    assert await data.do("get_all") == before


@pytest.mark.parametrize("verb", ["set", "add", "concat", "update"])
@pytest.mark.parametrize("keys", [("k",), ("k", "l")])
async def test_a_session_has_a_largest_size(data: Data, verb: str, keys: tuple[str, ...]) -> None:
    for key in ("a", "b"):
        await data.do("set", key, value="x" * 1900)
    before = await data.do("get_all")
    value: Any = ["y" * 200]
    if verb == "update":
        value = (blake2b(encode(None), digest_size=16).digest(), value)
    with pytest.raises(SessionTooLargeError, match=rf"{verb.upper()} .*would exceed 4000 bytes"):
        await data.do(verb, *keys, value=value)
    assert await data.do("get_all") == before
    await data.do(verb, *keys, value=value, session=b"another")
    await data.do(verb, *keys, value=value, session=b"")  # the application's tree has no such limit


async def test_a_session_may_be_filled_again_and_again(data: Data) -> None:
    for _ in range(3):
        for key in "abcdefghij":  # the same ten keys: what they replace does not count
            for _ in range(3):
                await data.do("set", key, value="x" * 370)
        with pytest.raises(SessionTooLargeError):
            await data.do("set", "more", value="x" * 400)
        for key in "abcde":
            await data.do("remove", key)
        await data.do("set", "more", value="x" * 400)
        await data.do("remove_all")


async def test_expiries_count_towards_a_sessions_size(data: Data) -> None:
    await data.do("set", "k", value=dict.fromkeys(map(str, range(200)), 0))

    async def expire_all() -> None:
        for key in range(200):
            assert await data.do("expire", "k", str(key), value=100) is True

    with pytest.raises(SessionTooLargeError, match="EXPIRE"):
        await expire_all()
    await data.do("remove", "k")
    await data.do("set", "k", value="x" * 1900)
    await data.do("set", "l", value="x" * 1900)


@pytest.mark.parametrize("verb", ["expire", "watch"])
async def test_a_chain_that_is_kept_has_a_largest_size(data: Data, verb: str) -> None:
    keys = ("k", "x" * 1500)
    await data.do("set", *keys, value=0)
    await data.do(verb, *keys, value=1)
    with pytest.raises(TooLargeError, match="4096 are allowed"):
        await data.do("watch", "k", *["x" * 1500] * 3)


@pytest.mark.parametrize("value", [b"\xc1", b"\x92\x01", b"\x91" * 2000])
@pytest.mark.parametrize("verb", ["set", "add", "concat", "update", "expire", "get_range", "transaction", "run"])
async def test_what_is_no_messagepack(data: Data, verb: str, value: bytes) -> None:
    data.procedure(name="p")(lambda tree: None)
    await data.do("set", "k", value=1)
    keys = () if verb in ("transaction", "run") else ("k", "l")
    (outcome,) = await data.apply(Command(number(verb), b"s", keys, value[:MAX_VALUE], "p"))
    assert isinstance(outcome, InvalidError)
    assert await data.do("get_all") == {"k": 1}


@pytest.mark.parametrize("value", [b"\x81\x81\x01\x01\x01", b"\x81\xa1\xff\x01"])
async def test_what_only_looks_like_messagepack(data: Data, value: bytes) -> None:
    (outcome,) = await data.apply(Command(number("set"), b"s", ("k",), value))
    assert outcome == b""  # a whole value is not read when it is put
    for verb in ("get", "add", "expire"):
        (outcome,) = await data.apply(Command(number(verb), b"s", ("k", "l"), encode(1)))
        assert isinstance(outcome, InvalidError)
    (outcome,) = await data.apply(Command(number("add"), b"s", ("n",), value))
    assert isinstance(outcome, InvalidError)
    await data.do("expire", "k", value=0)
    await data.apply(Command(EXPIRE_DUE, b""))
    assert await data.do("exists", "k") is False


# Compare and set


async def test_update_sets_what_is_as_it_was_seen(data: Data) -> None:
    def seen(value: Any) -> bytes:
        return blake2b(encode(value), digest_size=16).digest()

    assert await data.do("update", "k", value=(seen(None), 1)) == [True, None]
    assert await data.do("update", "k", value=(seen(None), 2)) == [False, 1]
    assert await data.do("update", "k", value=(seen(1), {"a": [1]})) == [True, None]
    assert await data.do("update", "k", "a", "0", value=(seen(1), 2)) == [True, None]
    assert await data.do("update", "k", "a", "0", value=(seen(1), 3)) == [False, 2]
    assert await data.do("get", "k") == {"a": [2]}
