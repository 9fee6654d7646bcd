"""WebSockets of mounted apps: uvicorn's protocol, taught to read in turns, and no more than its app and client take."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any, cast

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from socketcluster_worker import fairness
from socketcluster_worker.transport.http.time_limits import TimeLimits

PIECE = 512
"""Bytes that are parsed before somebody looks at the time, and at whether the app and the client keep up."""


class MountedWebSocket(WebSocketsSansIOProtocol):
    """One client's WebSocket to a mounted app.

    What a client sends is parsed a piece at a time, and no further while the app has messages to take, or the client
    does not take what it is sent: the answers to its pings, say.

    Args:
        args, options: uvicorn's.
        client: the client's IP address and port, which its socket may not tell.
        secure: did it come by TLS?
    """

    def __init__(self, *args: Any, client: tuple[str, int] | None, secure: bool, **options: Any) -> None:
        super().__init__(*args, **options)
        self._origin = client, secure
        self._unread = bytearray()  # received, and not yet parsed
        self._blocked = False  # is nothing read from the transport?
        self._turn_asked = False
        self._clocks: TimeLimits

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        super().connection_made(transport)
        self.client, secure = self._origin
        self.scheme = "wss" if secure else "ws"
        stream = cast(asyncio.Transport, transport)
        self._clocks = TimeLimits(stream, FlowControl(stream), stream.abort, body_window=0)  # there are no bodies

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what was not read."""
        self._unread.clear()
        self._clocks.stop()
        super().connection_lost(exc)

    def leave(self) -> None:
        """End because the balancer ends that the connection comes by."""
        self.shutdown()

    def pause_writing(self) -> None:
        """Read no more, and look whether the client takes anything."""
        super().pause_writing()
        self._clocks.watch_sending()

    def resume_writing(self) -> None:
        """Read on."""
        super().resume_writing()
        self._read_on()

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client, or the request that it opened with."""
        self._unread += data
        if not self._turn_asked:
            self._take()

    async def receive(self) -> Any:
        """Return what came (ASGI); what was read goes on before the transport does."""
        message = await self.queue.get()
        if self.queue.empty() and not self.disconnected:
            self.read_paused = False
            self._read_on()
        return message

    async def send(self, message: Any) -> None:
        """Send what the app says (ASGI)."""
        await super().send(message)
        if self.close_sent:  # what the client still sends is of no use to the app, but for its close frame
            self._read_on()

    @property
    def _keeps_up(self) -> bool:
        return not self.read_paused and self.writable.is_set()

    def _take(self) -> None:
        """Parse what was received, until others are to have their turn, or the app or the client is behind."""
        end = monotonic() + fairness.SLICE
        while self._unread and self._keeps_up and not self.transport.is_closing():
            piece = bytes(self._unread[:PIECE])
            del self._unread[:PIECE]
            super().data_received(piece)
            answers = self.conn.data_to_send()  # to all the pings at once
            if answers and not self.transport.is_closing():
                self.transport.write(b"".join(answers))
            if self._unread and monotonic() >= end:
                self._ask_turn()
                break
        if self.transport.is_closing():
            self._unread.clear()
        self._blocked = bool(self._unread) or not self._keeps_up
        if self._blocked:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def _ask_turn(self) -> None:
        self._turn_asked = True
        fairness.later(self._take_turn)

    def _take_turn(self) -> None:
        self._turn_asked = False
        if not self.disconnected:
            self._take()

    def _read_on(self) -> None:
        """Go on in a turn of its own, if anything holds the client up."""
        if self._blocked and not self._turn_asked:
            self._ask_turn()

    def handle_ping(self) -> None:
        """Leave the answer to whoever has the piece parsed."""

    def handle_cont(self, event: Frame) -> None:
        """Take a fragment; all of a message are kept in one buffer, because they may be tiny, even empty."""
        if len(self.frames) != 1 or not isinstance(self.frames[0], bytearray):
            self.frames = [bytearray(b"".join(self.frames))]  # type: ignore[list-item]
        self.frames[0] += event.data
        if event.fin:
            self.frames = [bytes(self.frames[0])]
            self.send_receive_event_to_app()
