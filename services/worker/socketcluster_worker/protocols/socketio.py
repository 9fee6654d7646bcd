"""Socket.IO on one connection: namespaces, each with a socket of its own, events, acknowledgements and binary.

https://github.com/socketio/socket.io-protocol, revision 5. Its acknowledgements carry no errors: where a handler fails,
the acknowledgement is one object, ``{"error": {"name", "message", "data"}}``.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from socketcluster_runtime.logs import logging
from socketcluster_wire import socketio as wire
from socketcluster_wire.close_codes import CloseCode
from socketcluster_wire.errors import PacketTooLargeError, WireError
from socketcluster_wire.socketcluster import CallId
from socketcluster_worker import deadlines
from socketcluster_worker.api.channels.channel_message import ChannelMessage
from socketcluster_worker.api.sockets.emission import Emission
from socketcluster_worker.api.sockets.namespace import Namespace
from socketcluster_worker.api.sockets.session import Session
from socketcluster_worker.api.sockets.socket import Socket
from socketcluster_worker.connection import Connection, Handshake, Outgoing, SlowConsumer
from socketcluster_worker.deadlines import Timed
from socketcluster_worker.errors import EventError, NotSerializableError, UnsupportedError
from socketcluster_worker.protocols.backpressure import Backpressure
from socketcluster_worker.protocols.context import Context
from socketcluster_worker.protocols.dispatch import Dispatch
from socketcluster_worker.protocols.event_queue import EventQueue
from socketcluster_worker.protocols.handshake import Credentials, Judgement
from socketcluster_worker.protocols.pending_calls import PendingCalls
from socketcluster_worker.protocols.recovery import Recovery

log = logging.get_logger(__name__)

_CONNECT, _DISCONNECT, _EVENT, _ACK, _ = wire.PacketType  # an attribute of an enum costs more than a global
UNSERIALIZABLE = (TypeError, ValueError, OverflowError, RecursionError)
"""What data without a JSON form raises."""
NOBODY_CONNECTED = "no namespace was connected to in time"
CLOSES_EVERYTHING = frozenset((CloseCode.GOING_AWAY, CloseCode.SERVICE_RESTART))
"""Codes that end the whole connection: its client reconnects, as it does not after a disconnect from a namespace."""


class SocketIOPeer:
    """One connection that speaks Socket.IO; the ``Receiver`` of its transport."""

    def __init__(self, connection: Connection, context: Context, handshake: Handshake, session_id: str) -> None:
        self.connection = connection
        self.context = context
        self._handshake = handshake
        self._session = context.server.sessions.get(session_id)  # which may be renewed between two namespaces
        self._decoder = wire.Decoder(max_bytes=context.max_message_bytes)
        self.backpressure = Backpressure(connection)
        self._namespaces: dict[str, NamespaceConnection] = {}
        self._root: Dispatch | None = None  # the straight way there
        self._greeted = False  # has the client asked for a namespace?
        limit = context.timing.handshake_limit(connection.transport_name)
        self.deadline: set[Timed] | None = None
        """Those with whom its time to connect to a namespace ends; kept by them."""
        self._deadlines = deadlines.of_loop()
        self._deadlines.set(self, limit)

    def time_over(self) -> None:
        """Close a connection whose client has connected to no namespace."""
        self.connection.close(CloseCode.HANDSHAKE_TIMEOUT, NOBODY_CONNECTED)

    def on_message(self, message: str | bytes) -> None:
        """Take a message from the client."""
        self.backpressure.size = len(message)
        if self._root is not None and type(message) is str and self._decoder.awaiting is None:
            event = wire.short_event(message)
            if event is not None:
                name, args, ack_id = event
                self._root.event(name, args, ack_id)
                return
        try:
            packet = self._decoder.receive(message)
        except PacketTooLargeError as error:
            self.connection.close(CloseCode.TOO_BIG, str(error))
            return
        except WireError as error:
            self.connection.close(CloseCode.INVALID_DATA, str(error))
            return
        if packet is None:  # its attachments are still to come
            return
        if type(message) is bytes:
            self.backpressure.size = self._decoder.size
        joined = self._namespaces.get(packet.namespace)
        if packet.type is _CONNECT:
            if joined is None:
                self._connect(packet)
        elif joined is not None:
            joined.on_packet(packet)
        elif not self._greeted:  # else it may be late, for a namespace from which the client was sent away
            self.connection.close(CloseCode.NO_HANDSHAKE, "a packet came before CONNECT")

    def on_close(self, code: int, reason: str) -> None:
        """Learn that the connection has ended."""
        self._deadlines.discard(self)
        for joined in tuple(self._namespaces.values()):
            joined.gone(code, reason, in_good_order=self.connection.ended_by_client)
        self._namespaces.clear()
        self._root = None

    def send(self, packet: wire.Packet) -> None:
        """Send a packet and its attachments.

        Raises:
            NotSerializableError: its data has no JSON form.
        """
        text, attachments = _encode(packet)
        # Nothing but an event may be dropped, nor one whose attachments follow it.
        is_event = packet.type is _EVENT and packet.ack_id is None
        self.connection.send_text(text, None if is_event and not attachments else "disconnect")
        for attachment in attachments:
            self.connection.send_binary(attachment, "disconnect")

    def left(self, joined: NamespaceConnection) -> None:
        """Forget a namespace's socket."""
        if self._namespaces.get(joined.namespace.name) is not joined:
            return
        del self._namespaces[joined.namespace.name]
        if joined.namespace.name == wire.ROOT:
            self._root = None
        if not self._namespaces:
            self._deadlines.set(self, self.context.timing.handshake_timeout)

    def _connect(self, packet: wire.Packet) -> None:
        self._greeted = True
        namespace = self.context.server.find(packet.namespace)
        if namespace is None:
            self.send(wire.connect_error(packet.namespace, "Invalid namespace"))
            return
        self._deadlines.discard(self)
        auth = packet.data if isinstance(packet.data, dict) else None
        joined = NamespaceConnection(self, namespace, self._handshake.with_auth(auth), self._session)
        self._namespaces[namespace.name] = joined
        if namespace.name == wire.ROOT:
            self._root = joined.dispatch
        joined.connect(packet.data if isinstance(packet.data, dict) else {})


