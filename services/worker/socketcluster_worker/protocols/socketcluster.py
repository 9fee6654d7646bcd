"""The SocketCluster protocol on one connection: the handshake, events, calls, channels, and over a raw WebSocket pings.

https://github.com/SocketCluster/socketcluster/blob/master/socketcluster-protocol.md, version 2.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import msgspec

from socketcluster_wire import socketcluster as wire
from socketcluster_wire.close_codes import CloseCode
from socketcluster_wire.errors import MalformedMessageError
from socketcluster_worker.api.broadcast import Emission
from socketcluster_worker.api.middleware import Action
from socketcluster_worker.api.socket import Socket
from socketcluster_worker.connection import Connection, Handshake, Outgoing
from socketcluster_worker.errors import NotSerializableError, RemoteError, SocketClosedError
from socketcluster_worker.protocols.context import Context
from socketcluster_worker.protocols.dispatch import Dispatch


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

    def __init__(
        self, connection: Connection, context: Context, handshake: Handshake, session_id: str, *, pings: bool
    ) -> None:
        self._connection = connection
        self._context = context
        self._handshake = handshake
        self._session_id = session_id
        self._pings = pings
        self._server = context.server
        self._socket: Socket | None = None
        self._dispatch: Dispatch | None = None  # once the handshake was let through
        self._early: list[wire.Event] = []  # events that came while the handshake was being judged
        self._last_call = 0
        self._calls: dict[wire.CallId, asyncio.Future[Any]] = {}
        self._heard = False  # anything since the last ping?
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(context.timing.handshake_timeout, self._handshake_late)

    # What the transport tells.

    def on_message(self, message: str | bytes) -> None:
        """Take a message from the client."""
        self._heard = True
        if message == wire.PONG:
            return
        if isinstance(message, bytes):
            self.close(CloseCode.UNSUPPORTED_DATA, "binary messages are not understood here")
            return
        try:
            messages = wire.decode(message)
        except MalformedMessageError as error:
            self.close(CloseCode.INVALID_DATA, f"message format was incorrect: {error}")
            return
        for one in messages:
            if self._socket is not None and not self._socket.connected:  # the one before ended the connection
                return
            if isinstance(one, wire.Response):
                self._answered(one)
            elif self._dispatch is not None:
                self._event(self._dispatch, one)
            elif self._socket is not None:
                self._early.append(one)
            elif one.name == wire.HANDSHAKE:
                self._open(one)
            else:
                self.close(CloseCode.NO_HANDSHAKE, "a message came before the handshake")
                return

    def on_close(self, code: int, reason: str) -> None:
        """Learn that the connection has ended."""
        self._timer.cancel()
        calls, self._calls = self._calls, {}
        for answer in calls.values():
            if not answer.done():
                answer.set_exception(SocketClosedError(f"the client is gone ({code})"))
        if self._socket is not None:
            self._socket.connected = False
            self._server.disconnected(self._socket, code, reason)

    # What the socket asks.

    @property
    def writable(self) -> bool:
        """Is nothing waiting to be sent to the client?"""
        return self._connection.writable

    def emit(self, event: str, args: tuple[Any, ...]) -> None:
        """Send an event."""
        self._connection.send_text(_encode(event, args))

    def emit_shared(self, emission: Emission) -> None:
        """Send an event that goes to other sockets too."""
        self._connection.send_outgoing(emission.form(self.protocol, _encode_outgoing))

    def call(self, event: str, args: tuple[Any, ...]) -> tuple[int, asyncio.Future[Any]]:
        """Send an event that wants an answer."""
        call_id = self._last_call + 1
        text = _encode(event, args, call_id)
        self._last_call = call_id
        answer = self._calls[call_id] = self._loop.create_future()
        self._connection.send_text(text)
        return call_id, answer

    def forget(self, call_id: int) -> None:
        """Stop waiting for an answer."""
        self._calls.pop(call_id, None)

    def deliver(self, publication: Outgoing) -> None:
        """Send a message of a channel."""
        self._connection.send_outgoing(publication)

    def close(self, code: int, reason: str) -> None:
        """End the connection."""
        if self._connection.transport_name == "polling":  # which has no close frame to say why
            self._connection.send_text(wire.encode_event(wire.DISCONNECT, {"code": code, "reason": reason}))
        self._connection.close(code, reason)

    # The handshake.

    def _open(self, event: wire.Event) -> None:
        self._timer.cancel()
        auth = event.data if isinstance(event.data, dict) else None
        socket = self._socket = Socket(
            self._context.identity.new_id(),
            self._server.sessions.get(self._session_id),
            self._server,
            replace(self._handshake, auth=auth),
            self,
            ack_timeout=self._context.timing.ack_timeout,
        )
        if self._server.middleware.active("handshake"):
            self._server.run(self._judge, (socket, event), "middleware of the stage 'handshake'")
        else:
            self._opened(socket, event)

    async def _judge(self, socket: Socket, event: wire.Event) -> None:
        try:
            await self._server.middleware.run(Action("handshake", socket))
        except Exception as error:
            Dispatch(self._server, socket, self).raised(error, wire.HANDSHAKE, event.cid)
            self.close(CloseCode.HANDSHAKE_REFUSED, "the handshake was refused")
        else:
            if socket.connected:
                self._opened(socket, event)

    def _opened(self, socket: Socket, event: wire.Event) -> None:
        timing = self._context.timing
        patience = round((timing.heartbeat_interval + timing.heartbeat_timeout) * 1000)
        # A handshake is answered with or without a cid.
        self._connection.send_text(wire.encode_response(event.cid, wire.HandshakeReply(socket.id, patience)))
        if self._pings:
            self._timer = self._loop.call_later(timing.heartbeat_interval, self._ping)
        dispatch = self._dispatch = Dispatch(self._server, socket, self)
        self._server.connected(socket)
        dispatch.begin()
        early, self._early = self._early, []
        for waiting in early:
            self._event(dispatch, waiting)

    def _handshake_late(self) -> None:
        self.close(CloseCode.HANDSHAKE_TIMEOUT, "no handshake in time")

    # The heartbeat.

    def _ping(self) -> None:
        self._heard = False
        self._connection.send_text(b"")
        self._timer = self._loop.call_later(self._context.timing.heartbeat_timeout, self._pong_due)

    def _pong_due(self) -> None:
        if not self._heard:
            self.close(CloseCode.PING_TIMEOUT, "the client did not answer in time")
            return
        rest = self._context.timing.heartbeat_interval - self._context.timing.heartbeat_timeout
        self._timer = self._loop.call_later(max(rest, 0), self._ping)

    # Events and calls.

    def _event(self, dispatch: Dispatch, event: wire.Event) -> None:
        if event.name.startswith("#"):
            self._reserved(dispatch, event)
        else:
            dispatch.event(event.name, () if event.data is msgspec.UNSET else (event.data,), event.cid)

    def respond(self, call_id: wire.CallId, result: Any) -> None:
        """Send what a handler returned.

        Raises:
            NotSerializableError: it has no JSON form.
        """
        try:
            text = wire.encode_response(call_id, msgspec.UNSET if result is None else result)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise NotSerializableError(str(error)) from None
        self._connection.send_text(text)

    def fail(self, call_id: wire.CallId, name: str, message: str) -> None:
        """Send that a call failed."""
        self._connection.send_text(wire.encode_error(call_id, name, message))

    def _answered(self, response: wire.Response) -> None:
        answer = self._calls.pop(response.rid, None)
        if answer is None or answer.done():
            return
        error = response.error
        if error is None:
            answer.set_result(response.data)
        elif isinstance(error, dict):
            answer.set_exception(RemoteError(str(error.get("name", "Error")), str(error.get("message", "")), error))
        else:
            answer.set_exception(RemoteError("Error", str(error), error))

    # The protocol's own events.

    def _reserved(self, dispatch: Dispatch, event: wire.Event) -> None:
        match event.name:
            case wire.SUBSCRIBE:
                self._server.run(self._subscribe, (dispatch, event), "a subscription")
            case wire.UNSUBSCRIBE:
                self._unsubscribe(event)
            case wire.PUBLISH:
                self._server.run(self._publish, (dispatch, event), "a publication")
            case wire.DISCONNECT:
                pass  # says why the close frame that follows is sent
            case _:
                if event.cid is not None:
                    self.fail(event.cid, "UnknownEventError", f"{event.name} is not understood")

    async def _subscribe(self, dispatch: Dispatch, event: wire.Event) -> None:
        data = event.data if isinstance(event.data, dict) else {"channel": event.data}
        try:
            await dispatch.subscribe(data.get("channel"), data.get("data"))
        except Exception as error:
            dispatch.raised(error, event.name, event.cid)
        else:
            self._done(event)

    def _unsubscribe(self, event: wire.Event) -> None:
        found = (
            self._socket is not None
            and isinstance(event.data, str)
            and self._server.exchange.discard(self._socket, event.data)
        )
        if found:
            self._done(event)
        elif event.cid is not None:
            self.fail(event.cid, "BrokerError", "the socket is not subscribed to that channel")

    async def _publish(self, dispatch: Dispatch, event: wire.Event) -> None:
        data = event.data if isinstance(event.data, dict) else {}
        try:
            await dispatch.publish(data.get("channel"), data.get("data"))
        except Exception as error:
            dispatch.raised(error, event.name, event.cid)
        else:
            self._done(event)

    def _done(self, event: wire.Event) -> None:
        if event.cid is not None:
            self._connection.send_text(wire.encode_response(event.cid))


def _encode(event: str, args: tuple[Any, ...], cid: int | None = None) -> bytes:
    """One argument is the data; none leaves it out; several travel as a list."""
    data = msgspec.UNSET if not args else args[0] if len(args) == 1 else args
    try:
        return wire.encode_event(event, data, cid)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise NotSerializableError(f"{event!r}: {error}") from None


def _encode_outgoing(event: str, args: tuple[Any, ...]) -> Outgoing:
    return Outgoing(_encode(event, args))
