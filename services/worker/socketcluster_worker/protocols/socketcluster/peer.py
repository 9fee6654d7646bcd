"""The SocketCluster protocol on one connection: the handshake, events, calls, channels, and over a raw WebSocket pings.

https://github.com/SocketCluster/socketcluster/blob/master/socketcluster-protocol.md, version 2; what is different in
version 1 is in ``v1``.
"""

from __future__ import annotations

import asyncio
from functools import partial
from time import monotonic
from typing import Any

import msgspec

from socketcluster_wire import socketcluster as wire
from socketcluster_wire.close_codes import CloseCode
from socketcluster_wire.errors import MalformedMessageError
from socketcluster_worker import deadlines, fairness
from socketcluster_worker.api.channels.channel_message import ChannelMessage
from socketcluster_worker.api.sockets.emission import Emission, Forms
from socketcluster_worker.api.sockets.peer import Entering
from socketcluster_worker.api.sockets.socket import Socket
from socketcluster_worker.connection import Connection, Handshake, Outgoing, SlowConsumer
from socketcluster_worker.deadlines import Timed
from socketcluster_worker.errors import AuthTokenError, EventError, NotSerializableError, RemoteError
from socketcluster_worker.protocols.backpressure import MAX_WAITING, Backpressure
from socketcluster_worker.protocols.context import Context
from socketcluster_worker.protocols.dispatch import Dispatch
from socketcluster_worker.protocols.event_queue import EventQueue
from socketcluster_worker.protocols.handshake import Credentials, Judgement
from socketcluster_worker.protocols.pending_calls import PendingCalls
from socketcluster_worker.protocols.socketcluster.batching import Batching
from socketcluster_worker.protocols.socketcluster.encoding import (
    UNSERIALIZABLE,
    data_of,
    encode,
    encode_auth_error,
    encode_outgoing,
    encode_publication,
    encode_with_data,
)
from socketcluster_worker.protocols.socketcluster.requests import Requests
from socketcluster_worker.protocols.socketcluster.token_changes import TokenChanges

_HANDSHAKE, _PING, _PONG = "handshake", "ping", "pong"  # what a deadline is for


