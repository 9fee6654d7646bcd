"""Values as MessagePack, with integers of any size."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from socketcluster_store_client.packing import HUGE, decoder, json_of, pack, pack_json, unpack

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
json_scalars = st.none() | st.booleans() | st.integers() | st.text()
json_values = st.recursive(json_scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(values)
@example(2**64 - 1)
@example(2**64)
@example(-(2**63))
@example(-(2**63) - 1)
@example([2**71, 2**72 - 1, -(2**71), -(2**71) - 1])
@example(10**4300 - 1)
@example(1 - 10**4300)
def test_what_is_packed_is_unpacked_as_it_was(value: Any) -> None:
    assert unpack(pack(value)) == value


@given(values)
def test_who_does_not_know_the_extension_may_pass_it_on(value: Any) -> None:
    assert msgspec.msgpack.encode(msgspec.msgpack.decode(pack(value))) == pack(value)


def test_ordinary_values_are_plain_messagepack() -> None:
    value = {"a": [1, 2**64 - 1, -(2**63), b"b", "c", None, 0.5]}
    assert pack(value) == msgspec.msgpack.encode(value)


def test_what_holds_a_huge_integer_may_be_anything() -> None:
    @dataclass
    class Point:
        x: int

    at = datetime(2026, 1, 2, tzinfo=UTC)
    assert unpack(pack((Point(10**20), {10**20}, at, b"x"))) == [{"x": 10**20}, [10**20], at, b"x"]


def test_an_integer_has_a_largest_size() -> None:
    with pytest.raises(OverflowError, match="4300 digits"):
        pack([10**4300])
    with pytest.raises(OverflowError):
        pack({10**20: "a key"})


def test_other_extensions_are_left_as_they_are() -> None:
    other = unpack(pack(msgspec.msgpack.Ext(HUGE + 2, b"x")))
    assert (other.code, other.data) == (HUGE + 2, b"x")


def test_a_decoder_may_expect_a_type() -> None:
    assert decoder(list[Any]).decode(pack([10**20])) == [10**20]
    with pytest.raises(msgspec.ValidationError):
        decoder(list[Any]).decode(pack(10**20))


@given(json_values)
def test_json_is_packed_as_it_is_and_unpacked_as_its_value(value: Any) -> None:
    text = json.dumps(value, indent=1).encode()
    packed = pack_json(text)
    assert json_of(packed) == text
    assert unpack(packed) == value


@given(values)
def test_what_is_not_json_is_told_from_it(value: Any) -> None:
    assert json_of(pack(value)) is None


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8, 16, 17, 255, 256, 65535, 65536])
def test_json_of_any_length_is_found_again(size: int) -> None:
    text = b"1" * size
    assert json_of(pack_json(text)) == text


def test_other_extensions_are_not_json() -> None:
    assert json_of(b"") is None
    for size in (1, 2, 3, 4, 8, 16, 300, 70_000):
        assert json_of(msgspec.msgpack.encode(msgspec.msgpack.Ext(HUGE, b"J" * size))) is None


@pytest.mark.parametrize("number", ["1e999", "9" * 5000, "-1e400", "9" * 400 + ".5"])
def test_numbers_beyond_pythons_are_infinite(number: str) -> None:
    (read,) = unpack(pack_json(f"[{number}]".encode()))
    assert math.isinf(read)
