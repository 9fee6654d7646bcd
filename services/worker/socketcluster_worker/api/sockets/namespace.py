"""Namespaces: sets of sockets with handlers, middleware and rooms of their own."""

from __future__ import annotations

import asyncio
from asyncio import Task
from collections.abc import Callable, Iterable, ValuesView
from typing import TYPE_CHECKING, Any, ClassVar, overload

import msgspec

from socketcluster_store_client.messages import Position
from socketcluster_wire.close_codes import CloseCode
from socketcluster_worker.api.channels.exchange import Exchange
from socketcluster_worker.api.data.values import json_of_list, unpack
from socketcluster_worker.api.handlers.client_handlers import ClientHandler
from socketcluster_worker.api.handlers.signatures import NamespaceEvents
from socketcluster_worker.api.position import write_position
from socketcluster_worker.api.sockets import bus
from socketcluster_worker.api.sockets.broadcast import Broadcast, names_of
from socketcluster_worker.api.sockets.broadcast_log import BroadcastLog
from socketcluster_worker.api.sockets.bus import BroadcastMessage
from socketcluster_worker.api.sockets.delivery_order import DeliveryOrder
from socketcluster_worker.api.sockets.emission import Emission
from socketcluster_worker.api.sockets.events import CATCH_ALL, Emitter, F, check_emitted
from socketcluster_worker.api.sockets.middleware import M, Middleware
from socketcluster_worker.api.sockets.recovery_states import RecoveryStates
from socketcluster_worker.mesh.mesh import Mesh
from socketcluster_worker.reserved_events import RESERVED_EVENTS
from socketcluster_worker.tasks import Tasks

if TYPE_CHECKING:
    from socketcluster_worker.api.sockets.session import Sessions
    from socketcluster_worker.api.sockets.socket import Socket

FIRST = "/"
"""The namespace that every worker has, and hears."""
BUS = "\0namespace\0"
"""Begins the names of the channels on which workers tell each other of broadcasts."""
_NOT_CLIENTS = frozenset({"connection", CATCH_ALL})
"""Events that a handler of all clients is not added to: it would never be meant for what a client sends so."""
REPLACED = "another connection took this one's place"


