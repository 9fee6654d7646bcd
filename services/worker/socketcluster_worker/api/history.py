"""What was broadcast of late, so that a client that comes back can be sent what it missed."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from socketcluster_worker.api.broadcast import Broadcast, Emission
    from socketcluster_worker.api.socket import Socket

Position: TypeAlias = tuple[int, int]
"""The store's epoch and offset: the order of the broadcasts of a namespace, the same on every worker."""

MAX_ENTRIES = 10_000
"""Broadcasts that are kept, whatever their age."""


def write_position(position: Position) -> str:
    """Return the offset that clients are given."""
    return f"{position[0]}-{position[1]}"


def read_position(text: object) -> Position | None:
    """Return what ``write_position`` wrote, ``None`` if it is anything else."""
    if not isinstance(text, str) or len(text) > 40:
        return None
    epoch, _, offset = text.partition("-")
    return (int(epoch), int(offset)) if epoch.isdecimal() and offset.isdecimal() else None


@dataclass(frozen=True, slots=True)
class Entry:
    """One broadcast."""

    position: Position
    choice: Broadcast
    emission: Emission
    at: float

    def is_for(self, socket: Socket) -> bool:
        """Would the socket have got it?"""
        rooms = socket.rooms
        chosen = self.choice.rooms
        return (chosen is None or not rooms.isdisjoint(chosen)) and rooms.isdisjoint(self.choice.excepted)


class History:
    """The broadcasts of one namespace, as this worker heard them.

    Args:
        seconds: how long they are kept.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._entries: deque[Entry] = deque(maxlen=MAX_ENTRIES)
        self.latest: Position | None = None
        """Where the namespace is now; ``None`` until a first broadcast was heard."""

    def append(self, position: Position, choice: Broadcast, emission: Emission) -> None:
        """Keep a broadcast; a volatile one only moves the position on."""
        if self.latest is not None and position != (self.latest[0], self.latest[1] + 1):
            self._entries.clear()  # something was missed here, so nothing before it is of use
        self.latest = position
        now = time.monotonic()
        self._entries.append(Entry(position, choice, emission, now))
        while self._entries[0].at < now - self._seconds:
            self._entries.popleft()

    def skip(self, position: Position) -> None:
        """Note that broadcasts were not heard: nothing up to a position is known here."""
        self._entries.clear()
        self.latest = position

    def since(self, position: Position) -> list[Entry] | None:
        """Return what came after a position, or ``None`` if that is not known any more."""
        if position == self.latest:
            return []
        if not self._entries or position[0] != self._entries[0].position[0]:
            return None
        if position[1] < self._entries[0].position[1] - 1 or position > self._entries[-1].position:
            return None
        return [entry for entry in self._entries if entry.position > position and not entry.choice.is_volatile]
