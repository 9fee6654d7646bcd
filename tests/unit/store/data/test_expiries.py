"""What a change of one expiry costs does not grow with how many there are: counted, not timed."""

from __future__ import annotations

from typing import Any

import pytest

from socketcluster_store.data.expiries import Expiries
from socketcluster_store.engines.sorted_map import SortedMap

MANY = 1000


class Chain(tuple[str, ...]):
    """A key chain that counts how often one is looked into."""

    __slots__ = ()
    looks = 0

    def __getitem__(self, index: Any) -> Any:
        Chain.looks += 1
        return super().__getitem__(index)


@pytest.fixture
def expiries() -> Expiries:
    """Many key chains expire, of other top-level keys."""
    made = Expiries()
    made.load(SortedMap())
    for number in range(MANY):
        made.set(b"", Chain((f"k{number}", "x")), float(number))
    return made


def test_a_change_looks_at_the_expiries_of_its_own_top_level_key(expiries: Expiries) -> None:
    kv = SortedMap()
    Chain.looks = 0
    assert expiries.remove_below(kv, b"", ("k1", "x", "y"), itself=True) == 0
    assert expiries.remove_below(kv, b"", ("other",), itself=True) == 0
    assert expiries.remove_below(kv, b"", ("k2",), itself=True) > 0
    assert Chain.looks < 10
    assert expiries.get(b"", ("k2", "x")) is None
    assert expiries.remove_below(kv, b"", (), itself=True) > 0
    assert b"" not in expiries


def test_what_is_undone_does_not_sort_all_expiries_anew(expiries: Expiries, monkeypatch: pytest.MonkeyPatch) -> None:
    def rebuild() -> None:
        raise AssertionError("all are sorted anew")

    monkeypatch.setattr(expiries, "_rebuild", rebuild)
    kv = SortedMap()
    for _ in range(20):
        expiries.begin()
        expiries.undo()
    expiries.begin()
    expiries.remove(kv, b"", ("k0", "x"))
    expiries.set(b"", ("k1", "x"), 5000.0)
    assert expiries.next() == 2.0
    expiries.undo()
    for number in range(3):
        assert expiries.due(number) == (b"", (f"k{number}", "x"))
        expiries.remove(kv, b"", (f"k{number}", "x"))
