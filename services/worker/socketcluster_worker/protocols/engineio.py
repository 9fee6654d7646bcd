"""Engine.IO alone: each message is the event ``message``, in both directions."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from socketcluster_wire.close_codes import CloseCode
from socketcluster_wire.socketcluster import CallId
from socketcluster_worker.api.channels.channel_message import ChannelMessage
from socketcluster_worker.api.sockets.emission import Emission
from socketcluster_worker.api.sockets.socket import Socket
from socketcluster_worker.connection import Connection, Handshake, SlowConsumer
from socketcluster_worker.errors import EventError, NotSerializableError, UnsupportedError
from socketcluster_worker.protocols.backpressure import Backpressure
from socketcluster_worker.protocols.context import Context
from socketcluster_worker.protocols.dispatch import Dispatch
from socketcluster_worker.protocols.event_queue import EventQueue
from socketcluster_worker.protocols.handshake import Credentials, Judgement

MESSAGE = "message"
_CARRIED = (str, bytes, bytearray, memoryview)


class EngineIOPeer:
    """One connection that carries messages without form: texts and bytes.

    An event other than ``message`` has no form here, and is left out; so is a channel's message. A call cannot be made.
    """

    protocol = "engine.io"

    def __init__(self, connection: Connection, context: Context, handshake: Handshake, session_id: str) -> None:
        self._connection = connection
        self._namespace = context.server
        self._socket = Socket(
            context.ids.new_id(),
            context.server.sessions.get(session_id),
            context.server,
            handshake,
            self,
            ack_timeout=context.timing.ack_timeout,
        )
        self._backpressure = Backpressure(connection)
        self._queue = EventQueue(self._backpressure)
        self._dispatch = Dispatch(context.server, self._socket, self, self._backpressure, self._queue)
        judgement = Judgement(context.server, self._socket, self._let_in, self._refuse)
        # The transport sends its own opening first.
        asyncio.get_running_loop().call_soon(judgement.begin)

    def _let_in(self, _: Credentials) -> None:
        self._namespace.connected(self._socket)
        self._dispatch.begin()

    def _refuse(self, error: EventError) -> None:
        self._socket.disconnect(error.close_code or CloseCode.HANDSHAKE_REFUSED, "the handshake was refused")

    def on_message(self, message: str | bytes) -> None:
        """Take a message from the client."""
        self._backpressure.size = len(message)
        self._dispatch.event(MESSAGE, (message,), None)

    def on_close(self, code: int, reason: str) -> None:
        """Learn that the connection has ended."""
        tell = partial(self._tell_gone, code, reason)
        if self._connection.ended_by_client:
            self._dispatch.end(tell)
        else:
            tell()

    def _tell_gone(self, code: int, reason: str) -> None:
        self._socket.connected = False
        self._queue.close()
        self._namespace.disconnected(self._socket, code, reason)
        self._socket.let_go()
        self._dispatch.close()

    @property
    def writable(self) -> bool:
        """Is nothing waiting to be sent to the client?"""
        return self._connection.writable

    def emit(self, event: str, args: tuple[Any, ...]) -> None:
        """Send a message."""
        if event != MESSAGE:
            return
        for data in args:
            if not isinstance(data, _CARRIED):  # all of them are sent, or none
                raise NotSerializableError(f"a message is a text or bytes, not {type(data).__name__}")
        for data in args:
            if isinstance(data, str):
                self._connection.send_text(data.encode())
            else:
                self._connection.send_binary(bytes(data))

    def emit_shared(self, emission: Emission) -> None:
        """Send a message that goes to other sockets too."""
        self.emit(emission.event, emission.args)

    async def call(self, event: str, args: tuple[Any, ...], timeout: float) -> Any:
        """Refuse: messages have no answers."""
        raise NotSerializableError("a plain Engine.IO client answers no calls")

    def respond(self, call_id: CallId, result: Any) -> None:
        """Do nothing: there are no calls."""

    def fail(self, call_id: CallId, name: str, message: str, data: object = None) -> None:
        """Do nothing: there are no calls."""

    def unhandled(self, call_id: CallId, name: str) -> None:
        """Do nothing: there are no calls."""

    def deliver(self, message: ChannelMessage, policy: SlowConsumer | None) -> None:
        """Do nothing: a client cannot subscribe."""

    def kick_out(self, channel: str, message: str) -> None:
        """Do nothing: a client cannot subscribe."""

    async def set_token(self, token: str, timeout: float) -> None:
        """Refuse: a client keeps no token."""
        raise UnsupportedError("a plain Engine.IO client keeps no auth token")

    def remove_token(self) -> None:
        """Do nothing: a client keeps no token."""

    def close(self, code: int, reason: str) -> None:
        """End the connection."""
        self._connection.close(code, reason)
