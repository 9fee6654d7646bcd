"""Where framed streams come in: of those of whom nobody knows yet who they are there is a bounded number."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from functools import partial

from socketcluster_runtime.logs.logging import get_logger
from socketcluster_runtime.sockets.accepting import Acceptor
from socketcluster_runtime.sockets.capacity import Room
from socketcluster_runtime.sockets.framed import FramedStream

log = get_logger(__name__)

BACKLOG = 1024
"""Connections that may wait to be accepted: all workers come at once when a service starts."""
MAX_STRANGERS = 256
"""Connections of which nobody knows yet whose they are; whoever comes then takes the place of the first."""


class Entrance:
    """Accepts connections at a socket.

    Args:
        sock: listens.
        came: returns the stream for a connection; it is to be named to ``left`` as soon as it has ended.
        room: told when there is no descriptor for one.
        context: what connections are secured with.
        patience: seconds that a handshake of TLS may take.
    """

    def __init__(
        self,
        sock: socket.socket,
        came: Callable[[], FramedStream],
        room: Room,
        *,
        context: ssl.SSLContext | None,
        patience: float,
    ) -> None:
        self._came = came
        self._context = context
        self._patience = None if context is None else patience
        self._strangers: dict[FramedStream, asyncio.Task[object]] = {}
        self._adopting: set[asyncio.Task[object]] = set()
        self._acceptor = Acceptor(sock, self._accepted, room, of_clients=False)
        self._acceptor.start()

    def known(self, stream: FramedStream) -> None:
        """Note that it is known whose a stream is."""
        self._strangers.pop(stream, None)

    def left(self, stream: FramedStream) -> None:
        """Note that a stream has ended."""
        adopting = self._strangers.pop(stream, None)
        if adopting is not None and not stream.connected:
            adopting.cancel()  # it is in the handshake of TLS, and has nothing yet that it could close

    def close(self) -> None:
        """Accept nothing more, and end the streams of strangers."""
        self._acceptor.close()
        for stream in tuple(self._strangers):
            self._turn_out(stream)

    def _accepted(self, sock: socket.socket, _address: object) -> None:
        while len(self._strangers) >= MAX_STRANGERS:
            self._turn_out(next(iter(self._strangers)))
        stream = self._came()
        adopting: asyncio.Task[object] = asyncio.create_task(self._adopt(stream, sock))
        self._strangers[stream] = adopting
        self._adopting.add(adopting)
        adopting.add_done_callback(partial(self._adopted, stream, sock))

    async def _adopt(self, stream: FramedStream, sock: socket.socket) -> None:
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: stream, sock, ssl=self._context, ssl_handshake_timeout=self._patience
        )

    def _adopted(self, stream: FramedStream, sock: socket.socket, task: asyncio.Task[object]) -> None:
        self._adopting.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None and not task.cancelled():
            return
        log.debug("a stream was not accepted", error=str(error or "nobody waits for it any more"))
        sock.close()
        stream.connection_lost(None)

    def _turn_out(self, stream: FramedStream) -> None:
        self.left(stream)
        stream.abort()


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens at a host; ``::`` stands for all addresses of both kinds.

    Raises:
        OSError: somebody else listens there, this process may not, or there is no such host.
    """
    family, _, _, _, name = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    is_dual = family == socket.AF_INET6 and name[0] == "::" and socket.has_dualstack_ipv6()
    return socket.create_server(name, family=family, backlog=BACKLOG, dualstack_ipv6=is_dual)
