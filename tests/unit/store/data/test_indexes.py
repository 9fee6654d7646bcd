"""What is held in memory beside a partition's data: undone with what was undone there, and made anew of it."""

from __future__ import annotations

import pytest

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.commands import Command
from socketcluster_store.data.expiries import Expiries
from socketcluster_store.data.indexes import Indexes
from socketcluster_store.data.mutations import NIL
from socketcluster_store.data.sizes import SessionSizes
from socketcluster_store.data.watches import BEGIN, Watches
from socketcluster_store.engines.sorted_map import SortedMap

LIMIT = 1000
CHAIN = ("k",)


@pytest.fixture
def kv() -> SortedMap:
    return SortedMap()


@pytest.fixture
def indexes(kv: SortedMap) -> Indexes:
    """Of a session whose key chain is watched, and does not expire."""
    made = Indexes(SessionSizes(LIMIT), Expiries(), Watches())
    made.watches.watch(kv, b"s", Command(store_pb2.VERB_WATCH, b"s", CHAIN), NIL)
    made.load(kv)
    return made


def change(indexes: Indexes) -> None:
    indexes.expiries.set(b"s", CHAIN, 5.0)
    indexes.watches.note(b"s", CHAIN, "set", NIL, lambda _chain: NIL, moved=False)


def operations(indexes: Indexes, kv: SortedMap) -> list[str]:
    return [told.operation for told in indexes.watches.take(kv)]


def test_what_is_committed_stays(indexes: Indexes, kv: SortedMap) -> None:
    indexes.begin(b"s")
    change(indexes)
    indexes.commit()
    indexes.expiries.undo()  # there is nothing to undo any more
    assert indexes.expiries.next() == 5.0
    assert operations(indexes, kv) == ["set"]


def test_what_is_undone_is_as_if_it_had_not_been(indexes: Indexes, kv: SortedMap) -> None:
    change(indexes)
    indexes.begin(b"s")
    indexes.expiries.set(b"s", CHAIN, 7.0)
    indexes.watches.note(b"s", CHAIN, "remove", NIL, lambda _chain: None, moved=False)
    indexes.undo()
    assert indexes.expiries.next() == 5.0
    (told,) = indexes.watches.take(kv)
    assert (told.operation, told.number) == ("set", 1)
    change(indexes)
    (told,) = indexes.watches.take(kv)
    assert told.number == 2


def test_a_session_is_measured_anew_after_what_was_undone(indexes: Indexes, kv: SortedMap) -> None:
    indexes.begin(b"s")
    assert indexes.sizes.fits(kv, b"s", b"d", LIMIT - 1)
    assert not indexes.sizes.fits(kv, b"s", b"e", LIMIT - 1)
    indexes.undo()
    assert indexes.sizes.fits(kv, b"s", b"e", LIMIT - 1)
    indexes.forget()
    assert indexes.sizes.fits(kv, b"s", b"d", LIMIT - 1)


def test_what_is_forgotten_is_read_again(indexes: Indexes, kv: SortedMap) -> None:
    indexes.expiries.set(b"s", CHAIN, 5.0)  # without its record
    assert indexes.loaded
    indexes.forget()
    assert not indexes.loaded
    indexes.load(kv)
    assert indexes.loaded
    assert indexes.expiries.next() is None
    assert indexes.watches.all() == [(b"s", CHAIN)]
    assert BEGIN not in operations(indexes, kv)