class SocketClusterPeer:
    """One connection that speaks SocketCluster's protocol; a ``Receiver`` to its transport, a ``Peer`` to its socket.

    Args:
        connection: what carries the messages.
        context: what the protocols share.
        handshake: the HTTP request.
        session_id: the session that it belongs to.
        pings: does this layer keep the connection alive? Only where the transport has no heartbeat of its own.
    """

    protocol = "socketcluster"
    PING = wire.PING
    PONG = wire.PONG
    FRAMES = "socketcluster"
    """The kind of what goes straight to the client."""
    ANSWERS_WITHOUT_CID = True
    """Is a handshake answered that has no ``cid``?"""
    RESERVES_ALL = False
    """Are all events the protocol's own whose names begin with ``#``, and not only those that it knows?"""

    def __init__(
        self, connection: Connection, context: Context, handshake: Handshake, session_id: str, *, pings: bool
    ) -> None:
        self._transport = connection
        self._connection: Connection = connection  # or what collects batches for it
        self._context = context
        self._handshake = handshake
        self._session = context.server.sessions.get(session_id)  # which may be renewed before the handshake
        self._pings = pings
        self._server = context.server
        self._socket: Socket | None = None
        self._dispatch: Dispatch | None = None  # once the handshake has come
        self._requests: Requests | None = None  # likewise
        self._judgement: Judgement | None = None  # likewise, until the client is let in
        self._sentence: tuple[int, str] | None = None  # with which middleware ends the connection meanwhile
        self._backpressure = Backpressure(connection)
        self._queue = EventQueue(self._backpressure)
        self._reason = ""  # what the client said in its #disconnect
        self._calls = PendingCalls(first_id=1)
        self._heard = False  # anything since the last ping, or the handshake's answer?
        self._token_changes: TokenChanges | None = None  # once the handshake was answered
        self.deadline: set[Timed] | None = None
        """Those with whom it has what is due next; kept by them."""
        self._due = _HANDSHAKE
        self._deadlines = deadlines.of_loop()
        self._deadlines.set(self, context.timing.handshake_limit(connection.transport_name))

    def time_over(self) -> None:
        """Do what is due: the next step of the heartbeat, or the end of the time for a handshake."""
        if self._due is _PING:
            self._ping()
        elif self._due is _PONG:
            self._pong_due()
        else:
            self.close(CloseCode.HANDSHAKE_TIMEOUT, "no handshake in time")

    def _be_due(self, what: str, seconds: float) -> None:
        self._due = what
        self._deadlines.set(self, seconds)

    # What the transport tells.

    def on_message(self, message: str | bytes) -> None:
        """Take a message from the client."""
        self._heard = True
        if message == self.PONG:
            if self._token_changes is not None:
                self._token_changes.end()
                self._token_changes = None
            if self._socket is not None:
                self._socket.check_token()
            elif self._context.socketcluster.strict_handshake:
                self.close(CloseCode.NO_HANDSHAKE, "a message came before the handshake")
            return
        if isinstance(message, bytes):  # JSON all the same, if it is a text
            try:
                self.on_message(message.decode())
            except UnicodeDecodeError:
                self.close(CloseCode.INVALID_DATA, "a binary message is no JSON")
            return
        try:
            messages = wire.decode(message)
        except MalformedMessageError as error:
            self.close(CloseCode.INVALID_DATA, f"message format was incorrect: {error}")
            return
        several = len(messages) > 1
        self._backpressure.size = len(message) // len(messages) if several else len(message)
        end = monotonic() + fairness.SLICE if several else 0.0
        for one in messages:
            if isinstance(one, wire.Response):
                self._answered(one)
            elif not self._queue.held:
                self._event(one)
                if several and monotonic() >= end:
                    self._queue.rest()
            elif not self._put(one):
                return

    def _put(self, event: wire.Event) -> bool:
        """Have an event wait; return whether the connection lives on."""
        if self._socket is None and event.name == wire.HANDSHAKE:
            return self._open(event)
        if self._socket is not None and not self._socket.connected:  # the one before ended the connection
            return False
        if self._socket is None and self._context.socketcluster.strict_handshake:
            self.close(CloseCode.NO_HANDSHAKE, "a message came before the handshake")
            return False
        if self._socket is None and len(self._queue) >= MAX_WAITING:  # the handshake would have to come behind them
            self.close(CloseCode.POLICY_VIOLATION, "too many events before the handshake")
            return False
        if event.name == wire.DISCONNECT:  # tells nobody but what follows it
            return self._reserved(event)
        self._queue.put(self._event, event)
        return True

    def on_close(self, code: int, reason: str) -> None:
        """Learn that the connection has ended."""
        self._deadlines.discard(self)
        if self._token_changes is not None:
            self._token_changes.end()
        if isinstance(self._connection, Batching):
            self._connection.flush()
        self._calls.end(code)
        if self._socket is None or self._dispatch is None:
            self._queue.close()
            return
        tell = partial(self._tell_gone, self._socket, code, reason)
        if self._transport.ended_by_client:
            self._dispatch.end(tell)
        else:
            tell()

    def _tell_gone(self, socket: Socket, code: int, reason: str) -> None:
        socket.connected = False
        self._queue.close()
        self._server.disconnected(socket, code, reason or self._reason)
        socket.let_go()
        if self._dispatch is not None:
            self._dispatch.close()
        self._requests = self._token_changes = self._judgement = None

    # What the socket asks.

    @property
    def writable(self) -> bool:
        """Is nothing waiting to be sent to the client?"""
        return self._connection.writable

    def emit(self, event: str, args: tuple[Any, ...]) -> None:
        """Send an event."""
        self._connection.send_text(encode(event, args))

    def emit_shared(self, emission: Emission) -> None:
        """Send an event that goes to other sockets too."""
        outgoing = emission.form(self.protocol, encode_outgoing)
        if not self._sent_straight(emission, outgoing):
            self._connection.send_outgoing(outgoing)

    async def call(self, event: str, args: tuple[Any, ...], timeout: float) -> Any:
        """Send an event, and return the client's answer."""

        def send(call_id: int) -> None:
            self._connection.send_text(encode(event, args, call_id), "disconnect")

        return await self._calls.call(event, send, timeout)

    def deliver(self, message: ChannelMessage, policy: SlowConsumer | None) -> None:
        """Send a message of a channel."""
        outgoing = message.form(self.protocol, encode_publication)
        if not self._sent_straight(message, outgoing):
            self._connection.send_outgoing(outgoing, policy, message.channel)

    def _sent_straight(self, forms: Forms, outgoing: Outgoing) -> bool:
        shared = self._connection.share(outgoing)
        return self._socket is not None and self._socket.sent_straight(forms, self.FRAMES, shared)

    def kick_out(self, channel: str, message: str) -> None:
        """Tell the client that its subscription to a channel was ended, and why."""
        self.emit(wire.KICK_OUT, ({"channel": channel, "message": message},))

    async def set_token(self, token: str, timeout: float) -> None:
        """Give the client a token to keep; its answer confirms that."""
        await self.call(wire.SET_AUTH_TOKEN, ({"token": token},), timeout)

    def remove_token(self) -> None:
        """Have the client throw its token away."""
        self.emit(wire.REMOVE_AUTH_TOKEN, ())

    def close(self, code: int, reason: str) -> None:
        """End the connection; in the handshake's middleware a moment later, so that it may refuse with an error too."""
        if self._judgement is not None and self._judgement.pending:
            if self._sentence is None:
                self._sentence = code, reason
                asyncio.get_running_loop().call_soon(self._carry_out, self._judgement)
            return
        self._end(code, reason)

    def _carry_out(self, judgement: Judgement) -> None:
        if judgement.pending and self._sentence is not None:
            judgement.pending = False
            self.close(*self._sentence)

    def _end(self, code: int, reason: str) -> None:
        self._connection.close(code, reason)
        if self._socket is not None and self._socket.end_now is not None:
            self._socket.end_now()

    # The handshake.

    def _open(self, event: wire.Event) -> bool:
        self._deadlines.discard(self)
        if event.data is not msgspec.UNSET and event.data is not None and not isinstance(event.data, dict):
            self.close(CloseCode.HANDSHAKE_REFUSED, "the handshake was malformed")
            return False
        auth: dict[str, Any] | None = event.data or None
        socket = self._socket = Socket(
            self._context.ids.new_id(),
            self._session,
            self._server,
            self._handshake.with_auth(auth),
            self,
            ack_timeout=self._context.timing.ack_timeout,
            tokens=self._context.tokens,
        )
        socket.counted_by = self._backpressure
        socket.entering = Entering()
        dispatch = self._dispatch = Dispatch(self._server, socket, self, self._backpressure, self._queue)
        self._requests = Requests(
            self._server, socket, dispatch, self._context.tokens, self.answer, self._backpressure, self._queue
        )
        self._judgement = Judgement(
            self._server, socket, partial(self._let_in, socket, dispatch, event), partial(self._refuse, event)
        )
        self._judgement.begin(self._credentials(auth or {}))
        return True

    def _credentials(self, auth: dict[str, Any]) -> Credentials:
        token = auth.get("authToken")
        if token is None:
            return Credentials()
        try:
            return Credentials(self._context.tokens.verify(token))
        except AuthTokenError as error:
            return Credentials(error=error)

    def _refuse(self, event: wire.Event, error: EventError) -> None:
        code, reason = self._sentence or (CloseCode.HANDSHAKE_REFUSED, "the handshake was refused")
        code = error.close_code or code
        if event.cid is not None or self.ANSWERS_WITHOUT_CID:
            told, reply = wire.ErrorData(error.name, error.message, status_code=code), wire.RefusedReply(code)
            self.answer(encode_with_data(told, error.data, lambda told: wire.encode_error(event.cid, told, reply)))
        self.close(code, reason)

    def _let_in(self, socket: Socket, dispatch: Dispatch, event: wire.Event, brought: Credentials) -> None:
        self._judgement = None
        if self._sentence is not None:
            self.close(*self._sentence)
            return
        entering, socket.entering = socket.entering or Entering(), None
        claims, error = brought.claims, brought.error
        accepted = claims is not None and (not entering.decided or entering.token is not None)
        if claims is not None and not entering.decided:
            socket.token_accepted(claims, tell=False)
        if (error is not None and error.is_bad_token) or (claims is not None and not accepted):
            self.remove_token()  # ahead of the answer, so that the client throws away what it brought
        if event.cid is not None or self.ANSWERS_WITHOUT_CID:
            self.answer(self._handshake_reply(socket, event, error, authenticated=accepted))
        self._heard = False
        self._token_changes = TokenChanges(self._send_ping)
        socket.settles = self._settle
        if entering.token is not None:
            self._give_token(socket, entering.token)
        if self._context.socketcluster.batch_interval:
            self._connection = Batching(self._transport, self._context.socketcluster.batch_interval)
        if self._pings and socket.connected:
            self._be_due(_PING, self._context.timing.heartbeat_interval)
        self._server.connected(socket)
        dispatch.begin()
        if socket.auth_token is not None:
            asyncio.get_running_loop().call_soon(
                socket.tell_authenticated
            )  # by then the handlers of "connection" have begun

    def _handshake_reply(
        self, socket: Socket, event: wire.Event, refusal: AuthTokenError | None, *, authenticated: bool
    ) -> bytes:
        timing = self._context.timing
        patience = round((timing.heartbeat_interval + timing.heartbeat_timeout) * 1000)
        reply = wire.HandshakeReply(socket.id, patience, authenticated)
        if refusal is None:
            return wire.encode_response(event.cid, reply)
        return encode_auth_error(
            refusal, lambda told: wire.encode_response(event.cid, msgspec.structs.replace(reply, auth_error=told))
        )

    def _settle(self) -> asyncio.Future[None] | None:
        return None if self._token_changes is None else self._token_changes.settled(heard=self._heard)

    def _give_token(self, socket: Socket, token: str) -> None:
        def give(_: object = None) -> None:
            if socket.connected:
                self.emit(wire.SET_AUTH_TOKEN, ({"token": token},))

        settled = socket.settle()
        if settled is None:
            give()
        else:
            settled.add_done_callback(give)

    # The heartbeat.

    def _ping(self) -> None:
        self._heard = False
        self._send_ping()
        self._be_due(_PONG, self._context.timing.heartbeat_timeout)

    def _send_ping(self) -> None:
        self._transport.send_text(self.PING.encode())  # in no batch: it is not JSON

    def _pong_due(self) -> None:
        if not self._heard and not self._connection.held:
            self.close(CloseCode.PING_TIMEOUT, "the client did not answer in time")
            return
        rest = self._context.timing.heartbeat_interval - self._context.timing.heartbeat_timeout
        self._be_due(_PING, rest)

    # Events and calls.

    def _event(self, event: wire.Event) -> None:
        socket, dispatch = self._socket, self._dispatch
        if socket is None or dispatch is None:  # held until then
            return
        if socket.token_expires is not None:
            socket.check_token()
        if not (event.name.startswith("#") and self._reserved(event)):
            dispatch.take(event.name, () if event.data is msgspec.UNSET else (event.data,), event.cid)

    def _reserved(self, event: wire.Event) -> bool:
        """Take one of the protocol's own events; return whether it is one."""
        if event.name not in wire.RESERVED and not self.RESERVES_ALL:
            return False
        if event.name == wire.DISCONNECT:  # says why the close frame that follows is sent
            told = event.data if isinstance(event.data, dict) else {}
            reason = told.get("reason", told.get("data"))
            self._reason = reason if isinstance(reason, str) else ""
        elif self._requests is not None:
            self._requests.take(event)
        return True

    def answer(self, text: bytes) -> None:
        """Send an answer."""
        self._connection.send_text(text, "disconnect")

    def respond(self, call_id: wire.CallId, result: Any) -> None:
        """Send what a handler returned: ``None`` is no data, a tuple of one is that one, ``null`` if it is ``None``.

        Raises:
            NotSerializableError: it has no JSON form.
        """
        try:
            text = wire.encode_response(call_id, data_of(result) if result is None or type(result) is tuple else result)
        except UNSERIALIZABLE as error:
            raise NotSerializableError(str(error)) from None
        self._connection.send_text(text, "disconnect")

    def fail(self, call_id: wire.CallId, name: str, message: str, data: object = None) -> None:
        """Send that a call failed.

        Raises:
            TypeError, ValueError: one of these has no JSON form.
        """
        error = wire.ErrorData(name, message, msgspec.UNSET if data is None else data)
        self._connection.send_text(wire.encode_error(call_id, error), "disconnect")

    def unhandled(self, call_id: wire.CallId, name: str) -> None:
        """Send that nobody handles the event of a call."""
        self.fail(call_id, "NoHandlerError", f"nobody handles {name!r}")

    def _answered(self, response: wire.Response) -> None:
        answer = self._calls.take(response.rid)
        if answer is None:
            if self._socket is None and self._context.socketcluster.strict_handshake:
                self.close(CloseCode.NO_HANDSHAKE, "a message came before the handshake")
            return
        error = response.error
        if error is None:
            answer.set_result(response.data)
        elif isinstance(error, dict):
            answer.set_exception(RemoteError(str(error.get("name", "Error")), str(error.get("message", "")), error))
        else:
            answer.set_exception(RemoteError("Error", str(error), error))
