"""What is watched, and what is counted with nobody watching. What a watch costs is counted, not timed."""

from __future__ import annotations

from socketcluster_store.data.watches import BEGIN, KeyChange
from socketcluster_store.links import WorkerLink
from socketcluster_store.partition.watchers import GRACE, Watchers

MANY = 1000


class Moment(float):
    """A time that counts how often one is compared."""

    comparisons = 0

    def __lt__(self, other: float) -> bool:
        Moment.comparisons += 1
        return super().__lt__(other)

    def __gt__(self, other: float) -> bool:
        Moment.comparisons += 1
        return super().__gt__(other)


async def test_the_watch_that_ends_first_is_found_at_once() -> None:
    watchers = Watchers()
    for number in range(MANY):
        watchers.load([(b"", (f"k{number}",))], Moment(number))
    Moment.comparisons = 0
    assert watchers.next() == GRACE
    assert Moment.comparisons == 0
    assert watchers.due(GRACE + 1) == [(b"", ("k0",)), (b"", ("k1",))]
    assert watchers.next() == GRACE + 2
    link = WorkerLink("worker", "incarnation", 1 << 20)
    watchers.add(link, (b"", ("k2",)))
    watchers.tell([begin("k2")], link, GRACE)
    watchers.load([(b"", ("k2",))], 0.0)  # it could not be forgotten, and is watched again
    assert watchers.next() == GRACE + 3


def begin(key: str) -> KeyChange:
    return KeyChange(b"", (key,), 1, 0, (key,), BEGIN, b"")


async def test_what_is_counted_is_forgotten_though_a_watch_of_it_was_refused() -> None:
    watchers = Watchers()
    link = WorkerLink("worker", "incarnation", 1 << 20)
    key = b"", ("k",)
    watchers.load([key], 0.0)
    watchers.add(link, key)
    assert watchers.due(GRACE) == []  # the engine is at it
    watchers.refused(link, key)
    assert watchers.due(2 * GRACE) == [key]


async def test_what_is_watched_is_not_forgotten() -> None:
    watchers = Watchers()
    link = WorkerLink("worker", "incarnation", 1 << 20)
    watchers.load([(b"", ("k",))], 0.0)
    watchers.add(link, (b"", ("k",)))
    watchers.tell([begin("k")], link, 0.0)
    assert watchers.next() is None
    watchers.load([(b"", ("other",))], 1.0)
    watchers.remove(link, 2.0)
    assert watchers.due(GRACE + 1) == [(b"", ("other",))]
    assert watchers.due(GRACE + 2) == [(b"", ("k",))]


async def test_when_watches_are_forgotten() -> None:
    links = [WorkerLink(name, "incarnation", 1 << 20) for name in ("one", "two")]
    key, other = (b"", ("k",)), (b"", ("other",))
    watchers = Watchers()
    assert not watchers
    watchers.load([key, other], now=100.0)
    watchers.add(links[0], key)
    watchers.tell([begin("k")], links[0], 100.0)
    assert (watchers.next(), watchers.due(100.0 + GRACE - 1)) == (100.0 + GRACE, [])
    assert watchers.due(100.0 + GRACE) == [other]
    watchers.add(links[1], key)
    assert watchers.others(links[0], key)
    watchers.remove(links[0], now=200.0)
    assert not watchers.others(links[1], key)
    assert watchers.next() is None
    watchers.remove(links[1], now=300.0)
    assert (watchers.next(), watchers.due(301.0)) == (300.0 + GRACE, [])
    assert watchers.due(300.0 + GRACE) == [key]
    watchers.add(links[0], key)
    watchers.refused(links[0], key)
    assert not watchers
