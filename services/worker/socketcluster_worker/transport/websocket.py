"""WebSocket connections (RFC 6455) as an asyncio protocol that takes over after the HTTP request was read."""

from __future__ import annotations

import asyncio
import contextlib
import logging as stdlib_logging
import os
import socket
from collections.abc import Sequence

from websockets.datastructures import Headers
from websockets.http11 import Request
from websockets.server import ServerProtocol

from socketcluster_runtime import logging
from socketcluster_wire import websocket as wire
from socketcluster_wire.close_codes import CloseCode
from socketcluster_worker.connection import Handshake, Outgoing, Receiver

log = logging.get_logger(__name__)

CLOSE_TIMEOUT = 5.0
"""Seconds that a client has to answer a close frame, and to take what was sent before it."""

_library_log = stdlib_logging.getLogger("websockets.server")
_library_log.setLevel(stdlib_logging.CRITICAL)  # its failed handshakes are the clients' doing


def end_for_all(transport: asyncio.BaseTransport) -> None:
    """Shut a connection down, so that it ends for its client though another process may hold its descriptor too."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as own:
        own.shutdown(socket.SHUT_RDWR)


class WebSocket(asyncio.Protocol):
    """One WebSocket connection; a ``Connection`` once it was accepted.

    Args:
        max_message_bytes: the largest message that is accepted.
        max_buffered_bytes: what may wait for a slow client before it is disconnected.
        opened: this worker's open WebSockets; the connection adds itself.
    """

    transport_name = "websocket"
    receiver: Receiver

    def __init__(self, *, max_message_bytes: int, max_buffered_bytes: int, opened: set[WebSocket]) -> None:
        self._reader = wire.FrameReader(max_message_bytes)
        self._max_message_bytes = max_message_bytes
        self._max_buffered = max_buffered_bytes
        self._opened = opened
        self._transport: asyncio.Transport
        self._accepted = False
        self._writable = False  # between the handshake and the close frame
        self._ended = False  # has the receiver been told?
        self._close: tuple[int, str] = (CloseCode.ABNORMAL, "")
        self._close_timer: asyncio.TimerHandle | None = None

    # The opening handshake.

    def accept(
        self,
        transport: asyncio.Transport,
        handshake: Handshake,
        raw_headers: Sequence[tuple[bytes, bytes]],
        extra_headers: Sequence[tuple[str, str]],
    ) -> bool:
        """Answer the opening handshake (RFC 6455, section 4.2); return whether the connection is open.

        If it is, the caller sets ``receiver`` before anything can arrive.
        """
        headers = Headers()
        for raw_name, raw_value in raw_headers:
            headers[raw_name.decode("latin-1")] = raw_value.decode("latin-1")
        server = ServerProtocol(max_size=self._max_message_bytes, logger=_library_log)
        response = server.accept(Request(handshake.path, headers))
        for name, value in extra_headers:
            response.headers[name] = value
        server.send_response(response)
        self._transport = transport
        transport.write(b"".join(server.data_to_send()))
        if response.status_code != 101:
            transport.close()
            return False
        self._accepted = self._writable = True
        self._opened.add(self)
        return True

    # What asyncio tells.

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client."""
        for event in self._reader.receive(data):
            if isinstance(event, str | bytes):
                if self._writable:
                    self.receiver.on_message(event)
            elif isinstance(event, wire.Ping):
                if self._writable:
                    self._write(wire.pong_frame(event.payload))
            elif isinstance(event, wire.CloseReceived):
                self._close_received(event)
            elif isinstance(event, wire.Violation):
                self.close(event.code, event.reason)
                self._finish()

    def eof_received(self) -> None:
        """Close: a WebSocket has no use for a half-open connection."""
        self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        """Learn that the TCP connection has ended."""
        self._opened.discard(self)
        self._writable = False
        end_for_all(self._transport)
        if self._close_timer is not None:
            self._close_timer.cancel()
        self._end()

    # What the layer above asks.

    @property
    def writable(self) -> bool:
        """Is nothing waiting to be sent?"""
        return self._writable and self._transport.get_write_buffer_size() == 0

    def send_text(self, text: bytes) -> None:
        """Send a text message."""
        if self._writable:
            self._write(wire.text_frame(text))

    def send_binary(self, data: bytes) -> None:
        """Send a binary message."""
        if self._writable:
            self._write(wire.binary_frame(data))

    def send_outgoing(self, outgoing: Outgoing) -> None:
        """Send a text message that goes to other clients too."""
        self.send_frame(outgoing.form(wire.text_frame))

    def send_frame(self, frame: bytes) -> None:
        """Send a whole frame that was made before."""
        if self._writable:
            self._write(frame)

    def close(self, code: int, reason: str = "") -> None:
        """Send a close frame and end; the receiver is told at once, with this code."""
        if not self._writable:
            return
        self._writable = False
        self._close = (code, reason)
        self._transport.write(wire.close_frame(code, reason))
        self._limit_close()
        self._end()

    def abort(self) -> None:
        """End at once, without a close frame."""
        self._transport.abort()

    def _write(self, frame: bytes) -> None:
        transport = self._transport
        transport.write(frame)
        if transport.get_write_buffer_size() > self._max_buffered:
            self._writable = False
            self._close = (CloseCode.TOO_SLOW, "too much is waiting for a client that does not read")
            log.info("a slow client was disconnected", waiting_bytes=transport.get_write_buffer_size())
            transport.abort()  # a close frame would only join the queue

    def _close_received(self, event: wire.CloseReceived) -> None:
        if self._writable:
            self._writable = False
            self._close = (event.code, event.reason)
            self._transport.write(wire.close_frame(event.code))
        self._finish()
        self._end()

    def _finish(self) -> None:
        """Close the TCP connection once the client has taken what was sent, but do not wait for ever."""
        self._limit_close()
        self._transport.close()

    def _limit_close(self) -> None:
        if self._close_timer is None:
            self._close_timer = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self._transport.abort)

    def _end(self) -> None:
        if self._accepted and not self._ended:
            self._ended = True
            self.receiver.on_close(*self._close)
