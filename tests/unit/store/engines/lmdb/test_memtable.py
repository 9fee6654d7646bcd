"""Writes over a snapshot of LMDB: what is read is what was written last, whatever layer has it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from socketcluster_store.engines.lmdb.memtable import MAX_KEY_BYTES, Memtable
from socketcluster_store.engines.sorted_map import SortedMap
from socketcluster_store.errors import EngineError

KEYS = [b"%c%d" % (letter, number) for letter in b"ab" for number in range(100)]


class Database:
    """LMDB, as its snapshot shows it."""

    def __init__(self) -> None:
        self._values = SortedMap()
        self.get: Callable[[bytes], bytes | None] = self._values.get

    def scan(self, prefix: bytes, /) -> Iterator[tuple[bytes, bytes]]:
        return self._values.scan(prefix)

    def commit(self, writes: dict[bytes, bytes | None]) -> None:
        for key, value in writes.items():
            if value is None:
                self._values.delete(key)
            else:
                self._values.put(key, value)


def test_a_batch_is_seen_until_it_is_discarded() -> None:
    memtable = Memtable(Database(), {b"a": b"1", b"b": b"2"})
    memtable.put(b"a", b"3")
    memtable.delete(b"b")
    memtable.put(b"c", b"")
    assert [memtable.get(key) for key in (b"a", b"b", b"c", b"d")] == [b"3", None, b"", None]
    assert list(memtable.scan(b"")) == [(b"a", b"3"), (b"c", b"")]
    assert memtable.batch == {b"a": b"3", b"b": None, b"c": b""}
    memtable.discard()
    assert memtable.batch == {}
    assert list(memtable.scan(b"")) == [(b"a", b"1"), (b"b", b"2")]


def test_a_key_that_lmdb_would_not_take_is_refused() -> None:
    memtable = Memtable(Database(), {})
    memtable.put(b"x" * MAX_KEY_BYTES, b"1")
    with pytest.raises(EngineError, match="a key of 512 bytes: at most 511 are possible"):
        memtable.put(b"x" * (MAX_KEY_BYTES + 1), b"1")
    assert list(memtable.batch) == [b"x" * MAX_KEY_BYTES]


def test_what_is_frozen_is_there_until_lmdb_has_it() -> None:
    database = Database()
    memtable = Memtable(database, {b"a": b"1"})
    assert (memtable.clean, memtable.frozen, memtable.frozen_writes()) == (False, False, {})
    memtable.freeze({})
    assert (memtable.clean, memtable.frozen, memtable.frozen_writes()) == (True, True, {b"a": b"1"})
    memtable.delete(b"a")
    memtable.keep()
    assert memtable.get(b"a") is None
    assert list(memtable.scan(b"a")) == []
    assert memtable.frozen_writes() == {b"a": b"1"}
    database.commit(memtable.frozen_writes())
    memtable.thaw()
    assert (memtable.clean, memtable.frozen) == (False, False)
    assert memtable.get(b"a") is None
    assert list(memtable.scan(b"a")) == []


def test_what_a_batch_wrote_before_a_checkpoint_stays_its_own() -> None:
    database = Database()
    memtable = Memtable(database, {b"a": b"1"})
    memtable.put(b"a", b"2")
    memtable.freeze({})
    assert memtable.get(b"a") == b"2"
    assert memtable.frozen_writes() == {b"a": b"1"}
    memtable.discard()
    assert memtable.get(b"a") == b"1"


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_done_it_reads_like_one_map(seed: int) -> None:
    chance = random.Random(seed)  # a test that can be repeated
    database, kept = Database(), SortedMap()
    draft: dict[bytes, bytes | None] = {}
    memtable = Memtable(database, {})

    def expected() -> SortedMap:
        model = SortedMap(dict(kept.scan(b"")))
        for key, value in draft.items():
            if value is None:
                model.delete(key)
            else:
                model.put(key, value)
        return model

    def keep() -> None:
        memtable.keep()
        for key, value in draft.items():
            if value is None:
                kept.delete(key)
            else:
                kept.put(key, value)
        draft.clear()

    for step in range(300):
        match chance.choices(["put", "delete", "keep", "discard", "freeze", "thaw"], [40, 20, 10, 3, 2, 2])[0]:
            case "put":
                for key in chance.sample(KEYS, chance.choice([1, 2, 80])):
                    draft[key] = b"%d" % step
                    memtable.put(key, b"%d" % step)
            case "delete":
                key = chance.choice(KEYS)
                draft[key] = None
                memtable.delete(key)
            case "keep":
                keep()
            case "discard":
                memtable.discard()
                draft.clear()
            case "freeze" if not memtable.frozen:
                memtable.freeze({})
            case "thaw" if memtable.frozen:
                database.commit(memtable.frozen_writes())
                memtable.thaw()
        model = expected()
        prefix = chance.choice([b"", b"a", b"b", b"b1", b"c"])
        assert list(memtable.scan(prefix)) == list(model.scan(prefix))
        key = chance.choice(KEYS)
        assert memtable.get(key) == model.get(key)