class NamespaceConnection:
    """A connection's part in one namespace: the ``Peer`` of that socket."""

    protocol = "socket.io"

    def __init__(self, peer: SocketIOPeer, namespace: Namespace, handshake: Handshake, session: Session) -> None:
        self.namespace = namespace
        self._peer = peer
        self._socket = Socket(
            peer.context.ids.new_id(),
            session,
            namespace,
            handshake,
            self,
            ack_timeout=peer.context.timing.ack_timeout,
        )
        if handshake.has_session:
            namespace.sessions.shown(session.id)
        self._socket.counted_by = peer.backpressure
        self._queue = EventQueue(peer.backpressure)
        self.dispatch = Dispatch(namespace, self._socket, self, peer.backpressure, self._queue)
        """Takes the events for this namespace."""
        states = namespace.recovery_states
        self._recovery = None if states is None else Recovery(self._socket, states)  # where clients can recover
        self._ack_prefix = wire.ack_prefix(namespace.name)
        self._calls = PendingCalls(first_id=0)

    # Connecting.

    def connect(self, data: dict[str, Any]) -> None:
        """Let the client in, if the middleware does; ``data`` is what its CONNECT packet carries."""
        recovery = self._recovery
        # Recovery is first, so that the middleware judges the session that the client ends up with.
        before = None if recovery is None else partial(recovery.resolve, data.get("pid"), data.get("offset"))
        Judgement(self.namespace, self._socket, self._let_in, self._refuse).begin(before=before)

    def _refuse(self, error: EventError) -> None:
        if self._socket.connected:
            self._socket.connected = False
            self._peer.send(wire.connect_error(self.namespace.name, error.message, error.data))
            self._peer.left(self)
            self._let_go()
        elif self._socket.end_now is not None:
            self._socket.end_now()

    def _let_in(self, _: Credentials) -> None:
        recovery = self._recovery
        missed = () if recovery is None else recovery.missed()
        if missed is None:  # the middleware took so long; its ticket is used, so the client begins anew
            self._socket.disconnect(CloseCode.GOING_AWAY, "what was missed is not known any more")
            return
        pid = None if recovery is None else recovery.begin()
        self._peer.send(wire.connect(self.namespace.name, self._socket.id, pid))
        rooms = self._socket.rooms
        for broadcast in missed:
            if broadcast.is_for(rooms):
                self._send_again(broadcast.emission())
        self.namespace.connected(self._socket)
        if recovery is not None:
            recovery.took_place()
            recovery.save()
        self.dispatch.begin()

    def _send_again(self, emission: Emission) -> None:
        try:
            self.emit_shared(emission)
        except NotSerializableError as error:  # as it was left out when it was broadcast
            self.namespace.tasks.unreachable(self.protocol, emission.event, error)

    # What the client sends.

    def on_packet(self, packet: wire.Packet) -> None:
        """Take a packet for this namespace."""
        if packet.type is _EVENT:
            if packet.data is None:  # without a name there is nobody whom it could be for
                return
            name, *args = packet.data
            self.dispatch.event(name if type(name) is str else str(name), tuple(args), packet.ack_id)
        elif packet.type is _ACK:
            self._answered(packet)
        elif packet.type is _DISCONNECT:
            if self._recovery is not None:
                self._recovery.forget()
            self.gone(CloseCode.NORMAL, "the client left the namespace", in_good_order=True)
            self._peer.left(self)
        else:
            self._peer.connection.close(CloseCode.INVALID_DATA, "a packet that only a server sends")

    def gone(self, code: int, reason: str, *, in_good_order: bool = False) -> None:
        """Learn that the client is gone; if that was ``in_good_order``, what it sent before is still taken."""
        self._calls.end(code)
        tell = partial(self._tell_gone, code, reason)
        if in_good_order:
            self.dispatch.end(tell)
        else:
            tell()

    def _tell_gone(self, code: int, reason: str) -> None:
        self._socket.connected = False
        self._queue.close()
        if self._recovery is not None:
            self._recovery.save()  # with the data as it is at the end
        self.namespace.disconnected(self._socket, code, reason)
        self._let_go()

    def _let_go(self) -> None:
        self._socket.let_go()
        self.dispatch.close()

    def _answered(self, packet: wire.Packet) -> None:
        answer = self._calls.take(packet.ack_id)
        if answer is not None:
            args = packet.data
            answer.set_result(None if not args else args[0] if len(args) == 1 else args)

    # What the socket asks.

    @property
    def writable(self) -> bool:
        """Is nothing waiting to be sent to the client?"""
        return self._peer.connection.writable

    def emit(self, event: str, args: tuple[Any, ...]) -> None:
        """Send an event."""
        self._peer.send(wire.event(self.namespace.name, [event, *args]))

    def emit_shared(self, emission: Emission) -> None:
        """Send an event that goes to other sockets too."""
        key = self.protocol, self.namespace.name
        text, attachments = emission.form(key, self._encode_shared)
        if emission.overtakes and self._socket.turn:
            self._socket.in_turn(partial(self._send_shared, text, attachments))
        elif attachments or not self._socket.sent_straight(emission, self.protocol, self._peer.connection.share(text)):
            self._send_shared(text, attachments)

    def _send_shared(self, text: Outgoing, attachments: list[bytes]) -> None:
        connection = self._peer.connection
        connection.send_outgoing(text, "disconnect" if attachments else None)
        for attachment in attachments:
            connection.send_binary(attachment, "disconnect")

    def _encode_shared(self, emission: Emission) -> tuple[Outgoing, list[bytes]]:
        """The offset travels as the last argument."""
        if emission.json is not None:
            return Outgoing(
                wire.encode_json_event(self.namespace.name, emission.event, emission.json, emission.offset)
            ), []
        offset = () if emission.offset is None else (emission.offset,)
        text, attachments = _encode(wire.event(self.namespace.name, [emission.event, *emission.args, *offset]))
        return Outgoing(text), attachments

    async def call(self, event: str, args: tuple[Any, ...], timeout: float) -> Any:
        """Send an event, and return the client's acknowledgement."""

        def send(call_id: int) -> None:
            self._send_in_turn(*_encode(wire.event(self.namespace.name, [event, *args], call_id)))

        return await self._calls.call(event, send, timeout)

    def _send_in_turn(self, text: bytes, attachments: list[bytes]) -> None:
        """Send what is for this client alone, after the broadcasts to it that were made before."""

        def send() -> None:
            self._peer.connection.send_text(text, "disconnect")
            for attachment in attachments:
                self._peer.connection.send_binary(attachment, "disconnect")

        self._socket.in_turn(send)

    def deliver(self, message: ChannelMessage, policy: SlowConsumer | None) -> None:
        """Do nothing: a Socket.IO client has rooms, not channels."""

    def kick_out(self, channel: str, message: str) -> None:
        """Do nothing: a Socket.IO client has rooms, not channels."""

    async def set_token(self, token: str, timeout: float) -> None:
        """Refuse: a Socket.IO client keeps no token."""
        raise UnsupportedError("a Socket.IO client keeps no auth token")

    def remove_token(self) -> None:
        """Do nothing: a Socket.IO client keeps no token."""

    def close(self, code: int, reason: str) -> None:
        """Disconnect the client from the namespace, or altogether where it is to come back."""
        if code in CLOSES_EVERYTHING:
            self._peer.connection.close(code, reason)
        elif code == CloseCode.REPLACED:
            self._leave(code, reason)
        else:
            self._socket.in_turn(partial(self._leave, code, reason))

    def _leave(self, code: int, reason: str) -> None:
        if not self._socket.connected:
            if self._socket.end_now is not None:
                self._socket.end_now()
            return
        replaced = code == CloseCode.REPLACED  # what is kept of the client is the other connection's now
        if self._recovery is not None:
            (self._recovery.leave if replaced else self._recovery.forget)()
        if not replaced:
            self._peer.send(wire.disconnect(self.namespace.name))
        self.gone(code, reason)
        self._peer.left(self)
        if replaced:
            self._peer.connection.close(code, reason)

    # Answers.

    def respond(self, call_id: CallId, result: Any) -> None:
        """Acknowledge an event; a tuple is several arguments.

        Raises:
            NotSerializableError: the result has no JSON form.
        """
        if self._socket.connected:
            args = [] if result is None else list(result) if type(result) is tuple else [result]
            try:
                text = wire.encode_ack(self._ack_prefix, int(call_id), args)
            except UNSERIALIZABLE as error:
                raise NotSerializableError(str(error)) from None
            if self._socket.turn:
                packet = wire.ack(self.namespace.name, int(call_id), args)
                self._send_in_turn(*(_encode(packet) if text is None else (text, [])))
            elif text is None:
                self._peer.send(wire.ack(self.namespace.name, int(call_id), args))
            else:
                self._peer.connection.send_text(text, "disconnect")

    def fail(self, call_id: CallId, name: str, message: str, data: object = None) -> None:
        """Acknowledge an event whose handler failed."""
        error = {"name": name, "message": message}
        self.respond(call_id, {"error": error if data is None else error | {"data": data}})

    def unhandled(self, call_id: CallId, name: str) -> None:
        """Leave the event unacknowledged, as if there were no such server: its client's time-out decides."""


def _encode(packet: wire.Packet) -> tuple[bytes, list[bytes]]:
    try:
        return wire.encode(packet)
    except UNSERIALIZABLE as error:
        raise NotSerializableError(str(error)) from None
