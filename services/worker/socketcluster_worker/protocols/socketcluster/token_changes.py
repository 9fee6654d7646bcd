"""What changes a client's auth token waits until the client has taken in the handshake's answer.

A client may take in what follows that answer before the answer itself, which says if it is authenticated:
socketcluster-client does on Node, if both arrive at once. So it is pinged, and its answer awaited, unless anything was
heard of it before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

SETTLE_TIME = 1.0
"""Seconds after the handshake's answer in which a client may not have taken it in."""


class TokenChanges:
    """That of one client, from its handshake's answer on.

    Args:
        ping: sends something that the client answers.
    """

    __slots__ = ("_loop", "_ping", "_settled", "_until")

    def __init__(self, ping: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._ping = ping
        self._until = self._loop.time() + SETTLE_TIME
        self._settled: asyncio.Future[None] | None = None

    def settled(self, *, heard: bool) -> asyncio.Future[None] | None:
        """Return what is done once the client has taken the answer in; ``None`` if it has, as when it was ``heard``."""
        if self._settled is None and not heard and self._loop.time() < self._until:
            self._settled = self._loop.create_future()
            self._ping()
            self._loop.call_later(SETTLE_TIME, self.end)
        return self._settled

    def end(self) -> None:
        """Note that the client has taken it in, or is gone."""
        settled, self._settled = self._settled, None
        self._until = 0.0
        if settled is not None and not settled.done():
            settled.set_result(None)
