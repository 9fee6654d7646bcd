"""What a worker does that does not reach the stores: it takes no new clients, and in the end gives up those it has."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable

from socketcluster_runtime.logs import logging
from socketcluster_store_client.partitioning import PARTITION_COUNT
from socketcluster_store_client.reach import StoreReach
from socketcluster_worker.health.readiness import Readiness

log = logging.get_logger(__name__)

LOOK_EVERY = 0.25
"""Seconds between two looks at whether another worker is well, and between two portions of clients."""
PORTIONS = 40
"""In so many portions the clients are handed on: within ten seconds."""
LEAST = 5
"""Clients of a portion, if there are as many."""
WELL_FOR = 10.0
"""Seconds for which another worker is to have been well: when stores come back, one worker is linked before another."""
AGAIN = 5.0
"""Seconds before those are told that have come meanwhile, or have not gone."""
WHAT = "stores"

End = Callable[[], None]
"""Tells one client to reconnect, elsewhere."""


class CutOff:
    """Follows whether a worker reaches the stores.

    One that reaches no partition's owner takes no new clients. One that reaches some of them takes none as long as
    another worker reaches all: to have some of the data is better than nothing. The clients that it has are told to
    reconnect, some at a time, once that has lasted for ``timeout`` seconds and another worker has been well for a
    while, and for as long as it is.

    Args:
        reach: tells what is reached.
        readiness: told whether new clients may come.
        others_well: is another worker known that may be given clients and reaches the stores?
        clients: returns what ends each client's connection, of all that are there.
        timeout: seconds after which clients are handed on; ``None``: never.
    """

    def __init__(
        self,
        reach: StoreReach,
        readiness: Readiness,
        *,
        others_well: Callable[[], bool],
        clients: Callable[[], Iterable[End]],
        timeout: float | None,
    ) -> None:
        self._reach = reach
        self._readiness = readiness
        self._others_well = others_well
        self._clients = clients
        self._timeout = timeout
        self._next_look: asyncio.Handle | None = None
        self._since: float | None = None
        self._well_since: float | None = None
        self._leaving: list[End] = []  # the last ones go first
        self._portion = 0
        self._told = 0
        self._again_at = 0.0
        reach.on_change = self._look_soon
        self._look_soon()

    def close(self) -> None:
        """Follow nothing any more."""
        self._reach.on_change = lambda: None
        if self._next_look is not None:
            self._next_look.cancel()

    def _look_soon(self) -> None:
        """Look, but not while the store client is about whatever made it tell."""
        if self._next_look is not None:
            self._next_look.cancel()
        self._next_look = asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        unreached = self._reach.unreached
        if not unreached:
            self._next_look = self._since = self._well_since = None
            self._readiness.admit(WHAT)
            self._stop()
            return
        self._next_look = loop.call_later(LOOK_EVERY, self._look)
        if self._since is None:
            self._since = loop.time()
        well = self._others_well()
        if unreached < PARTITION_COUNT and not well:
            self._readiness.admit(WHAT)
        elif not self._readiness.refuses(WHAT):
            some = "" if unreached == PARTITION_COUNT else f" of {unreached} of {PARTITION_COUNT} partitions"
            self._readiness.refuse(WHAT, f"this worker does not reach the stores{some}")
        if not well:
            self._well_since = None
            self._stop()
            return
        if self._well_since is None:
            self._well_since = loop.time()
        if self._timeout is not None and loop.time() >= max(
            self._since + self._timeout, self._well_since + WELL_FOR, self._again_at
        ):
            self._hand_on()

    def _hand_on(self) -> None:
        """Tell the next portion of clients to reconnect."""
        if not self._leaving:
            self._leaving = list(self._clients())[::-1]
            self._portion = max(LEAST, math.ceil(len(self._leaving) / PORTIONS))
            if self._leaving and not self._told:
                log.warning("clients are told to reconnect: another worker reaches the stores")
        for _ in range(min(self._portion, len(self._leaving))):
            self._leaving.pop()()
            self._told += 1
        if not self._leaving:
            self._again_at = asyncio.get_running_loop().time() + AGAIN
            self._stop()

    def _stop(self) -> None:
        self._leaving.clear()
        if self._told:
            log.info("clients were told to reconnect", clients=self._told)
            self._told = 0
