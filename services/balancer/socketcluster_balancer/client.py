"""Accepted connections, from the accept until they are somebody else's.

A client's socket is never given to an event loop's transport here: whoever takes it over must find it as it was.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Protocol

from socketcluster_balancer import pages
from socketcluster_balancer.deadlines import Deadlines
from socketcluster_balancer.settings import BalancerSettings
from socketcluster_wire.errors import HeadTooLargeError, MalformedHeadError
from socketcluster_wire.request_head import RequestHead

if TYPE_CHECKING:
    from socketcluster_balancer.splice import Splice
    from socketcluster_balancer.workers import Worker

LINGER = 1.0
"""Seconds for which an answered client's bytes are read and dropped: a reset would take the answer away from it."""

GRACE = 1.0
"""Seconds that a client which has not yet sent its head gets when the balancer is asked to stop."""

_DISCARD_BYTES = 64 * 1024


class Client:
    """A connection that belongs to the balancer."""

    __slots__ = ("data", "head", "tried", "wait_until")

    secure: ClassVar[bool]
    """Did it come by TLS, which ends here?"""

    def __init__(self) -> None:
        self.data = b""
        """Everything read so far."""
        self.head: RequestHead | None = None
        """The first request, once its head has arrived."""
        self.tried: tuple[Worker, ...] = ()
        """The workers that could not take it over."""
        self.wait_until = 0.0
        """Loop time until which it waits for a worker; 0 if it never had to."""

    def addresses(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """Return its host and port, and those that it connected to.

        Raises:
            OSError: it has gone.
        """
        raise NotImplementedError

    async def go_on_in(self, splice: Splice, beginning: bytes) -> None:
        """Give its connection to a splice, which sends the worker ``beginning`` first.

        Raises:
            OSError: it has gone; the splice is aborted.
        """
        raise NotImplementedError


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


class Entrance(Protocol):
    """Where clients come from, and go back to if there is no worker for them."""

    def accept(self, sock: socket.socket) -> None:
        """Take a new connection in."""

    def answer(self, client: Client, status: int) -> None:
        """Answer a client that nobody reads from, and be rid of it."""

    def release(self, client: Client) -> None:
        """Close this process's descriptor of a client that is somebody else's now, or nobody's."""

    def forget(self, client: Client) -> None:
        """Stop counting a client whose connection belongs to somebody else in this process."""

    def hurry(self) -> None:
        """Shorten the time of clients that have not yet sent their head: the balancer is asked to stop."""

    async def idle(self) -> None:
        """Return when no client belongs to the balancer."""

    def close(self) -> None:
        """Close every client that still belongs to the balancer."""


class Reception:
    """Reads each client's first request head and passes the client on, or answers it itself."""

    def __init__(self, settings: BalancerSettings, complete: Callable[[Client], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._max_head_bytes = settings.max_head_bytes
        self._complete = complete
        self._clients: set[PlainClient] = set()
        self._reading: Deadlines[PlainClient] = Deadlines(settings.head_timeout, self._too_slow)
        self._leaving: Deadlines[PlainClient] = Deadlines(GRACE, self._too_slow)
        self._lingering: Deadlines[PlainClient] = Deadlines(LINGER, self._close_answered)
        self._idle = asyncio.Event()
        self._idle.set()

    def accept(self, sock: socket.socket) -> None:
        """Take a new connection in."""
        client = PlainClient(sock)
        self._clients.add(client)
        self._idle.clear()
        if self._read(client):
            return
        self._loop.add_reader(sock, self._readable, client)
        self._reading.add(client)

    def answer(self, client: Client, status: int) -> None:
        """Answer a client that no reader is registered for, and be rid of it."""
        assert isinstance(client, PlainClient)  # noqa: S101  # there are no others here
        try:
            client.sock.send(pages.answer(status, client.head))
            client.sock.shutdown(socket.SHUT_WR)
        except OSError:  # it has gone
            self.release(client)
            return
        self._loop.add_reader(client.sock, self._discard, client)
        self._lingering.add(client)

    def release(self, client: Client) -> None:
        """Close this process's descriptor of a client that is somebody else's now, or nobody's."""
        assert isinstance(client, PlainClient)  # noqa: S101  # there are no others here
        client.sock.close()
        self.forget(client)

    def forget(self, client: Client) -> None:
        """Stop counting a client whose socket belongs to somebody else in this process."""
        assert isinstance(client, PlainClient)  # noqa: S101  # there are no others here
        self._clients.discard(client)
        if not self._clients:
            self._idle.set()

    def hurry(self) -> None:
        """Shorten the time of clients that have not yet sent their head: the balancer is asked to stop."""
        for client in self._reading.pop_all():
            self._leaving.add(client)

    async def idle(self) -> None:
        """Return when no client belongs to the balancer."""
        await self._idle.wait()

    def close(self) -> None:
        """Close every client that still belongs to the balancer."""
        for deadlines in (self._reading, self._leaving, self._lingering):
            deadlines.close()
        for client in tuple(self._clients):
            self._loop.remove_reader(client.sock)
            self.release(client)

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
        try:
            client.head = RequestHead.parse(client.data, self._max_head_bytes)
        except MalformedHeadError:
            self._refuse(client, 400)
            return True
        except HeadTooLargeError:
            self._refuse(client, 431)
            return True
        if client.head is None:
            return False
        self._loop.remove_reader(client.sock)
        self._complete(client)
        return True

    def _refuse(self, client: PlainClient, status: int) -> None:
        self._loop.remove_reader(client.sock)
        self.answer(client, status)

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
