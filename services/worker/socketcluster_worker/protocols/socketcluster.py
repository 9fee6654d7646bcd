"""The SocketCluster protocol on one connection: the handshake, events, calls, channels, and over a raw WebSocket pings.

https://github.com/SocketCluster/socketcluster/blob/master/socketcluster-protocol.md, version 2.
"""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from socketcluster_runtime import logging
from socketcluster_runtime.errors import LinkError
from socketcluster_wire import socketcluster as wire
from socketcluster_wire.close_codes import CloseCode
from socketcluster_wire.errors import MalformedMessageError
from socketcluster_worker.api.events import Handler
from socketcluster_worker.api.socket import Socket
from socketcluster_worker.api.ws_server import WSServer
from socketcluster_worker.connection import Connection, Handshake, Outgoing
from socketcluster_worker.errors import EventError, NotSerializableError, RemoteError, SocketClosedError
from socketcluster_worker.identity import Identity

log = logging.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds; see the options of the same names."""

    heartbeat_interval: float
    heartbeat_timeout: float
    handshake_timeout: float
    ack_timeout: float


class SocketClusterPeer:
    """One connection that speaks SocketCluster's protocol; a ``Receiver`` to its transport, a ``Peer`` to its socket.

    Args:
        pings: does this layer keep the connection alive? Only where the transport has no heartbeat of its own.
    """

    protocol = "socketcluster"

    def __init__(
        self,
        connection: Connection,
        server: WSServer,
        identity: Identity,
        handshake: Handshake,
        session_id: str,
        timing: Timing,
        *,
        pings: bool,
    ) -> None:
        self._connection = connection
        self._server = server
        self._identity = identity
        self._handshake = handshake
        self._session_id = session_id
        self._timing = timing
        self._pings = pings
        self._socket: Socket | None = None
        self._held: list[wire.Event] | None = None  # events that wait for the handlers of "connection" to begin
        self._last_call = 0
        self._calls: dict[wire.CallId, asyncio.Future[Any]] = {}
        self._heard = False  # anything since the last ping?
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(timing.handshake_timeout, self._handshake_late)

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
            if isinstance(one, wire.Response):
                self._answered(one)
            elif self._socket is not None:
                self._event(self._socket, one)
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

    def emit(self, event: str, args: tuple[Any, ...]) -> None:
        """Send an event."""
        self._connection.send_text(_encode(event, args, None))

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
        socket = Socket(
            self._identity.new_id(),
            self._server.sessions.get(self._session_id),
            replace(self._handshake, auth=auth),
            self,
            ack_timeout=self._timing.ack_timeout,
        )
        self._socket = socket
        patience = self._timing.heartbeat_interval + self._timing.heartbeat_timeout
        # A handshake is answered with or without a cid.
        self._connection.send_text(
            wire.encode_response(event.cid, wire.HandshakeReply(socket.id, round(patience * 1000)))
        )
        if self._pings:
            self._timer = self._loop.call_later(self._timing.heartbeat_interval, self._ping)
        self._held = []
        self._server.connected(socket)
        # An async handler of "connection" has begun, and registered its handlers, one turn of the loop later.
        self._loop.call_soon(self._release, socket)

    def _release(self, socket: Socket) -> None:
        held, self._held = self._held, None
        for event in held or ():
            self._event(socket, event)

    def _handshake_late(self) -> None:
        self.close(CloseCode.HANDSHAKE_TIMEOUT, "no handshake in time")

    # The heartbeat.

    def _ping(self) -> None:
        self._heard = False
        self._connection.send_text(b"")
        self._timer = self._loop.call_later(self._timing.heartbeat_timeout, self._pong_due)

    def _pong_due(self) -> None:
        if not self._heard:
            self.close(CloseCode.PING_TIMEOUT, "the client did not answer in time")
            return
        rest = self._timing.heartbeat_interval - self._timing.heartbeat_timeout
        self._timer = self._loop.call_later(max(rest, 0), self._ping)

    # Events and calls.

    def _event(self, socket: Socket, event: wire.Event) -> None:
        if self._held is not None:
            self._held.append(event)
            return
        if event.name.startswith("#"):
            self._reserved(socket, event)
            return
        handlers = socket.handlers(event.name)
        args = () if event.data is msgspec.UNSET else (event.data,)
        if event.cid is None:
            for handler in handlers:
                self._server.run(handler, (args,), f"a handler of {event.name!r}")
            return
        if not handlers:
            self._fail(event.cid, "NoHandlerError", f"nobody handles {event.name!r}")
            return
        self._procedure(handlers[0], args, event.name, event.cid)
        for handler in handlers[1:]:
            self._server.run(handler, (args,), f"a handler of {event.name!r}")

    def _procedure(self, handler: Handler, args: tuple[Any, ...], name: str, cid: wire.CallId) -> None:
        """Call a handler whose return value, or error, is the answer."""
        try:
            result = handler(args)
        except Exception as error:
            self._raised(name, cid, error)
            return
        if inspect.iscoroutine(result):
            self._server.run(self._finish, (result, name, cid), f"a handler of {name!r}")
        else:
            self._respond(name, cid, result)

    async def _finish(self, pending: Any, name: str, cid: wire.CallId) -> None:
        try:
            result = await pending
        except Exception as error:
            self._raised(name, cid, error)
        else:
            self._respond(name, cid, result)

    def _respond(self, name: str, cid: wire.CallId, result: Any) -> None:
        try:
            text = wire.encode_response(cid, msgspec.UNSET if result is None else result)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            self._raised(name, cid, error)
            return
        self._connection.send_text(text)

    def _raised(self, name: str, cid: wire.CallId, error: Exception) -> None:
        if isinstance(error, EventError):
            self._fail(cid, error.name, error.message)
        elif isinstance(error, LinkError):
            self._fail(cid, type(error).__name__, "the store did not carry the operation out")
            log.warning("an operation on the store failed", event_name=name, error=str(error))
        else:
            self._fail(cid, "InternalServerError", f"the handler of {name!r} failed")
            self._server.handler_failed(error, f"a handler of {name!r}")

    def _fail(self, rid: wire.CallId, name: str, message: str) -> None:
        self._connection.send_text(wire.encode_error(rid, name, message))

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

    def _reserved(self, socket: Socket, event: wire.Event) -> None:
        match event.name:
            case wire.SUBSCRIBE:
                name = event.data.get("channel") if isinstance(event.data, dict) else event.data
                self._server.run(self._subscribe, (socket, event, name), "a subscription")
            case wire.UNSUBSCRIBE:
                found = isinstance(event.data, str) and self._server.exchange.discard(socket, event.data)
                if event.cid is not None:
                    if found:
                        self._connection.send_text(wire.encode_response(event.cid))
                    else:
                        self._fail(event.cid, "BrokerError", "the socket is not subscribed to that channel")
            case wire.PUBLISH:
                self._server.run(self._publish, (event,), "a publication")
            case wire.DISCONNECT:
                pass  # says why the close frame that follows is sent
            case _:
                if event.cid is not None:
                    self._fail(event.cid, "UnknownEventError", f"{event.name} is not understood")

    async def _subscribe(self, socket: Socket, event: wire.Event, name: Any) -> None:
        try:
            await self._server.exchange.add(socket, name)
        except (EventError, LinkError) as error:
            if event.cid is not None:
                self._raised(event.name, event.cid, error)
        else:
            if event.cid is not None:
                self._connection.send_text(wire.encode_response(event.cid))

    async def _publish(self, event: wire.Event) -> None:
        data = event.data if isinstance(event.data, dict) else {}
        try:
            await self._server.exchange.publish(data.get("channel", ""), data.get("data"))
        except (EventError, LinkError, NotSerializableError) as error:
            if event.cid is not None:
                self._raised(event.name, event.cid, error)
        else:
            if event.cid is not None:
                self._connection.send_text(wire.encode_response(event.cid))


def _encode(event: str, args: tuple[Any, ...], cid: int | None) -> bytes:
    """One argument is the data; none leaves it out; several travel as a list."""
    data = msgspec.UNSET if not args else args[0] if len(args) == 1 else args
    try:
        return wire.encode_event(event, data, cid)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise NotSerializableError(f"{event!r}: {error}") from None
