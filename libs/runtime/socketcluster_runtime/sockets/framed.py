"""Frames on a byte stream between services: each a kind, a length, and as many bytes.

Five bytes go before a frame: its kind, and its length as a big-endian number of 32 bits. What a side says last is a
frame ``END`` with the reason. While a receiver does not read, what is sent piles up at the sender, which has to ask
``writable`` before it makes more.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any

MAX_FRAME_BYTES = 64 * 1024 * 1024
"""The largest frame that is taken, unless ``max_bytes`` says less."""
WRITE_AHEAD = 1024 * 1024
"""Bytes that may wait to be sent before ``writable`` takes its time."""
END_TIMEOUT = 5.0
"""Seconds that the other side has to take what was sent before the end."""

READ_BYTES = 256 * 1024
"""What is read at a time by ``take_now``."""

_KEPT_ALIVE = (
    (socket.TCP_NODELAY, 1),
    (socket.TCP_KEEPIDLE, 10),
    (socket.TCP_KEEPINTVL, 5),
    (socket.TCP_KEEPCNT, 1),
    (socket.TCP_USER_TIMEOUT, 15_000),
)
"""A machine that is gone is noticed after 15 s, whether something was to be sent or not, as on gRPC's links."""
_HEAD = struct.Struct("!BI")
_HEAD_BYTES = _HEAD.size


class Kind(IntEnum):
    """What a frame is."""

    MESSAGE = 1
    END = 2
    """The stream's end, and why."""


class FrameError(Exception):
    """What the other side sent is no frame, or one that is too large."""


