"""What was broadcast of late, so that a client that comes back can be sent what it missed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from dataclasses import dataclass

from socketcluster_store_client.messages import Position
from socketcluster_worker.api.position import write_position
from socketcluster_worker.api.sockets.broadcast import Broadcast
from socketcluster_worker.api.sockets.bus import emission_of
from socketcluster_worker.api.sockets.emission import Emission

MAX_ENTRIES = 10_000
"""Broadcasts of a namespace that are kept, whatever their age."""
MAX_BYTES = 16 * 1024 * 1024
"""Bytes that a namespace's broadcasts may take, whatever their age."""
ENTRY_BYTES = 500
"""Bytes that one takes beside its event, its arguments and the rooms it is for, more or less."""
ROOM_BYTES = 150
"""Bytes that a room takes beside its name, more or less."""
HEAR_TIMEOUT = 1.0
"""Seconds for which a position that another worker has heard already is waited for."""


@dataclass(frozen=True, slots=True)
class LoggedBroadcast:
    """One broadcast."""

    position: Position
    """In the order of the namespace's broadcasts, which is the same on every worker."""
    choice: Broadcast
    event: str
    args: bytes
    """As ``bus.BroadcastMessage`` has them."""
    at: float

    def is_for(self, rooms: frozenset[str]) -> bool:
        """Would a socket have got it that is in these rooms?"""
        chosen = self.choice.rooms
        return (chosen is None or not rooms.isdisjoint(chosen)) and rooms.isdisjoint(self.choice.excepted)

    def emission(self) -> Emission:
        """Return what is sent to a client that missed it."""
        return emission_of(self.event, self.args, write_position(self.position))

    @property
    def size(self) -> int:
        """How many bytes it takes, more or less."""
        named = *(self.choice.rooms or ()), *self.choice.excepted
        return ENTRY_BYTES + len(self.event) + len(self.args) + sum(ROOM_BYTES + len(room) for room in named)


class BroadcastLog:
    """The broadcasts of one namespace, as this worker heard them.

    Args:
        seconds: how long they are kept.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._entries: deque[LoggedBroadcast] = deque()
        self.size = 0
        """Bytes that are kept."""
        self.latest: Position | None = None
        """Where the namespace is now; ``None`` until this worker hears it."""
        self._news: asyncio.Event | None = None  # is set at the next position, if somebody waits for one

    def begin(self, position: Position) -> None:
        """Note where the namespace is when this worker begins to hear it."""
        if self.latest is None:
            self.latest = position

    def append(self, position: Position, choice: Broadcast, event: str | None, args: bytes) -> None:
        """Keep a broadcast; of a volatile one, and of what is none, only that it was there."""
        if self.latest is not None and position != (self.latest.epoch, self.latest.offset + 1):
            self._clear()  # something was missed here, so nothing before it is of use
        self._reached(position)
        now = time.monotonic()
        entry = LoggedBroadcast(position, choice, event or "", b"" if choice.is_volatile else args, now)
        self._entries.append(entry)
        self.size += entry.size
        while (
            self._entries[0].at < now - self._seconds or len(self._entries) > MAX_ENTRIES or self.size > MAX_BYTES
        ) and len(self._entries) > 1:
            self.size -= self._entries.popleft().size

    def skip(self, position: Position) -> None:
        """Note that broadcasts were not heard: nothing up to a position is known here."""
        self._clear()
        self._reached(position)

    async def hear(self, position: Position) -> None:
        """Wait a moment for a position that is to come: the worker that a client comes from may be ahead."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEAR_TIMEOUT):
                while self.latest is not None and self.latest.epoch == position.epoch and self.latest < position:
                    self._news = self._news or asyncio.Event()
                    await self._news.wait()

    def since(self, position: Position) -> list[LoggedBroadcast] | None:
        """Return what came after a position, or ``None`` if that is not known any more."""
        if position == self.latest:
            return []
        if not self._entries or position.epoch != self._entries[0].position.epoch:
            return None
        if position.offset < self._entries[0].position.offset - 1 or position > self._entries[-1].position:
            return None
        return [entry for entry in self._entries if entry.position > position and not entry.choice.is_volatile]

    def _reached(self, position: Position) -> None:
        self.latest = position
        if self._news is not None:
            self._news.set()
            self._news = None

    def _clear(self) -> None:
        self._entries.clear()
        self.size = 0
