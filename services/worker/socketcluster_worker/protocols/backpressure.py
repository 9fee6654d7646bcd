"""Back-pressure on a client: beyond a bound on what it sent and is not done yet, nothing more is read from it."""

from __future__ import annotations

import asyncio
from typing import Any

from socketcluster_worker.connection import Connection

MAX_WAITING = 1000
"""Events of one client that may wait for their turn; then nothing more is read from it until half of them had it."""
MAX_BYTES = 1_048_576
"""Bytes of messages that may wait or be under way, one larger message aside; then as above."""
OVERHEAD = 256
"""Bytes that each counts beside its own: what holds it takes more than it, however small it is."""


class Backpressure:
    """What of one client's messages waits or is under way.

    A client is never disconnected for being fast: it is not read from, so that its sending slows down by itself.

    Args:
        connection: which is read from.

    Attributes:
        size: bytes of the message that is being taken; set by whoever takes it.
    """

    __slots__ = ("_bytes", "_connection", "_paused", "_waiting", "size")

    def __init__(self, connection: Connection) -> None:
        self.size = 0
        self._connection = connection
        self._bytes = 0
        self._waiting = 0
        self._paused = False

    def wait(self) -> int:
        """Note that what is being taken has to wait for its turn; return what ``stop_waiting`` wants to know."""
        self._waiting += 1
        return self.begin()

    def stop_waiting(self, size: int) -> None:
        """Note that something has its turn; it may ``begin`` then."""
        self._waiting -= 1
        self.size = size
        self.end(size)

    def begin(self) -> int:
        """Note that what is being taken is under way; return what ``end`` wants to know."""
        self._bytes += self.size + OVERHEAD
        if not self._paused and (self._bytes > MAX_BYTES or self._waiting >= MAX_WAITING):
            self._paused = True
            self._connection.pause_reading()
        return self.size

    def count(self, doing: asyncio.Future[Any]) -> None:
        """Note that what is being taken has begun something, until that is done."""
        size = self.begin()
        doing.add_done_callback(lambda _: self.end(size))

    def end(self, size: int) -> None:
        """Note that something is done."""
        self._bytes -= size + OVERHEAD
        if self._paused and self._bytes <= MAX_BYTES // 2 and self._waiting <= MAX_WAITING // 2:
            self._paused = False
            self._connection.resume_reading()
