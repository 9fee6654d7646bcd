"""JSON texts and values: how deep they are, what is in them, and halves of surrogate pairs."""

from __future__ import annotations

import datetime
import json
import random
from typing import Any

import pytest

from socketcluster_wire.json_text import (
    MAX_DEPTH,
    SHALLOW,
    may_hold_binary,
    may_nest_deeply,
    nest_deeper,
    replace_lone_surrogates,
)


def nested(depth: int, inside: Any = 1, *, alternate: bool = False) -> Any:
    """Return a value within so many lists, or every other one an object."""
    for level in range(depth):
        inside = {"key": inside} if alternate and level % 2 else [inside]
    return inside


@pytest.mark.parametrize("alternate", [True, False])
def test_depth_is_counted_exactly(alternate: bool) -> None:
    for depth in (1, 2, 10, MAX_DEPTH):
        assert not nest_deeper([nested(depth, alternate=alternate)], depth)
        assert nest_deeper([nested(depth + 1, alternate=alternate)], depth)


def test_the_deepest_of_several_counts_and_an_empty_one_does_not() -> None:
    assert nest_deeper([1, "a", None, nested(3)], 2)
    assert not nest_deeper([nested(2), nested(2, {}), nested(2, [])], 2)
    assert not nest_deeper([], 1)


def test_who_may_be_too_deep_is_seen_in_the_text_and_nobody_slips_through() -> None:
    for depth in (MAX_DEPTH, MAX_DEPTH + 1):
        assert may_nest_deeply(json.dumps(nested(depth, alternate=True))) == (depth > MAX_DEPTH)
    assert may_nest_deeply(json.dumps("[" * (MAX_DEPTH + 1)))  # which is looked at, and found to be flat
    shortest = "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)
    assert len(shortest) > SHALLOW


@pytest.mark.parametrize("value", [b"", bytearray(), memoryview(b"a"), datetime.date(2020, 1, 1), {1}, 1j, object()])
@pytest.mark.parametrize("around", [lambda value: value, lambda value: [value], lambda value: {"a": {"b": (1, value)}}])
def test_what_is_not_plain_json_is_found_wherever_it_is(value: object, around: Any) -> None:
    assert may_hold_binary([1, "text", around(value)])


def test_plain_json_is_plain() -> None:
    assert not may_hold_binary([])
    assert not may_hold_binary([None, True, 1, 1.5, "text", [], {}, (), [[{"a": [1, {"b": None}]}]], nested(50)])


@pytest.mark.parametrize(
    ("text", "replaced"),
    [
        (r'"\ud83d\ude00"', r'"\ud83d\ude00"'),
        (r'"\ud83d"', r'"\ufffd"'),
        (r'"\ude00"', r'"\ufffd"'),
        (r'"\ude00\ud83d"', r'"\ufffd\ufffd"'),
        (r'"\ud83d\ud83d\ude00"', r'"\ufffd\ud83d\ude00"'),
        (r'"\\ud83d"', r'"\\ud83d"'),
        (r'"\\\ud83d"', r'"\\\ufffd"'),
        (r'"\uD83D\uDE00\uDBFF"', r'"\uD83D\uDE00\ufffd"'),
        (r'"\u00e9\n\""', r'"\u00e9\n\""'),
    ],
)
def test_each_half_of_a_pair_is_replaced_and_nothing_else(text: str, replaced: str) -> None:
    assert replace_lone_surrogates(text) == replaced


def test_any_text_becomes_what_utf_8_has_and_one_that_is_so_stays() -> None:
    draw = random.Random(1)
    for _ in range(2000):
        parts = draw.choices(["\ud83d", "\ude00", "\udbff", "\udc00", "a", "\\", "\\u", '"', "\n", "😀", "d83d"], k=8)
        told = "".join(parts)
        got = json.loads(replace_lone_surrogates(json.dumps(told)))
        assert got == told.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
