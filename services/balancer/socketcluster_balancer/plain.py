"""Clients without TLS, whose sockets are handed over.

A client's socket is never given to an event loop's transport here: whoever takes it over must find it as it was.
"""

from __future__ import annotations

import socket

from socketcluster_balancer.client import Client
from socketcluster_balancer.reception import Reception
from socketcluster_balancer.splice import Splice

_DISCARD_BYTES = 64 * 1024


class PlainClient(Client):
    """A connection without TLS."""

    __slots__ = ("sock",)

    secure = False

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self.sock = sock
        """Non-blocking."""

    def addresses(self) -> tuple[tuple[str, int], tuple[str, int]]:
        return self.sock.getpeername()[:2], self.sock.getsockname()[:2]

    async def go_on_in(self, splice: Splice, beginning: bytes) -> None:
        await splice.start(self.sock, beginning)


class PlainReception(Reception[PlainClient]):
    """Reads from sockets, those of answered clients too: unread bytes would make of the close a reset."""

    def accept(self, sock: socket.socket) -> None:
        client = PlainClient(sock)
        self._take_in(client)
        if self._read(client):
            return
        self._loop.add_reader(sock, self._readable, client)
        self._reading.add(client)

    def respond(self, client: PlainClient, response: bytes) -> None:
        try:
            client.sock.send(response)
            client.sock.shutdown(socket.SHUT_WR)
        except OSError:  # it has gone
            self.release(client)
            return
        self._loop.add_reader(client.sock, self._discard, client)
        self._lingering.add(client)

    def release(self, client: PlainClient) -> None:
        client.sock.close()
        self.forget(client)

    def _readable(self, client: PlainClient) -> None:
        if self._read(client):
            self._reading.discard(client)
            self._leaving.discard(client)

    def _read(self, client: PlainClient) -> bool:
        """Read what is there; return whether reading is over, for whatever reason."""
        try:
            data = client.sock.recv(self._max_head_bytes - len(client.data))
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:  # it has gone
            data = b""
        if not data:
            self._loop.remove_reader(client.sock)
            self.release(client)
            return True
        client.data = client.data + data if client.data else data
        if status := self._look_for_head(client):
            self._loop.remove_reader(client.sock)
            self.answer(client, status)
            return True
        if client.head is None:
            return False
        self._loop.remove_reader(client.sock)
        self._complete(client)
        return True

    def _too_slow(self, client: PlainClient) -> None:
        self._loop.remove_reader(client.sock)
        if client.data:
            self.answer(client, 408)
        else:  # a connection opened in advance, which waits for no answer
            self.release(client)

    def _discard(self, client: PlainClient) -> None:
        try:
            if client.sock.recv(_DISCARD_BYTES):
                return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            pass  # reset: the same as closed
        self._lingering.discard(client)
        self._close_answered(client)

    def _close_answered(self, client: PlainClient) -> None:
        self._loop.remove_reader(client.sock)
        self.release(client)
