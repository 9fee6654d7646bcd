"""Clients that there is no descriptor for."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from socketcluster_wire import http_response

ANSWER_TIME = 1.0
"""Seconds that a client has to ask, and then to take its answer."""

MAX_WAITED_FOR = 8
"""Clients that this is done for at a time, with descriptors of the reserve; others are answered unasked."""

_BODY = b"This worker has as many connections as it can have. Please try again in a moment.\n"
ANSWER = http_response.closing(
    503, "text/plain; charset=utf-8", _BODY, fields=[("Cache-Control", "no-store"), ("Retry-After", "1")]
)


class TurnedAway:
    """Answers connections 503, and has them end."""

    def __init__(self) -> None:
        self._adopting: set[asyncio.Task[None]] = set()
        self._open: set[_Asking] = set()

    def refuse(self, sock: socket.socket, at_once: bool) -> None:
        """Answer a connection; ``at_once``: its descriptor is the last one."""
        if at_once or len(self._open) >= MAX_WAITED_FOR:
            with sock, suppress(OSError):
                sock.send(ANSWER)
                sock.shutdown(socket.SHUT_WR)
                sock.recv(65_536)  # what is left unread would reset the connection
            return
        asking = _Asking(self._open.discard)
        self._open.add(asking)
        task = asyncio.get_running_loop().create_task(self._adopt(sock, asking))
        self._adopting.add(task)
        task.add_done_callback(self._adopting.discard)

    def close(self) -> None:
        """Close the connections that are still open."""
        for asking in tuple(self._open):
            asking.abort()

    async def _adopt(self, sock: socket.socket, asking: _Asking) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: asking, sock)
        except OSError:  # it has gone
            sock.close()
            self._open.discard(asking)


class _Asking(asyncio.Protocol):
    """A connection that is answered as soon as something has come: one that copies bytes may not be ready before."""

    def __init__(self, ended: Callable[[_Asking], object]) -> None:
        self._ended = ended
        self._answered = False
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._timer = asyncio.get_running_loop().call_later(ANSWER_TIME, self.abort)

    def data_received(self, data: bytes) -> None:
        if not self._answered and self._transport is not None:
            self._answered = True
            self._transport.write(ANSWER)
            self._transport.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(self)
        if self._timer is not None:
            self._timer.cancel()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
