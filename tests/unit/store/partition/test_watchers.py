"""What the end of one watch costs does not grow with how many there are: counted, not timed."""

from __future__ import annotations

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
    watchers.load([(b"", ("k2",))], 0.0)  # it could not be forgotten, and is watched again
    assert watchers.next() == GRACE + 3
