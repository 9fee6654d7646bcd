"""Namespaces: sets of sockets with handlers, middleware and rooms of their own."""

from __future__ import annotations

from asyncio import Task
from collections.abc import Callable, Iterable, ValuesView
from typing import TYPE_CHECKING, Any, overload

from socketcluster_wire.close_codes import CloseCode
from socketcluster_worker.api.broadcast import Broadcast, Emission
from socketcluster_worker.api.events import Emitter, check_emitted
from socketcluster_worker.api.history import History, Position, write_position
from socketcluster_worker.api.middleware import M, Middleware
from socketcluster_worker.api.values import pack, unpack
from socketcluster_worker.tasks import Tasks

if TYPE_CHECKING:
    from socketcluster_worker.api.exchange import Exchange
    from socketcluster_worker.api.session import Sessions
    from socketcluster_worker.api.socket import Socket

BUS = "\0namespace\0"
"""Begins the names of the channels on which workers tell each other of broadcasts."""


class Namespace(Emitter):
    """The sockets of one namespace; ``ws_server`` is the namespace ``/``.

    Its events: ``connection(socket)`` and ``disconnect(socket, code, reason)``.

    Attributes:
        name: begins with a slash.
        middleware: what was added by ``use``.
        serial: does each event of a socket wait until the handlers of the one before have ended?
    """

    EVENTS = frozenset({"connection", "disconnect"})

    def __init__(
        self,
        name: str,
        worker_id: str,
        sessions: Sessions,
        exchange: Exchange,
        tasks: Tasks,
        *,
        recovery_window: float = 0,
        serial: bool = False,
    ) -> None:
        super().__init__()
        self.name = name
        self.serial = serial
        self.middleware = Middleware(always_asked=("event",) if serial else ())  # whose turn it is, is asked there too
        self.sessions = sessions
        self.exchange = exchange
        self._worker_id = worker_id
        self.tasks = tasks
        self._sockets: dict[str, Socket] = {}
        self._rooms: dict[str, dict[Socket, None]] = {}  # a recovered socket has the id of the one before it
        self._listening = False
        self._recovery_window = recovery_window
        self.history = History(recovery_window) if recovery_window else None
        """Of the broadcasts; ``None`` where clients cannot recover."""

    @property
    def sockets(self) -> ValuesView[Socket]:
        """The sockets that are connected to this worker."""
        return self._sockets.values()

    @overload
    def use(self, stage: str) -> Callable[[M], M]: ...
    @overload
    def use(self, stage: str, function: M) -> M: ...
    def use(self, stage: str, function: M | None = None) -> M | Callable[[M], M]:
        """Add middleware; see :class:`~socketcluster_worker.api.middleware.Middleware`."""
        return self.middleware.use(stage) if function is None else self.middleware.use(stage, function)

    # Sending to many.

    def emit(self, event: str, *args: Any) -> None:
        """Send an event to every socket of the namespace, on whatever worker; see ``Broadcast.emit``."""
        Broadcast(self).emit(event, *args)

    def to(self, *rooms: str | Iterable[str]) -> Broadcast:
        """Choose the members of rooms, on whatever worker."""
        return Broadcast(self).to(*rooms)

    def except_(self, *rooms: str | Iterable[str]) -> Broadcast:
        """Choose everybody but the members of rooms."""
        return Broadcast(self).except_(*rooms)

    @property
    def volatile(self) -> Broadcast:
        """Choose everybody whom nothing is still waiting for."""
        return Broadcast(self).volatile

    def broadcast(self, choice: Broadcast, event: str, args: tuple[Any, ...]) -> None:
        """Send an event to those of ``choice``: here at once, to the other workers through the store.

        Where clients can recover, it goes through the store to this worker too, which gives all workers one order.
        """
        check_emitted(event)
        rooms = list(choice.rooms or ())  # on its way, none stands for everybody
        packed = pack((self._worker_id, rooms, list(choice.excepted), choice.is_volatile, event, args))
        if choice.rooms is not None and not rooms:
            return
        if self.history is None:
            self._deliver(choice, Emission(event, args))
        self.exchange.publish_inside(BUS + self.name, packed)

    def _deliver(self, choice: Broadcast, emission: Emission) -> None:
        for socket in self._chosen(choice):
            try:
                socket.emit_shared(emission, volatile=choice.is_volatile)
            except Exception as error:  # all the others get it
                self.tasks.unreachable(socket.protocol, emission.event, error)

    def _chosen(self, choice: Broadcast) -> list[Socket]:
        if choice.rooms is None:
            found: Iterable[Socket] = self._sockets.values()
        else:
            found = self._members(choice.rooms)
        excepted = self._members(choice.excepted) if choice.excepted else ()
        return [socket for socket in found if socket not in excepted] if excepted else list(found)

    def _members(self, rooms: Iterable[str]) -> dict[Socket, None]:
        found: dict[Socket, None] = {}
        for room in rooms:
            own = self._sockets.get(room)
            if own is not None:
                found[own] = None
            found.update(self._rooms.get(room, {}))
        return found

    def _heard(self, packed: bytes, position: Position) -> None:
        """Take a broadcast from the store."""
        origin, rooms, excepted, is_volatile, event, args = unpack(packed)
        choice = Broadcast(self, frozenset(rooms) or None, frozenset(excepted), is_volatile)
        if self.history is not None:
            emission = Emission(event, tuple(args), None if is_volatile else write_position(position))
            self.history.append(position, choice, emission)
            self._deliver(choice, emission)
        elif origin != self._worker_id:
            self._deliver(choice, Emission(event, tuple(args)))

    def _missed(self, position: Position) -> None:
        if self.history is not None:
            self.history.skip(position)

    # Rooms; for the sockets.

    def join(self, socket: Socket, room: str) -> None:
        """Make a socket a member of a room, once it is let in."""
        if socket.is_in:
            self._rooms.setdefault(room, {})[socket] = None

    def leave(self, socket: Socket, room: str) -> None:
        """End a socket's membership of a room."""
        members = self._rooms.get(room, {})
        members.pop(socket, None)
        if not members:
            self._rooms.pop(room, None)

    # Coming and going; for the protocols.

    def listen(self) -> None:
        """Hear the broadcasts of the other workers; once is enough."""
        if not self._listening:
            self._listening = True
            self.exchange.listen_inside(BUS + self.name, self._heard, self._missed)

    def connected(self, socket: Socket) -> None:
        """Let a socket in, in the place of one that it recovered from; until now nothing reached it."""
        self.listen()
        former = self._sockets.get(socket.id)
        if former is not None:
            former.disconnect(CloseCode.REPLACED, "another connection took this one's place")
        self._sockets[socket.id] = socket
        socket.let_in()
        self.sessions.add(socket)
        self.run_all("connection", (socket,))

    def disconnected(self, socket: Socket, code: int, reason: str) -> None:
        """Note that a socket is gone; of one that was never let in there is nothing here."""
        if not socket.is_in:
            return
        socket.is_in = False
        if self._sockets.get(socket.id) is socket:  # else another one took its place
            del self._sockets[socket.id]
        for room in socket.joined:
            self.leave(socket, room)
        self.exchange.discard_all(socket)
        self.sessions.discard(socket)
        for handler in socket.handlers("disconnect"):
            self.tasks.run(handler.call, ((code, reason),), "a handler of a socket's 'disconnect'")
        self.run_all("disconnect", (socket, code, reason))

    def run_all(self, event: str, args: tuple[Any, ...]) -> None:
        """Call every handler of one of the namespace's own events."""
        for handler in self.handlers(event):
            self.tasks.run(handler.call, (args,), f"a handler of {event!r}")

    def run(self, function: Callable[..., Any], args: tuple[Any, ...], what: str) -> Task[Any] | None:
        """Call a plain or async function in the background; return its task unless it has ended."""
        return self.tasks.run(function, args, what)

    @property
    def running(self) -> int:
        """How many async functions are running on this worker."""
        return len(self.tasks)

    async def run_and_wait(self, function: Callable[..., Any], args: tuple[Any, ...], what: str) -> None:
        """Call a plain or async function and wait for its end."""
        await self.tasks.run_and_wait(function, args, what)

    def handler_failed(self, error: BaseException, where: str) -> None:
        """Report what a handler raised."""
        self.tasks.report(error, where)
