"""One connection of the load generator."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any

from bench.drive.dialects import Dialect
from socketcluster.bench import frames

IP_BIND_ADDRESS_NO_PORT = 24
"""Linux' option: the port is chosen when the connection is made, so each address has all of them for each server."""


def frame(text: str) -> bytes:
    """Return the frame of a message as a client sends it."""
    return frames.frame(text.encode())


class Client(asyncio.Protocol):
    """A WebSocket that speaks a dialect.

    Attributes:
        ready: done when the greeting is over.
        gone: has the connection ended?
        handler: gets each message but signs of life.
        number: of the last acknowledged event.
    """

    __slots__ = ("_closed", "_dialect", "_frames", "_head", "_state", "gone", "handler", "number", "ready", "transport")

    def __init__(self, dialect: Dialect, loop: asyncio.AbstractEventLoop) -> None:
        self._dialect = dialect
        self._frames = frames.Frames()
        self._head = b""
        self._state = "http"
        self._closed: Callable[[], None] | None = None
        self.ready: asyncio.Future[None] = loop.create_future()
        self.gone = False
        self.handler: Callable[[Client, bytes], None] = _ignore
        self.number = 1
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        """Ask for a WebSocket."""
        self.transport = transport
        transport.write(
            f"GET {self._dialect.path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        """Take each message that is there as a whole."""
        if self._state == "http":
            head, end, data = (self._head + data).partition(b"\r\n\r\n")
            self._head = b"" if end else head
            if not end:
                return
            if b" 101 " not in head:
                self._fail(ConnectionError(head.partition(b"\r\n")[0][:200].decode("latin-1")))
                return
            self._state = "greeting"
            for text in self._dialect.greetings:
                self.send(text)
            if not self._dialect.greetings:
                self._begin()
        for opcode, payload in self._frames.receive(data):
            self._take(opcode, payload)

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == frames.TEXT:
            for ping, pong in self._dialect.pings:
                if payload == ping:
                    self.send(pong)
                    return
            if self._state == "running":
                self.handler(self, payload)
            elif self._dialect.ready in payload:
                self._begin()
        elif opcode == frames.PING:
            self.transport.write(frames.frame(payload, frames.PONG))
        elif opcode == frames.CLOSE:
            self._fail(ConnectionError(f"the server closed: {payload[:2].hex()} {payload[2:]!r}"))
            self.transport.close()

    def send(self, text: str) -> None:
        """Send a message."""
        self.transport.write(frame(text))

    def _begin(self) -> None:
        self._state = "running"
        if not self.ready.done():
            self.ready.set_result(None)

    def _fail(self, error: Exception) -> None:
        if not self.ready.done():
            self.ready.set_exception(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note it."""
        self.gone = True
        self._fail(exc or ConnectionError("the server closed the connection"))
        if self._closed is not None:
            self._closed()

    def close(self, closed: Callable[[], None]) -> None:
        """End the connection; ``closed`` is called when it has ended."""
        if self.gone:
            closed()
        else:
            self._closed = closed
            self.transport.abort()


def _ignore(_client: Client, _payload: bytes) -> None:
    """Nobody wants it."""


async def connect(
    dialect: Dialect, port: int, source: str, tls: ssl.SSLContext | None = None, *, patience: float = 60.0
) -> Client:
    """Connect from an address to a port of 127.0.0.1, and greet.

    Raises:
        OSError: it failed, or took longer than ``patience`` seconds.
    """
    loop = asyncio.get_running_loop()
    client = Client(dialect, loop)
    sock = socket.socket()
    try:
        sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        sock.setblocking(False)
        sock.bind((source, 0))
        async with asyncio.timeout(patience):
            await loop.sock_connect(sock, ("127.0.0.1", port))
            await loop.create_connection(
                lambda: client, sock=sock, ssl=tls, server_hostname="127.0.0.1" if tls else None
            )
            await client.ready
    except BaseException:
        sock.close()
        if client.transport is not None:
            client.transport.abort()
        raise
    return client
