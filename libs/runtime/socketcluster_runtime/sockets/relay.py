"""Clients that another process serves, and whose socket it cannot be given: bytes are copied both ways."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

LINGER = 10.0
"""Seconds that a client gets to take what was sent to it, and to end, after the worker has ended; and the reverse, if
the client has gone."""


class Relay:
    """A client's and a worker's connection; what one sends the other receives, the end included.

    Args:
        ended: called when both connections are closed.
    """

    def __init__(self, ended: Callable[[Relay], object]) -> None:
        self._ended = ended
        self._worker = _End(self._lost, self._hurry)
        self._client = _End(self._lost, None)  # a worker may answer a client that sends no more as late as it likes
        self._worker.other, self._client.other = self._client, self._worker
        self._timer: asyncio.TimerHandle | None = None

    async def connect(self, host: str, port: int) -> None:
        """Connect to the worker.

        Raises:
            OSError: it cannot be reached.
        """
        await asyncio.get_running_loop().create_connection(lambda: self._worker, host, port)

    async def connect_unix(self, path: str) -> None:
        """Connect to a worker on this host, at its Unix socket.

        Raises:
            OSError: it cannot be reached.
        """
        await asyncio.get_running_loop().create_unix_connection(lambda: self._worker, path)

    async def ask(self, beginning: bytes) -> None:
        """Send the worker ``beginning`` before the client is there, and return when it has begun to answer.

        Raises:
            OSError: it has ended the connection without an answer.
        """
        self._worker.write(beginning)
        await self._worker.heard.wait()
        if not self._worker.early:
            raise ConnectionResetError("the worker gave no answer")

    async def start(self, client: socket.socket, beginning: bytes) -> None:
        """Send the worker ``beginning`` and copy from then on. The client's socket belongs to the relay now.

        Raises:
            OSError: the client has gone; the worker's connection is closed.
        """
        self._client.greeting = beginning
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: self._client, client)
        except BaseException:
            self.abort()
            raise
        if self._worker.lost:
            self._client.close()

    def adopt(self, client: asyncio.Transport, beginning: bytes) -> None:
        """Do what ``start`` does with a client that has a transport already, whose reading is paused."""
        self._client.greeting = beginning
        client.set_protocol(self._client)
        self._client.connection_made(client)
        if self._worker.lost:
            self._client.close()
        else:
            client.resume_reading()

    def close(self) -> None:
        """Close both connections when what was written to them has gone out, or after ``LINGER`` seconds."""
        self._hurry()
        self._worker.close()
        self._client.close()

    def abort(self) -> None:
        """Close both connections at once."""
        self._worker.abort()
        self._client.abort()

    def _lost(self, end: _End) -> None:
        other = end.other
        if other.lost:
            if self._timer is not None:
                self._timer.cancel()
            self._ended(self)
        elif other.made:
            other.close()
            self._hurry()

    def _hurry(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LINGER, self.abort)


class _End(asyncio.Protocol):
    """One of the two connections.

    While both are open, what one transport reads goes right into the other's ``write``, past this class.
    """

    other: _End

    def __init__(self, closed: Callable[[_End], object], ended: Callable[[], object] | None) -> None:
        self.early = b""
        """What came from here before the other end was there."""
        self.heard = asyncio.Event()
        """Set when that begins, or nothing can come any more."""
        self.greeting = b""
        """What the other end is sent before anything that comes from here."""
        self.lost = False
        self._closed = closed
        self._ended = ended
        self._transport: asyncio.Transport | None = None
        self._at_eof = False

    @property
    def made(self) -> bool:
        """Has it been open?"""
        return self._transport is not None

    @property
    def may_half_close(self) -> bool:
        """Can one direction end while the other goes on? Not with TLS."""
        return self._transport is None or self._transport.can_write_eof()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self.greeting:
            self.other.write(self.greeting)
        if self.other.early:
            self.write(self.other.early)
            self.other.resume_reading()
        if self.other._at_eof and not self.other.lost:
            self._end_here()
        if self.other.made and not self.other.lost:
            self._go_straight()
            self.other._go_straight()

    def data_received(self, data: bytes) -> None:
        if self.other.made:
            self.other.write(data)
            return
        self.early += data
        self.pause_reading()
        self.heard.set()

    def eof_received(self) -> bool:
        self._at_eof = True
        self.heard.set()
        if self._ended is not None:
            self._ended()
        if self.other._at_eof:
            self.close()
            self.other.close()
        else:
            self.other._end_here()
        return self.may_half_close  # if so, the other direction may go on

    def pause_writing(self) -> None:
        self.other.pause_reading()

    def resume_writing(self) -> None:
        self.other.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.heard.set()
        self.other._go_by_here()
        self._closed(self)

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def write_eof(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()

    def pause_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        """Close the connection when what was written to it has gone out."""
        self.other._go_by_here()
        if self._transport is not None:
            if self.may_half_close:
                self.write_eof()  # closing alone would not end it while a duplicate of the descriptor exists
            self._transport.close()

    def abort(self) -> None:
        self.other._go_by_here()
        if self._transport is not None:
            self._transport.abort()

    def _end_here(self) -> None:
        """Pass the other end's end on."""
        if self.may_half_close:
            self.write_eof()
        else:
            self.close()

    def _go_straight(self) -> None:
        to = self.other._transport
        if self._transport is not None and to is not None and not to.is_closing():
            self.data_received = to.write  # type: ignore[method-assign]
            self._transport.set_protocol(self)  # uvloop looks the method up only here

    def _go_by_here(self) -> None:
        """Look at each chunk whether the other connection still takes it."""
        if "data_received" in vars(self):
            del self.data_received
            if self._transport is not None:
                self._transport.set_protocol(self)
