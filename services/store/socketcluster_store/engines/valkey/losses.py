"""What Valkey lost of what it had acknowledged, as exactly as the store that had the partition open knows it.

That store knows the number of its last batch, how much was written with those that the server has no more, and what it
read when it opened the partition. All partitions that are found within a moment are told of in one line.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from socketcluster_runtime.logs.logging import get_logger
from socketcluster_store.commands import READS, Command

log = get_logger(__name__)

GATHERED = 1.0
"""Seconds for which losses are gathered, so that one line tells of all."""
RECENT = 30.0
"""Seconds for which a loss explains why other stores take partitions over that this one has."""
REMEMBERED = 10_000
"""Calls of a partition of which it is known how much was written with each."""
WHAT_TO_DO = (
    "see why: FLUSHALL, a start without its files (appendonly), eviction (maxmemory-policy is to be noeviction), a"
    " failover to a replica that had less (valkey_wait_replicas), files that were put back"
)


class Loss(NamedTuple):
    """What a partition lost."""

    partition: int
    writes: int
    """Acknowledged operations that changed something, since this store opened the partition."""
    keys: int
    """That it had, if all of it is gone; else 0."""
    emptied: bool
    """Is all of it gone?"""
    exact: bool = True
    """Are there no more than that since then?"""


class Had(NamedTuple):
    """What a store had of a partition that it gave up because Valkey did not answer: Valkey may come back with less."""

    epoch: int
    batch: int
    written: WritesPerCall
    keys: int

    def loss(self, partition: int, epoch: bytes, batch: bytes) -> Loss | None:
        """Return what is missing, by the last opening that the server knows and that one's last batch."""
        if epoch and (int(epoch) > self.epoch or (int(epoch) == self.epoch and int(batch) >= self.batch)):
            return None  # or nobody knows: another store has opened it meanwhile
        missing = self.batch - int(batch) if epoch and int(epoch) == self.epoch else None
        writes, exact = self.written.lost(missing)
        return Loss(partition, writes, 0 if epoch else self.keys, not epoch, exact)


class WritesPerCall:
    """How much was written with each of a partition's last calls."""

    def __init__(self) -> None:
        self._calls: deque[int] = deque(maxlen=REMEMBERED)
        self._total = 0

    def add(self, writes: int) -> None:
        """Note what was written with a call, which is acknowledged."""
        self._calls.append(writes)
        self._total += writes

    def lost(self, calls: int | None) -> tuple[int, bool]:
        """Return how much was written with the last calls (``None``: with all), and whether that is exact."""
        if calls is None:
            return self._total, True
        newest = list(self._calls)[len(self._calls) - min(calls, len(self._calls)) :]
        return sum(newest), calls <= len(self._calls)


def writes_of(batch: Sequence[Command]) -> int:
    """Return how many operations of a batch were to change something."""
    return sum([command.verb > 0 and command.verb not in READS for command in batch])


class Losses:
    """Tells of them, and counts them."""

    def __init__(self) -> None:
        self.writes = 0
        """Acknowledged writes that were found to be lost."""
        self.partitions = 0
        """How often a partition was found to have lost something."""
        self._found: list[Loss] = []
        self._timer: asyncio.TimerHandle | None = None
        self._last = -math.inf

    @property
    def recent(self) -> bool:
        """Was one found within the last ``RECENT`` seconds?"""
        return asyncio.get_running_loop().time() - self._last < RECENT

    def add(self, loss: Loss) -> None:
        """Note that a partition lost something."""
        self.writes += loss.writes
        self.partitions += 1
        self._found.append(loss)
        self._last = asyncio.get_running_loop().time()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHERED, self.tell)

    def tell(self) -> None:
        """Tell of what was found."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        found, self._found = self._found, []
        if found:
            log.error(
                "Valkey lost what it had acknowledged; its partitions go on with what it has, in new epochs",
                partitions=sorted({loss.partition for loss in found}),
                emptied=sorted({loss.partition for loss in found if loss.emptied}),
                lost_writes=sum(loss.writes for loss in found),
                exact=all(loss.exact for loss in found),
                lost_keys=sum(loss.keys for loss in found),
                since="this store opened them",
                what_to_do=WHAT_TO_DO,
            )
