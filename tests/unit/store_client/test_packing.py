"""Values as MessagePack, with integers of any size."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from socketcluster_store_client.packing import HUGE, decoder, pack, unpack

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
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
    other = unpack(pack(msgspec.msgpack.Ext(HUGE + 1, b"x")))
    assert (other.code, other.data) == (HUGE + 1, b"x")


def test_a_decoder_may_expect_a_type() -> None:
    assert decoder(list[Any]).decode(pack([10**20])) == [10**20]
    with pytest.raises(msgspec.ValidationError):
        decoder(list[Any]).decode(pack(10**20))