class Namespace(Emitter):
    """The sockets of one namespace; ``ws_server`` is the namespace ``/``.

    Its events: ``connection(socket)`` and ``disconnect(socket, code, reason)``.

    Attributes:
        name: begins with a slash.
        middleware: ``@namespace.middleware(stage)`` adds some.
        serial: does each event of a socket wait until the handlers of the one before have ended?
    """

    EVENTS: ClassVar = {"connection": 1, "disconnect": 3}
    HAS_OTHERS = False
    on: NamespaceEvents  # type: ignore[assignment]  # of these events only
    once: NamespaceEvents  # type: ignore[assignment]

    def __init__(
        self,
        name: str,
        worker_id: str,
        sessions: Sessions,
        exchange: Exchange,
        mesh: Mesh,
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
        self._mesh = mesh
        self.tasks = tasks
        self.client_handlers: dict[str, tuple[ClientHandler, ...]] = {}
        """Handlers of events that any client sends; what its socket has by ``on`` comes behind them."""
        self._sockets: dict[str, Socket] = {}
        self._rooms: dict[str, dict[Socket, None]] = {}  # a recovered socket has the id of the one before it
        self._listening = False
        self._recovery_window = recovery_window
        self.broadcast_log = BroadcastLog(recovery_window) if recovery_window else None
        """Of the broadcasts; ``None`` where clients cannot recover."""
        self.recovery_states = RecoveryStates(sessions.client, recovery_window) if recovery_window else None
        """What clients recover with; ``None`` where they cannot."""
        self.delivery_order: DeliveryOrder[Socket] = DeliveryOrder()
        self._late: dict[Socket, int] = {}  # those that recovered, and the last broadcast that was on its way then
        mesh.serve(name, self._received, self._publish_to)

    @property
    def sockets(self) -> ValuesView[Socket]:
        """The sockets that are connected to this worker."""
        return self._sockets.values()

    @overload
    def use(self, stage: str) -> Callable[[M], M]: ...
    @overload
    def use(self, stage: str, function: M) -> M: ...
    def use(self, stage: str, function: M | None = None) -> M | Callable[[M], M]:
        """Add middleware that may return ``False`` to refuse; see ``Middleware.use``."""
        return self.middleware.use(stage) if function is None else self.middleware.use(stage, function)

    def handler(self, event: str) -> Callable[[F], F]:
        """Decorate ``function(socket, ...)``, plain or async, that is called whenever any client sends ``event``.

        It is added once, and not for each client in a handler of ``connection``. What it returns is the answer to a
        call. Arguments are checked where it is annotated: with plain types, lists and dicts of them, dataclasses,
        ``msgspec.Struct`` or pydantic models. What is not of that type, or is missing and has no default, is answered
        with a ``ValidationError``, and the function is not called. Surplus arguments are left out.

        Raises:
            ValueError: the event is not one that clients send.
            TypeError: what is decorated is no function, takes no socket, or has an annotation that cannot be checked.
        """
        if not isinstance(event, str):
            raise TypeError(f'an event has a name, and {event!r} is none: @ws_server.handler("name")')
        if event in _NOT_CLIENTS or event in RESERVED_EVENTS:
            raise ValueError(f"{event!r} is no event that clients send: add a handler to the namespace or to a socket")

        def decorate(function: F) -> F:
            self.client_handlers[event] = (*self.client_handlers.get(event, ()), ClientHandler(function))
            return function

        return decorate

    # Sending to many.

    def emit(self, event: str, *args: Any) -> None:
        """Send an event to every socket of the namespace, on whatever worker; see ``Broadcast.emit``."""
        Broadcast(self).emit(event, *args)

    def to(self, *rooms: str | Iterable[str]) -> Broadcast:
        """Choose the members of rooms, on whatever worker."""
        return Broadcast(self, names_of(rooms))

    def except_(self, *rooms: str | Iterable[str]) -> Broadcast:
        """Choose everybody but the members of rooms."""
        return Broadcast(self, excepted=names_of(rooms))

    @property
    def volatile(self) -> Broadcast:
        """Choose everybody whom nothing is still waiting for."""
        return Broadcast(self, is_volatile=True)

    def broadcast(self, choice: Broadcast, event: str, args: tuple[Any, ...]) -> None:
        """Send an event to those of ``choice``: here at once, and to the workers that have others of them.

        Where clients can recover it goes through the store to all workers, which gives it one place in their order; to
        clients here that can, too.
        """
        check_emitted(event)
        json = json_of_list(args)
        if choice.rooms is not None and not choice.rooms:
            self._written(choice, event, args, json)  # what cannot be sent is told wherever it would go
            return
        if self.broadcast_log is None:
            workers = self._mesh.find(self.name, choice.rooms)
            packed = self._written(choice, event, args, json) if workers or json is None or not event.isascii() else b""
            self._deliver(self._chosen(choice), Emission(event, args, json=json), volatile=choice.is_volatile)
            if workers:
                self._mesh.send(workers, self.name, packed)
            return
        packed = self._written(choice, event, args, json)
        chosen = self._chosen(choice)
        now = [socket for socket in chosen if not socket.is_recoverable]
        self._deliver(now, Emission(event, args, json=json), volatile=choice.is_volatile)
        sent = self.exchange.publish_inside(BUS + self.name, packed)
        self.delivery_order.begin([socket for socket in chosen if socket.is_recoverable], sent)

    def _written(self, choice: Broadcast, event: str, args: tuple[Any, ...], json: bytes | None) -> bytes:
        """Return a broadcast as other workers are told of it.

        Raises:
            NotSerializableError: it cannot be sent.
        """
        rooms, excepted = list(choice.rooms or ()), list(choice.excepted)  # none stands for everybody
        number = self.delivery_order.sent + 1
        packed_args = bus.pack_args(args, json)
        return bus.write(
            BroadcastMessage(self._mesh.origin, rooms, excepted, choice.is_volatile, event, packed_args, number)
        )

    def _publish_to(self, packed: bytes, numbers: dict[str, int]) -> None:
        """Send a broadcast by the store to workers that this one is not linked to."""
        told = msgspec.structs.replace(bus.read(packed), numbers=numbers, namespace=self.name)
        self.exchange.publish_inside(BUS + FIRST, bus.write(told))

    def _received(self, packed: bytes) -> None:
        """Take a broadcast from another worker."""
        told = bus.read(packed)
        if told.event is None:
            return
        choice = Broadcast(self, frozenset(told.rooms) or None, frozenset(told.excepted), told.is_volatile)
        self._deliver(self._chosen(choice), bus.emission_of(told.event, bytes(told.args)), volatile=told.is_volatile)

    def take_place(self, socket: Socket) -> None:
        """End the connection that a socket recovered from, if it is open on another worker still."""
        args = bus.pack_args((socket.recoveries,), None)
        self.exchange.publish_inside(
            BUS + self.name, bus.write(BroadcastMessage(self._mesh.origin, [socket.id], [], True, None, args, 0))
        )

    def _deliver(self, sockets: Iterable[Socket], emission: Emission, *, volatile: bool) -> None:
        frames = emission.frames
        for socket in sockets:
            frame = frames.get(socket.frame_kind) if socket.connected else None
            try:
                if frame is None or (volatile and not socket.line.writable) or not socket.line.send_frame(frame):
                    socket.emit_shared(emission, volatile=volatile)
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
        told = bus.read(packed)
        if told.numbers is not None:
            if told.namespace is not None and self._mesh.takes(told.origin, told.numbers):
                self._mesh.deliver(told.namespace, packed)
            if self.broadcast_log is not None:  # it is one of a worker that does not know of recovery
                self.broadcast_log.skip(position)
                self.delivery_order.reached(position)
            return
        own = told.origin == self._mesh.origin
        if told.event is None:
            (recoveries,) = unpack(told.args)
            self._place_taken(told.rooms[0], recoveries)
        elif own and self.broadcast_log is None:
            return
        choice = Broadcast(self, frozenset(told.rooms) or None, frozenset(told.excepted), told.is_volatile)
        args = bytes(told.args)
        if self.broadcast_log is None:
            if told.event is not None:
                self._deliver(self._chosen(choice), bus.emission_of(told.event, args), volatile=told.is_volatile)
            return
        self.broadcast_log.append(position, choice, told.event, args)
        self.delivery_order.reached(position)
        if told.event is None:
            return
        emission = bus.emission_of(told.event, args, None if told.is_volatile else write_position(position))
        chosen = self._recipients(choice, told.number) if own else self._chosen(choice)
        self._deliver(chosen, emission, volatile=told.is_volatile)
        if own:
            self.delivery_order.end(told.number)

    def _recipients(self, choice: Broadcast, number: int) -> list[Socket]:
        """Return who is to get a broadcast of this worker's own here, and did not get it at once."""
        found = self.delivery_order.recipients(number)
        if found is None:  # the store's answer was given up, and yet the store has carried it out
            return [socket for socket in self._chosen(choice) if socket.is_recoverable]
        late: list[Socket] = []
        if self._late:
            self._late = {socket: last for socket, last in self._late.items() if last >= number and socket.connected}
            late = [socket for socket in self._chosen(choice) if socket in self._late]
        return [*found, *late]

    def _place_taken(self, socket_id: str, recoveries: int) -> None:
        former = self._sockets.get(socket_id)
        if former is not None and former.recoveries < recoveries:
            former.disconnect(CloseCode.REPLACED, REPLACED)

    def _missed(self, position: Position) -> None:
        if self.broadcast_log is not None:
            self.broadcast_log.skip(position)
            self.delivery_order.reached(position, missed=True)

    # Rooms; for the sockets.

    def join(self, socket: Socket, room: str) -> None:
        """Make a socket a member of a room, once it is let in."""
        if socket.is_in:
            members = self._rooms.get(room)
            if members is None:
                members = self._rooms[room] = {}
                self._mesh.joined(self.name, room)
            members[socket] = None

    def leave(self, socket: Socket, room: str) -> None:
        """End a socket's membership of a room."""
        members = self._rooms.get(room)
        if members is not None:
            members.pop(socket, None)
            if not members:
                del self._rooms[room]
                self._mesh.left(self.name, room)

    # Coming and going; for the protocols.

    def listen(self) -> asyncio.Future[bytes] | None:
        """Hear the broadcasts of the other workers; once is enough. The result, if any, tells that it has begun."""
        if self._listening:
            return None
        self._listening = True
        self._mesh.listens(self.name)
        return self.exchange.listen_inside(BUS + self.name, self._heard, self._missed, self._begun)

    def _begun(self, position: Position) -> None:
        if self.broadcast_log is not None:
            self.broadcast_log.begin(position)

    def connected(self, socket: Socket) -> None:
        """Let a socket in, in the place of one that it recovered from; until now nothing reached it."""
        self.listen()
        former = self._sockets.get(socket.id)
        if former is not None:
            former.disconnect(CloseCode.REPLACED, REPLACED)
        self._sockets[socket.id] = socket
        if not socket.id.startswith(self._worker_id):  # it was another one's, where others would look for it
            self._mesh.joined(self.name, socket.id)
        socket.let_in()
        if socket.recovered and self.delivery_order.sent > self.delivery_order.heard:
            self._late[socket] = self.delivery_order.sent
        self.sessions.add(socket)
        self.run_all("connection", (socket,), socket)

    def disconnected(self, socket: Socket, code: int, reason: str) -> None:
        """Note that a socket is gone; of one that was never let in there is nothing here."""
        if not socket.is_in:
            return
        socket.is_in = False
        if self._sockets.get(socket.id) is socket:  # else another one took its place
            del self._sockets[socket.id]
        if not socket.id.startswith(self._worker_id):
            self._mesh.left(self.name, socket.id)
        socket.leave_all()
        self.sessions.discard(socket)
        for handler in socket.handlers("disconnect"):
            self.run_for(socket, handler.call, ((code, reason),), "a handler of a socket's 'disconnect'")
        self.run_all("disconnect", (socket, code, reason), socket)

    def run_all(self, event: str, args: tuple[Any, ...], socket: Socket | None = None) -> None:
        """Call every handler of one of the namespace's own events; for a socket, they are part of what it has begun."""
        for handler in self.handlers(event):
            self.run_for(socket, handler.call, (args,), f"a handler of {event!r}")

    def run_for(self, socket: Socket | None, function: Callable[..., Any], args: tuple[Any, ...], what: str) -> None:
        """Call a plain or async function in the background, as a part of what a socket's client has begun."""
        task = self.tasks.run(function, args, what)
        if task is not None and socket is not None:
            socket.begun(task)

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
