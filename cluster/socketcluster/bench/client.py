"""One connection: its WebSocket, its protocol's greeting, and what is on its way on it."""

from __future__ import annotations

import asyncio
from time import monotonic_ns
from typing import Any, Protocol

from socketcluster.bench import frames
from socketcluster.bench.dialects import Dialect, due_of

MAX_HEAD = 64 * 1024
"""Bytes of an answer's head, before it is taken for no HTTP."""


class Observer(Protocol):
    """Who is told what becomes of a client."""

    def answered(self, client: Client, due: int, error: str) -> None:
        """A message that was due at a time has its answer, or is known to get none."""

    def delivered(self, due: int) -> None:
        """A broadcast has come that was due at a time."""

    def ended(self, client: Client, reason: str) -> None:
        """A connection that was ready has ended, and not by ``close``."""


class RefusedError(ConnectionError):
    """The server did not let the client in; the text says how, for :mod:`advice`."""


class Client(asyncio.Protocol):
    """A connection.

    Args:
        dialect: what it speaks.
        request: for the WebSocket.
        key: the one in it.
        observer: is told what becomes of it.
    """

    __slots__ = (
        "_accept",
        "_dialect",
        "_frames",
        "_head",
        "_number",
        "_observer",
        "_request",
        "_transport",
        "entered",
        "pending",
    )

    def __init__(self, dialect: Dialect, request: bytes, key: str, observer: Observer) -> None:
        self.entered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the server has let it in."""
        self.pending: dict[int, int] = {}
        """Messages without an answer, by number: when each was due."""
        self._dialect = dialect
        self._request = request
        self._accept = frames.accept_of(key).encode()
        self._observer: Observer | None = observer
        self._head: bytes | None = b""
        self._frames = frames.Frames()
        self._number = 1  # the handshake's
        self._transport: Any = None

    # What the transport tells.

    def connection_made(self, transport: Any) -> None:
        """Ask for a WebSocket."""
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Take what the server says."""
        if self._head is not None:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                if len(self._head) > MAX_HEAD or not self._head.startswith(b"HTTP/1."[: len(self._head)]):
                    self.refused("no HTTP")
                return
            self._head = None
            status = head.split(b" ", 2)[1:2]
            if status != [b"101"]:
                named = status[0].decode("latin-1") if status else "?"
                self.refused(f"HTTP {named} {_body(data)}".strip())
                return
            if self._accept not in head:
                self.refused("no WebSocket: the answer has no right Sec-WebSocket-Accept")
                return
            for opening in self._dialect.opening:
                self.send(opening)
            self._dialect.opened(self)
        for opcode, payload in self._frames.receive(data):
            if opcode <= frames.BINARY:
                self._dialect.take(self, payload)
            elif opcode == frames.PING:
                self._transport.write(frames.frame(payload, frames.PONG))
            elif opcode == frames.CLOSE:
                code = int.from_bytes(payload[:2], "big") if payload else 1005
                self.refused(f"closed with {code} {payload[2:].decode(errors='replace')}".strip())
                return

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell why."""
        self._end("the connection was reset" if exc else "the connection was closed")

    # What the dialect tells.

    def send(self, payload: bytes) -> None:
        """Send a text."""
        self._transport.write(frames.frame(payload))

    def ready(self) -> None:
        """Be let in."""
        if not self.entered.done():
            self.entered.set_result(None)

    def refused(self, reason: str) -> None:
        """Be thrown out."""
        self._end(reason)
        self._transport.abort()

    def answered(self, number: int | None, error: str = "") -> None:
        """Take an answer."""
        if number is None:
            number = next(iter(self.pending), None)
        due = None if number is None else self.pending.pop(number, None)
        if due is not None and self._observer is not None:
            self._observer.answered(self, due, error)

    def delivered(self, payload: bytes) -> None:
        """Take what may be a broadcast."""
        due = due_of(payload)
        if due is not None and self._observer is not None:
            self._observer.delivered(due)

    # What modes ask for.

    def call(self, text: str, due: int) -> None:
        """Send a message that is to be answered."""
        self.send(self._dialect.call(self._expect(due), text))

    def join(self) -> None:
        """Become a member."""
        self.send(self._dialect.join(self._expect(monotonic_ns())))

    def publish(self, text: str, due: int) -> None:
        """Send to all members."""
        number = self._expect(due)
        self.send(self._dialect.publish(number, text))
        if not self._dialect.acknowledges_publications:
            self.answered(number)

    def close(self) -> None:
        """End the connection, and tell nobody."""
        self._observer = None
        if self._transport is not None:
            self._transport.abort()

    def _expect(self, due: int) -> int:
        self._number += 1
        self.pending[self._number] = due
        return self._number

    def _end(self, reason: str) -> None:
        observer, self._observer = self._observer, None
        if not self.entered.done():
            self.entered.set_exception(RefusedError(reason))
        elif observer is not None and not self.entered.cancelled() and self.entered.exception() is None:
            observer.ended(self, reason)


def _body(data: bytes) -> str:
    """Return the first line of an answer's body, if it is a text that says something."""
    line = data.strip().split(b"\n", 1)[0][:200].decode("latin-1").strip()
    return "" if line.startswith("<") else line