class FramedStream(asyncio.Protocol):
    """One end of a stream.

    Args:
        received: is given each message, in order, with the turn of the event loop in which it came.
        ended: is called once, when nothing comes any more, with what the other side said last; ``None``: nothing.
        lost: is called once, when nothing is sent any more either, and the connection is closed.
        max_bytes: the largest frame that is taken; the attribute may be set at any time.
    """

    def __init__(
        self,
        received: Callable[[bytes], None],
        ended: Callable[[bytes | None], None],
        lost: Callable[[], None] = lambda: None,
        max_bytes: int = MAX_FRAME_BYTES,
    ) -> None:
        self.received = received
        self.max_bytes = max_bytes
        self.begun: Callable[[], None] | None = None
        """Called once it is connected."""
        self.descriptor = -1
        """Of its connection, while that is open and without TLS."""
        self.error: FrameError | None = None
        """What was wrong with what came, if that ended the stream."""
        self._ended = ended
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._needed = _HEAD_BYTES
        self._reason: bytes | None = None
        self._over = False
        self._taking = False  # are messages being handed on?
        self._writable: asyncio.Future[None] | None = None  # while too much waits to be sent
        self._patience: asyncio.TimerHandle | None = None  # while the end is sent

    @property
    def connected(self) -> bool:
        """Has it a connection, be it one that ends?"""
        return self._transport is not None

    @property
    def open(self) -> bool:
        """Is it connected, and goes on?"""
        return self._transport is not None and not self._over

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self._transport = transport
        if self._over:  # it was given up while it was connected
            transport.abort()
            return
        transport.set_write_buffer_limits(WRITE_AHEAD)
        connection = transport.get_extra_info("socket")
        if connection is not None and transport.get_extra_info("sslcontext") is None:
            self.descriptor = connection.fileno()
        if connection is not None and connection.family != socket.AF_UNIX:
            for option, value in _KEPT_ALIVE:
                connection.setsockopt(socket.IPPROTO_TCP, option, value)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if self.begun is not None:
            self.begun()

    def data_received(self, data: bytes) -> None:
        """Take what came, and hand the messages on that are whole."""
        self._taking = True
        try:
            self._take(data)
        finally:
            self._taking = False

    def take_now(self) -> None:
        """Hand on what has come and the loop has not been told of yet; not while a message is being handed on."""
        while not self._taking and self.descriptor >= 0:
            try:
                data = os.read(self.descriptor, READ_BYTES)
            except OSError:  # nothing is there, or the loop learns what is wrong
                return
            if data:
                self.data_received(data)
            if len(data) < READ_BYTES:
                return

    def _take(self, data: bytes) -> None:
        if self._over:
            return
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._needed:
                return
            data = bytes(self._buffer)
            self._buffer.clear()
        position, end = 0, len(data)
        self._needed = _HEAD_BYTES
        while end - position >= _HEAD_BYTES:
            kind, length = _HEAD.unpack_from(data, position)
            if length > self.max_bytes or kind not in (Kind.MESSAGE, Kind.END):
                self.error = FrameError(f"a frame of kind {kind} and {length} bytes")
                self.abort()
                return
            start = position + _HEAD_BYTES
            if end - start < length:
                self._needed = _HEAD_BYTES + length
                break
            position = start + length
            if kind == Kind.END:
                self._reason = data[start:position]
                self.abort()
                return
            self.received(data[start:position])
            if self._over:
                return
        if position < end:
            self._buffer += data[position:]

    def eof_received(self) -> bool:
        """End: nobody speaks to a side that listens no more."""
        return False

    def pause_writing(self) -> None:
        """Have senders wait."""
        if self._writable is None and not self._over:
            self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """Have senders go on."""
        if self._writable is not None:
            if not self._writable.done():
                self._writable.set_result(None)
            self._writable = None

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        if not self._over:
            self._stop()
        if self._patience is not None:
            self._patience.cancel()
        self._transport = None
        self._lost()

    def send(self, message: bytes) -> None:
        """Send a message; nothing happens if the stream has ended."""
        if not self._over and self._transport is not None:
            self._transport.write(_HEAD.pack(Kind.MESSAGE, len(message)) + message)

    def send_now(self, messages: Sequence[bytes]) -> None:
        """Send messages before this returns, if the kernel takes them: so ahead of what other connections are sent."""
        if self._over or self._transport is None:
            return
        data = b"".join([part for message in messages for part in (_HEAD.pack(Kind.MESSAGE, len(message)), message)])
        if self.descriptor >= 0 and not self._transport.get_write_buffer_size():
            try:
                sent = os.write(self.descriptor, data)
            except BlockingIOError:
                sent = 0
            except OSError:  # the transport is told by its next event
                return
            if sent == len(data):
                return
            data = data[sent:]
        self._transport.write(data)

    @property
    def waiting(self) -> int:
        """How many bytes wait to be sent."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    @property
    def peer(self) -> str:
        """Where the other side is, as gRPC says it: ``ipv4:host:port``, ``ipv6:[host]:port``, ``unix:``."""
        address = None if self._transport is None else self._transport.get_extra_info("peername")
        if not isinstance(address, tuple):
            return "unix:"
        host, port = address[:2]
        return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"

    @property
    def writable(self) -> asyncio.Future[None] | None:
        """Done when more is to be sent, or the stream has ended; ``None``: now."""
        return self._writable

    def pause_reading(self) -> None:
        """Have the other side wait."""
        if self._transport is not None and not self._over:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Have it go on."""
        if self._transport is not None and not self._over:
            self._transport.resume_reading()

    def end(self, reason: bytes) -> None:
        """Say why the stream ends, and end it; the other side has ``END_TIMEOUT`` to take what was sent before."""
        if not self._over and self._transport is not None:
            self._transport.write(_HEAD.pack(Kind.END, len(reason)) + reason)
            self._patience = asyncio.get_running_loop().call_later(END_TIMEOUT, self.abort)
            self._transport.close()
            self._stop()

    def abort(self) -> None:
        """End at once, without what waits to be sent."""
        if not self._over:
            self._stop()
        if self._transport is not None:
            self._transport.abort()

    def _stop(self) -> None:
        self._over = True
        self.descriptor = -1
        self._buffer.clear()
        self.resume_writing()
        self._ended(self._reason)
