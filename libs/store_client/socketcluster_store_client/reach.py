"""Whether a worker reaches the stores, and what its log says of operations that they do not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from socketcluster_runtime.logs.conditions import Condition
from socketcluster_runtime.logs.logging import get_logger
from socketcluster_store_client.errors import StoreUnavailableError

log = get_logger(__name__)

TOGETHER = 1.0
"""Seconds within which partitions that lost their owners are taken to have lost them by one cause."""


class Owned(Protocol):
    """The route of a partition."""

    number: int

    @property
    def owner(self) -> object:
        """The link to its owner, if there is one."""


class StoreReach:
    """Tells which partitions this worker has not reached for so long that operations on them fail.

    A partition is *unreached* that has had no owner with a link to this worker for ``timeout`` seconds, and of which no
    store says why, or for which an operation has waited as long in vain and there is none. So are those of a store that
    did not answer an operation for as long, nor said anything else meanwhile: the network swallows what is sent, and
    the link does not know yet that it is broken. A store that hangs, or dies, is replaced before that.

    Args:
        timeout: seconds that operations wait.
        routes: of all partitions.
        beside: that of other links of the same worker, which tells of these, too: a partition is unreached that either
            of them does not reach, and the log says so once.
    """

    def __init__(self, timeout: float, routes: Sequence[Owned], beside: StoreReach | None = None) -> None:
        self._routes = routes
        self._teller = beside or self
        self._told_of: list[StoreReach] = []
        self._teller._told_of.append(self)
        self.silent: set[object] = set()
        """The links to stores that said nothing for that long, though they were asked."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when ``unreached`` is another number."""
        self._timeout = timeout
        self._missing: dict[int, float] = {}  # by partition without an owner, since when by the loop's clock
        self._lost: set[int] = set()  # of them, those that are unreached
        self._told = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._cut_off = Condition(
            log,
            "this worker does not reach the stores: operations fail",
            over="this worker reaches the stores again",
            level="error",
            lasts=True,
        )
        self._failing = Condition(
            log, "operations on the stores fail", over="no operation on the stores has failed for a while"
        )

    @property
    def unreached(self) -> int:
        """How many partitions are unreached, by these links or by those that are told of with them."""
        return len(set[int]().union(*(reach.unreached_here for reach in self._told_of)))

    @property
    def unreached_here(self) -> set[int]:
        """Which ones these links do not reach."""
        if not self.silent:
            return self._lost
        return self._lost.union(route.number for route in self._routes if route.owner in self.silent)

    def note_missing(self, numbers: Collection[int]) -> None:
        """Note which partitions have no owner, and no reason why, among all that there are."""
        if self._closed or (not numbers and not self._missing):
            return
        now = asyncio.get_running_loop().time()
        self._missing = {number: self._missing.get(number, now) for number in numbers}
        self._lost.intersection_update(self._missing)
        self._arm()
        self._tell()

    def note_lost(self, number: int) -> None:
        """Note that a partition has no owner any more."""
        if number not in self._missing and not self._closed:
            self._missing[number] = asyncio.get_running_loop().time()
            self._arm()

    def failed(self, number: int, error: StoreUnavailableError) -> None:
        """Note that an operation was not carried out because no store, or not the one of its partition, answered."""
        if self._closed:
            return
        if (since := self._missing.get(number)) is not None:
            self._lose(since)
        teller = self._teller
        if unreached := teller.unreached:
            teller._cut_off.add(partitions=unreached)
        else:
            teller._failing.add(last=str(error))

    def unanswered(self, link: object) -> None:
        """Note that a store did not answer an operation, nor said anything since."""
        if not self._closed:
            self.silent.add(link)
            self._tell()

    def heard(self, link: object) -> None:
        """Note that a store has said something."""
        self.silent.discard(link)
        self._tell()

    def broken(self, link: object) -> None:
        """Note that a link is about to count as broken: what a silent store had stays unreached."""
        if link in self.silent:
            numbers = [route.number for route in self._routes if route.owner is link]
            self.silent.discard(link)
            self._lost.update(numbers)
            self._missing |= dict.fromkeys(numbers, asyncio.get_running_loop().time() - self._timeout)

    def close(self) -> None:
        """Look and say nothing more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._cut_off.close()
        self._failing.close()

    def _arm(self) -> None:
        if self._timer is None and (waiting := self._missing.keys() - self._lost):
            due = min(self._missing[number] for number in waiting) + self._timeout
            self._timer = asyncio.get_running_loop().call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._lose(asyncio.get_running_loop().time() - self._timeout)
        self._arm()

    def _lose(self, until: float) -> None:
        """Count as unreached what has had no owner since ``until`` or earlier, and what was lost by the same cause."""
        self._lost.update(number for number, since in self._missing.items() if since <= until + TOGETHER)
        self._tell()

    def _tell(self) -> None:
        if self._teller is not self:
            self._teller._tell()
            return
        unreached = self.unreached
        if unreached == self._told:
            return
        self._told = unreached
        if not unreached:
            self._cut_off.end()
        elif not self._cut_off.active:
            self._cut_off.add(times=0, partitions=unreached)
        self.on_change()
