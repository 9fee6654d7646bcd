"""``to(room).emit(...)``: an event for many sockets, of all workers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol


class Broadcaster(Protocol):
    """What a broadcast needs of its namespace."""

    def broadcast(self, choice: Broadcast, event: str, args: tuple[Any, ...]) -> None:
        """Send an event to those of ``choice``; see ``Broadcast.emit``."""


@dataclass(slots=True, eq=False)  # frozen, it took four times as long to make one
class Broadcast:
    """Chooses who gets an event: everybody, or the members of rooms, less the members of others.

    ``to`` without a room, or with an empty list of them, chooses nobody.

    Made by ``ws_server.to(room)``, ``socket.to(room)``, ``socket.broadcast`` and the like; its methods return new ones.
    A socket's own id is a room of which it alone is the member.
    """

    namespace: Broadcaster
    rooms: frozenset[str] | None = None
    """``None``: everybody."""
    excepted: frozenset[str] = frozenset()
    is_volatile: bool = False

    def to(self, *rooms: str | Iterable[str]) -> Broadcast:
        """Add rooms; a socket that is in several of them gets the event once."""
        names = names_of(rooms) if self.rooms is None else self.rooms | names_of(rooms)
        return Broadcast(self.namespace, names, self.excepted, self.is_volatile)

    def except_(self, *rooms: str | Iterable[str]) -> Broadcast:
        """Leave out the members of rooms."""
        return Broadcast(self.namespace, self.rooms, self.excepted | names_of(rooms), self.is_volatile)

    @property
    def volatile(self) -> Broadcast:
        """Leave out clients that something is still waiting for."""
        return Broadcast(self.namespace, self.rooms, self.excepted, is_volatile=True)

    def emit(self, event: str, *args: Any) -> None:
        """Send an event to all who were chosen, on whatever worker; who cannot be sent it, keeps it from nobody else.

        Raises:
            NotSerializableError: an argument has no JSON form.
            ReservedEventError: the event's name is one of a protocol's own.
        """
        self.namespace.broadcast(self, event, args)


def names_of(rooms: tuple[str | Iterable[str], ...]) -> frozenset[str]:
    """Return the names of rooms, each of which is one or several."""
    if len(rooms) == 1 and isinstance(rooms[0], str):
        return frozenset(rooms)  # type: ignore[arg-type]  # of which it is the only one
    names: set[str] = set()
    for room in rooms:
        names.update([room] if isinstance(room, str) else room)
    return frozenset(names)
