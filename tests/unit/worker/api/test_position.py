"""Positions as clients are told them, and tell them again."""

from __future__ import annotations

import pytest

from socketcluster_store_client.messages import Position
from socketcluster_worker.api.position import MAX_NUMBER, read_position, write_position


def test_a_position_is_read_as_it_was_written() -> None:
    assert write_position(Position(epoch=7, offset=12)) == "7-12"
    assert read_position("7-12") == Position(epoch=7, offset=12)
    most = Position(MAX_NUMBER, MAX_NUMBER)
    assert read_position(write_position(most)) == most


@pytest.mark.parametrize(
    "text",
    [
        None,
        7,
        "",
        "-",
        "7",
        "7-",
        "-7",
        "7-x",
        "7--1",
        " 7-1",
        "7-1-1",
        "1" * 39 + "-1",
        b"7-1",
        f"{2**64 - 1}-1",
        f"1-{2**64 - 1}",
    ],
)
def test_what_is_no_position_is_none(text: object) -> None:
    assert read_position(text) is None
