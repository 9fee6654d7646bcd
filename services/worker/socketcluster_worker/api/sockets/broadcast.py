"""``to(room).emit(...)``: an event for many sockets, of all workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from socketcluster_worker.errors import NotSerializableError

if TYPE_CHECKING:
    from socketcluster_worker.api.sockets.namespace import Namespace

T = TypeVar("T")


class Emission:
    """An event on its way to many sockets: what each message protocol makes of it is made once."""

    __slots__ = ("_errors", "_forms", "args", "event", "offset", "overtakes")

    def __init__(
        self, event: str, args: tuple[Any, ...], offset: str | None = None, *, overtakes: bool = False
    ) -> None:
        self.event = event
        self.args = args
        self.offset = offset
        """Where clients recover from after they got it; ``None`` where recovery is off."""
        self.overtakes = overtakes
        """Could it overtake broadcasts that were made before? Then it waits for its turn, for each client."""
        self._forms: dict[object, Any] = {}
        self._errors: dict[object, NotSerializableError] = {}

    def form(self, key: object, make: Callable[[str, tuple[Any, ...]], T]) -> T:
        """Return ``make(event, args)``, remembered under ``key``.

        Raises:
            NotSerializableError: there is no such form; that is found out once, too.
        """
        try:
            found: T = self._forms[key]
        except KeyError:
            if key in self._errors:
                raise self._errors[key] from None
            try:
                found = self._forms[key] = make(self.event, self.args)
            except NotSerializableError as error:
                self._errors[key] = error
                raise
        return found


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Chooses who gets an event: everybody, or the members of rooms, less the members of others.

    ``to`` without a room, or with an empty list of them, chooses nobody.

    Made by ``ws_server.to(room)``, ``socket.to(room)``, ``socket.broadcast`` and the like; its methods return new ones.
    A socket's own id is a room of which it alone is the member.
    """

    namespace: Namespace
    rooms: frozenset[str] | None = None
    """``None``: everybody."""
    excepted: frozenset[str] = frozenset()
    is_volatile: bool = False

    def to(self, *rooms: str | Iterable[str]) -> Broadcast:
        """Add rooms; a socket that is in several of them gets the event once."""
        return replace(self, rooms=(self.rooms or frozenset()) | _names(rooms))

    def except_(self, *rooms: str | Iterable[str]) -> Broadcast:
        """Leave out the members of rooms."""
        return replace(self, excepted=self.excepted | _names(rooms))

    @property
    def volatile(self) -> Broadcast:
        """Leave out clients that something is still waiting for."""
        return replace(self, is_volatile=True)

    def emit(self, event: str, *args: Any) -> None:
        """Send an event to all who were chosen, on whatever worker; who cannot be sent it, keeps it from nobody else.

        Raises:
            NotSerializableError: an argument has no JSON form.
            ReservedEventError: the event's name is one of a protocol's own.
        """
        self.namespace.broadcast(self, event, args)


def _names(rooms: Iterable[str | Iterable[str]]) -> frozenset[str]:
    names: set[str] = set()
    for room in rooms:
        names.update([room] if isinstance(room, str) else room)
    return frozenset(names)
