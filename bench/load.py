"""A load: many WebSocket connections, each with one request under way at a time."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ZERO_MASK = b"\0\0\0\0"  # a legal mask that costs the client nothing


@dataclass(frozen=True)
class Dialect:
    """What a client of one message protocol says.

    Attributes:
        path: where it connects.
        greetings: texts that it sends first.
        ready: what the server's last answer to them contains.
        request: makes the text of the n-th request.
        answers: what an answer to a request begins with; other messages are passed over.
    """

    path: str
    greetings: tuple[str, ...]
    ready: bytes
    request: Callable[[int], str]
    answers: bytes


def frame(text: str) -> bytes:
    """Return a short masked text frame."""
    payload = text.encode()
    return bytes((0x81, 0x80 | len(payload))) + ZERO_MASK + payload


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, dialect: Dialect, load: Load) -> None:
        self._dialect = dialect
        self._load = load
        self._transport: Any
        self._buffer = b""
        self._state = "http"
        self._number = 0

    def connection_made(self, transport: Any) -> None:
        """Ask for a WebSocket."""
        self._transport = transport
        transport.write(
            f"GET {self._dialect.path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        """Go on with the greeting, or take answers and send the next requests."""
        self._buffer += data
        if self._state == "http":
            head, separator, rest = self._buffer.partition(b"\r\n\r\n")
            if not separator:
                return
            if b" 101 " not in head:
                raise ConnectionError(head.decode())
            self._buffer, self._state = rest, "greeting"
            for text in self._dialect.greetings:
                self._transport.write(frame(text))
            if not self._dialect.greetings:
                self._begin()
        while (payload := self._next()) is not None:
            if self._state == "greeting":
                if self._dialect.ready in payload:
                    self._begin()
            elif payload.startswith(self._dialect.answers):
                self._load.answered += 1
                self._send()

    def _begin(self) -> None:
        self._state = "running"
        self._load.opened(self)

    def start(self) -> None:
        """Send the first request."""
        self._send()

    def _send(self) -> None:
        if self._load.running:
            self._number += 1
            self._transport.write(frame(self._dialect.request(self._number)))

    def _next(self) -> bytes | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        length, start = buffer[1], 2
        if length == 126:
            if len(buffer) < 4:
                return None
            length, start = int.from_bytes(buffer[2:4], "big"), 4
        if len(buffer) < start + length:
            return None
        self._buffer = buffer[start + length :]
        return buffer[start : start + length]


class Load:
    """Connections to one server.

    Attributes:
        answered: requests that were answered.
    """

    def __init__(self, port: int, dialect: Dialect, connections: int, tls: ssl.SSLContext | None = None) -> None:
        self.answered = 0
        self.running = True
        self._port = port
        self._dialect = dialect
        self._wanted = connections
        self._tls = tls
        self._clients: list[Client] = []
        self._all_open = asyncio.Event()

    def opened(self, client: Client) -> None:
        """Note that a connection is ready."""
        self._clients.append(client)
        if len(self._clients) == self._wanted:
            self._all_open.set()

    async def run(self, seconds: float, cpu: Callable[[], float]) -> tuple[float, float]:
        """Load the server; return its CPU seconds a request, and the requests a second."""
        loop = asyncio.get_running_loop()
        transports = [
            (await loop.create_connection(lambda: Client(self._dialect, self), "127.0.0.1", self._port, ssl=self._tls))[
                0
            ]
            for _ in range(self._wanted)
        ]
        await self._all_open.wait()
        for client in self._clients:
            client.start()
        await asyncio.sleep(1.0)  # warm
        answered, used, began = self.answered, cpu(), time.monotonic()
        await asyncio.sleep(seconds)
        answered, used, took = self.answered - answered, cpu() - used, time.monotonic() - began
        self.running = False
        for transport in transports:
            transport.abort()
        return used / answered, answered / took
