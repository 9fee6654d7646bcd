"""The SocketCluster protocol on one connection: the handshake, events, calls, channels, and over a raw WebSocket pings.

https://github.com/SocketCluster/socketcluster/blob/master/socketcluster-protocol.md, version 2; what is different in
version 1 is in ``socketcluster_v1``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any

import msgspec

from socketcluster_wire import socketcluster as wire
from socketcluster_wire.close_codes import CloseCode
from socketcluster_wire.errors import MalformedMessageError
from socketcluster_worker import turns
from socketcluster_worker.api.channels.channel_message import ChannelMessage
from socketcluster_worker.api.sockets.action import Action
from socketcluster_worker.api.sockets.emission import Emission
from socketcluster_worker.api.sockets.socket import Entering, Socket
from socketcluster_worker.connection import Connection, Handshake, SlowConsumer
from socketcluster_worker.errors import AuthTokenError, EventError, NotSerializableError, RemoteError, SocketClosedError
from socketcluster_worker.protocols import authentication
from socketcluster_worker.protocols.backpressure import MAX_WAITING, Backpressure
from socketcluster_worker.protocols.context import Context
from socketcluster_worker.protocols.dispatch import Dispatch
from socketcluster_worker.protocols.ending import Ending
from socketcluster_worker.protocols.socketcluster.batching import Batching
from socketcluster_worker.protocols.socketcluster.encoding import (
    UNSERIALIZABLE,
    data_of,
    encode,
    encode_outgoing,
    encode_publication,
)
from socketcluster_worker.protocols.socketcluster.requests import Requests

SETTLE_TIME = 1.0
"""Seconds after the handshake's answer in which a client may not have taken it in."""
_TURN = object()
"""Holds events until the other clients had their turn."""


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
        self._dispatch: Dispatch | None = None  # None while events have to wait
        self._ready: tuple[Dispatch, Requests] | None = None  # once the handshake was let through
        self._backpressure = Backpressure(connection)
        self._waiting: deque[tuple[wire.Event, int]] = deque()
        self._holders: set[object] = set()  # who has events wait; nobody but they are asked once the client is let in
        self._releasing = False
        self._ending: Ending | None = None  # while the client's end waits for its turn
        self._reason = ""  # what the client said in its #disconnect
        self._last_call = 0
        self._calls: dict[wire.CallId, asyncio.Future[Any]] = {}
        self._heard = False  # anything since the last ping, or the handshake's answer?
        self._judging = False  # is middleware asked about the handshake?
        self._sentence: tuple[int, str] | None = None  # with which it ended the connection
        self._settling: asyncio.Future[None] | None = None
        self._settled_at = 0.0
        self._loop = asyncio.get_running_loop()
        limit = context.timing.handshake_limit(connection.transport_name)
        self._timer = self._loop.call_later(limit, self._handshake_late)

    # What the transport tells.

    def on_message(self, message: str | bytes) -> None:
        """Take a message from the client."""
        self._heard = True
        if message == self.PONG:
            if self._settling is not None:
                self._settled()
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
        end = monotonic() + turns.SLICE if several else 0.0
        for one in messages:
            if isinstance(one, wire.Response):
                self._answered(one)
            elif self._dispatch is not None:
                self._event(self._dispatch, one)
                if several and monotonic() >= end:
                    self._rest()
            elif not self._early(one):
                return

    def _rest(self) -> None:
        """Let other clients have their turn before the next event."""
        self.hold(_TURN)
        turns.later(partial(self.release, _TURN))

    def _early(self, event: wire.Event) -> bool:
        """Take an event that cannot be handled yet; return whether the connection lives on."""
        if self._socket is None and event.name == wire.HANDSHAKE:
            return self._open(event)
        if self._socket is not None and not self._socket.connected:  # the one before ended the connection
            return False
        if self._socket is None and self._context.socketcluster.strict_handshake:
            self.close(CloseCode.NO_HANDSHAKE, "a message came before the handshake")
            return False
        if self._socket is None and len(self._waiting) >= MAX_WAITING:  # the handshake would have to come behind them
            self.close(CloseCode.POLICY_VIOLATION, "too many events before the handshake")
            return False
        if event.name == wire.DISCONNECT:  # tells nobody but what follows it
            return self._reserved(event)
        self._waiting.append((event, self._backpressure.wait()))
        return True

    def on_close(self, code: int, reason: str) -> None:
        """Learn that the connection has ended."""
        self._timer.cancel()
        self._dispatch = None
        self._settled()
        if isinstance(self._connection, Batching):
            self._connection.flush()
        calls, self._calls = self._calls, {}
        for answer in calls.values():
            if not answer.done():
                answer.set_exception(SocketClosedError(f"the client is gone ({code})"))
        if self._socket is None:
            self._waiting.clear()
            return
        tell = partial(self._tell_gone, self._socket, code, reason)
        if self._transport.ended_by_client and (self._waiting or self._ready is not None):
            self._ending = Ending(self._socket, tell)
            self._end_in_turn()
        else:
            tell()

    def _tell_gone(self, socket: Socket, code: int, reason: str) -> None:
        socket.connected = False
        self._dispatch = None
        self._waiting.clear()
        self._server.disconnected(socket, code, reason or self._reason)

    def _end_in_turn(self) -> None:
        """Have the application told of the client's end once nothing is before it, here or where events go on from."""
        if self._ending is not None and self._ready is not None and not self._waiting:
            dispatch = self._ready[0]
            if self._holders <= {dispatch}:
                dispatch.end(self._ending.come)

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
        self._connection.send_outgoing(emission.form(self.protocol, encode_outgoing))

    def call(self, event: str, args: tuple[Any, ...]) -> tuple[int, asyncio.Future[Any]]:
        """Send an event that wants an answer."""
        call_id = self._last_call + 1
        text = encode(event, args, call_id)
        self._last_call = call_id
        answer = self._calls[call_id] = self._loop.create_future()
        self._connection.send_text(text, "disconnect")
        return call_id, answer

    def forget(self, call_id: int) -> None:
        """Stop waiting for an answer."""
        self._calls.pop(call_id, None)

    def deliver(self, message: ChannelMessage, policy: SlowConsumer | None) -> None:
        """Send a message of a channel."""
        self._connection.send_outgoing(message.form(self.protocol, encode_publication), policy, message.channel)

    def kick_out(self, channel: str, message: str) -> None:
        """Tell the client that its subscription to a channel was ended, and why."""
        self.emit(wire.KICK_OUT, ({"channel": channel, "message": message},))

    def set_token(self, token: str) -> tuple[int, asyncio.Future[Any]]:
        """Give the client a token to keep; its answer confirms that."""
        return self.call(wire.SET_AUTH_TOKEN, ({"token": token},))

    def remove_token(self) -> None:
        """Have the client throw its token away."""
        self.emit(wire.REMOVE_AUTH_TOKEN, ())

    def close(self, code: int, reason: str) -> None:
        """End the connection; in the handshake's middleware a moment later, so that it may refuse with an error too."""
        if self._judging:
            if self._sentence is None:
                self._sentence = code, reason
                self._loop.call_soon(self._carry_out)
            return
        self._end(code, reason)

    def _carry_out(self) -> None:
        if self._judging and self._sentence is not None:
            self._judging = False
            self.close(*self._sentence)

    def _end(self, code: int, reason: str) -> None:
        self._connection.close(code, reason)
        if self._ending is not None:
            self._ending.come()

    # The handshake.

    def _open(self, event: wire.Event) -> bool:
        self._timer.cancel()
        if event.data is not msgspec.UNSET and event.data is not None and not isinstance(event.data, dict):
            self.close(CloseCode.HANDSHAKE_REFUSED, "the handshake was malformed")
            return False
        auth: dict[str, Any] | None = event.data or None
        claims: dict[str, Any] | None = None
        refusal: AuthTokenError | None = None
        if auth is not None and auth.get("authToken") is not None:
            try:
                claims = self._context.tokens.verify(auth["authToken"])
            except AuthTokenError as error:
                refusal = error
        socket = self._socket = Socket(
            self._context.ids.new_id(),
            self._session,
            self._server,
            replace(self._handshake, auth=auth),
            self,
            ack_timeout=self._context.timing.ack_timeout,
            tokens=self._context.tokens,
        )
        socket.begun = self._backpressure.count
        socket.entering = Entering()
        middleware = self._server.middleware
        if middleware.active("handshake") or (claims is not None and middleware.active("authenticate")):
            self._judging = True
            self._server.run(self._judge, (socket, event, claims, refusal), "middleware of the stage 'handshake'")
        else:
            self._opened(socket, event, claims, refusal)
        return True

    async def _judge(
        self, socket: Socket, event: wire.Event, claims: dict[str, Any] | None, refusal: AuthTokenError | None
    ) -> None:
        try:
            await self._server.middleware.run(Action("handshake", socket, data=claims))
        except Exception as error:
            self._refuse(event, error)
            return
        if claims is not None:
            try:
                claims = await authentication.ask(self._server, socket, claims)
            except AuthTokenError as error:
                claims, refusal = None, error
        if self._sentence is not None:
            self._carry_out()
        elif socket.connected or socket.end_now is not None:
            self._judging = False
            self._opened(socket, event, claims, refusal)

    def _refuse(self, event: wire.Event, error: Exception) -> None:
        self._judging = False
        code, reason = self._sentence or (CloseCode.HANDSHAKE_REFUSED, "the handshake was refused")
        if isinstance(error, EventError):
            code = error.close_code or code
            told = wire.ErrorData(error.name, error.message, status_code=code)
        else:
            self._server.handler_failed(error, "middleware of the stage 'handshake'")
            told = wire.ErrorData("InternalServerError", "the middleware failed", status_code=code)
        if event.cid is not None or self.ANSWERS_WITHOUT_CID:
            data = error.data if isinstance(error, EventError) else None
            reply = wire.RefusedReply(code)
            self.answer(
                authentication.encode_with_data(told, data, lambda told: wire.encode_error(event.cid, told, reply))
            )
        self.close(code, reason)

    def _opened(
        self, socket: Socket, event: wire.Event, claims: dict[str, Any] | None, refusal: AuthTokenError | None
    ) -> None:
        entering, socket.entering = socket.entering or Entering(), None
        brought = claims is not None and (not entering.decided or entering.token is not None)
        if claims is not None and not entering.decided:
            socket.token_accepted(claims, tell=False)
        if (refusal is not None and refusal.is_bad_token) or (claims is not None and not brought):
            self.remove_token()  # ahead of the answer, so that the client throws away what it brought
        if event.cid is not None or self.ANSWERS_WITHOUT_CID:
            self.answer(self._handshake_reply(socket, event, refusal, authenticated=brought))
        self._heard, self._settled_at = False, self._loop.time() + SETTLE_TIME
        socket.settle = self._settle
        if entering.token is not None:
            self._give_token(socket, entering.token)
        if self._context.socketcluster.batch_interval:
            self._connection = Batching(self._transport, self._context.socketcluster.batch_interval)
        if self._pings and socket.connected:
            self._timer = self._loop.call_later(self._context.timing.heartbeat_interval, self._ping)
        dispatch = Dispatch(self._server, socket, self, self._backpressure, gate=self)
        self.hold(dispatch)  # until it begins
        self._ready = dispatch, Requests(self._server, socket, dispatch, self._context.tokens, self, self._backpressure)
        self._server.connected(socket)
        dispatch.begin()
        if socket.auth_token is not None:
            self._loop.call_soon(socket.tell_authenticated)  # by then the handlers of "connection" have begun

    def _handshake_reply(
        self, socket: Socket, event: wire.Event, refusal: AuthTokenError | None, *, authenticated: bool
    ) -> bytes:
        timing = self._context.timing
        patience = round((timing.heartbeat_interval + timing.heartbeat_timeout) * 1000)
        reply = wire.HandshakeReply(socket.id, patience, authenticated)
        if refusal is None:
            return wire.encode_response(event.cid, reply)
        return authentication.encode(
            refusal, lambda told: wire.encode_response(event.cid, msgspec.structs.replace(reply, auth_error=told))
        )

    # A client may take in what follows the handshake's answer before the answer itself, which says if it is
    # authenticated: socketcluster-client does on Node, if both arrive at once. So what changes its token waits for the
    # answer to a ping, unless anything was heard before.

    def _settle(self) -> asyncio.Future[None] | None:
        if self._settling is None and not self._heard and self._loop.time() < self._settled_at:
            self._settling = self._loop.create_future()
            self._transport.send_text(self.PING.encode())
            self._loop.call_later(SETTLE_TIME, self._settled)
        return self._settling

    def _settled(self) -> None:
        settling, self._settling = self._settling, None
        self._settled_at = 0.0
        if settling is not None and not settling.done():
            settling.set_result(None)

    def _give_token(self, socket: Socket, token: str) -> None:
        def give(_: object = None) -> None:
            if socket.connected:
                self.emit(wire.SET_AUTH_TOKEN, ({"token": token},))

        settled = self._settle()
        if settled is None:
            give()
        else:
            settled.add_done_callback(give)

    def _handshake_late(self) -> None:
        self.close(CloseCode.HANDSHAKE_TIMEOUT, "no handshake in time")

    # The heartbeat.

    def _ping(self) -> None:
        self._heard = False
        self._transport.send_text(self.PING.encode())  # in no batch: it is not JSON
        self._timer = self._loop.call_later(self._context.timing.heartbeat_timeout, self._pong_due)

    def _pong_due(self) -> None:
        if not self._heard and not self._connection.held:
            self.close(CloseCode.PING_TIMEOUT, "the client did not answer in time")
            return
        rest = self._context.timing.heartbeat_interval - self._context.timing.heartbeat_timeout
        self._timer = self._loop.call_later(max(rest, 0), self._ping)

    # Events and calls.

    def _event(self, dispatch: Dispatch, event: wire.Event) -> None:
        socket = self._socket
        if socket is not None and socket.token_expires is not None:
            socket.check_token()
        if not (event.name.startswith("#") and self._reserved(event)):
            dispatch.event(event.name, () if event.data is msgspec.UNSET else (event.data,), event.cid)

    def _reserved(self, event: wire.Event) -> bool:
        """Take one of the protocol's own events; return whether it is one."""
        if event.name not in wire.RESERVED and not self.RESERVES_ALL:
            return False
        if event.name == wire.DISCONNECT:  # says why the close frame that follows is sent
            told = event.data if isinstance(event.data, dict) else {}
            reason = told.get("reason", told.get("data"))
            self._reason = reason if isinstance(reason, str) else ""
        elif self._ready is not None:
            self._ready[1].take(event)
        return True

    def answer(self, text: bytes) -> None:
        """Send an answer."""
        self._connection.send_text(text, "disconnect")

    def hold(self, holder: object) -> None:
        """Let what the client sends wait."""
        self._holders.add(holder)
        self._dispatch = None

    def release(self, holder: object) -> None:
        """Take what has waited, and what comes, unless somebody else has it wait."""
        self._holders.discard(holder)
        if self._holders or self._ready is None or self._socket is None or not self._socket.is_in:
            return
        dispatch = self._dispatch = self._ready[0]
        if self._releasing:  # called by the loop below, which goes on: a middleware may answer at once
            return
        self._releasing = True
        end = monotonic() + turns.SLICE
        try:
            while self._waiting and self._dispatch is not None:
                event, size = self._waiting.popleft()
                self._backpressure.stop_waiting(size)
                self._event(dispatch, event)
                if self._waiting and monotonic() >= end:
                    self._rest()
        finally:
            self._releasing = False
        if self._ending is not None:
            self._end_in_turn()

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
        answer = self._calls.pop(response.rid, None)
        if answer is None or answer.done():
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
