"""Clients that come by TLS, from the accept until their bytes are copied to a worker: handover is for plain ones."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import cast

from socketcluster_balancer import pages
from socketcluster_balancer.client import GRACE, LINGER, Client
from socketcluster_balancer.deadlines import Deadlines
from socketcluster_balancer.settings import BalancerSettings
from socketcluster_balancer.splice import Splice
from socketcluster_balancer.throttle import Throttle
from socketcluster_runtime.logging import get_logger
from socketcluster_wire.errors import HeadTooLargeError, MalformedHeadError
from socketcluster_wire.request_head import RequestHead

log = get_logger(__name__)


class SecureClient(Client, asyncio.Protocol):
    """A connection whose TLS ends here; what arrives is plain."""

    __slots__ = ("_reception", "answered", "lost", "transport")

    secure = True

    def __init__(self, reception: SecureReception) -> None:
        super().__init__()
        self._reception = reception
        self.transport: asyncio.Transport | None = None
        """``None`` until the handshake is done."""
        self.lost = False
        self.answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.answered:
            return
        self.data += data
        if self.head is None:
            self._reception.read(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._reception.gone(self)

    def addresses(self) -> tuple[tuple[str, int], tuple[str, int]]:
        if self.transport is None or self.lost:
            raise ConnectionResetError
        get = self.transport.get_extra_info
        return get("peername")[:2], get("sockname")[:2]

    async def go_on_in(self, splice: Splice, beginning: bytes) -> None:
        if self.transport is None or self.lost or self.transport.is_closing():
            splice.abort()
            raise ConnectionResetError
        splice.adopt(self.transport, beginning)


class SecureReception:
    """Makes each client's TLS handshake, reads its first request head and passes it on, or answers it itself."""

    def __init__(
        self, settings: BalancerSettings, context: ssl.SSLContext, complete: Callable[[Client], object]
    ) -> None:
        self.context = context
        """What handshakes from now on are made with."""
        self._loop = asyncio.get_running_loop()
        self._max_head_bytes = settings.max_head_bytes
        self._head_timeout = settings.head_timeout
        self._complete = complete
        self._clients: set[SecureClient] = set()
        self._handshakes: dict[SecureClient, asyncio.Task[None]] = {}
        self._reading: Deadlines[SecureClient] = Deadlines(settings.head_timeout, self._too_slow)
        self._leaving: Deadlines[SecureClient] = Deadlines(GRACE, self._too_slow)
        self._lingering: Deadlines[SecureClient] = Deadlines(LINGER, self._abort)
        self._failed = Throttle(lambda count: log.info("TLS handshakes failed", clients=count))
        self._idle = asyncio.Event()
        self._idle.set()

    def accept(self, sock: socket.socket) -> None:
        """Take a new connection in."""
        client = SecureClient(self)
        self._clients.add(client)
        self._idle.clear()
        self._reading.add(client)
        task = self._loop.create_task(self._handshake(client, sock))
        self._handshakes[client] = task
        task.add_done_callback(lambda _task: self._handshakes.pop(client, None))

    def read(self, client: SecureClient) -> None:
        """Look whether the client's head is complete."""
        try:
            client.head = RequestHead.parse(client.data, self._max_head_bytes)
        except MalformedHeadError:
            self.answer(client, 400)
            return
        except HeadTooLargeError:
            self.answer(client, 431)
            return
        if client.head is not None and client.transport is not None:
            self._reading.discard(client)
            self._leaving.discard(client)
            client.transport.pause_reading()  # what comes now is for the worker
            self._complete(client)

    def answer(self, client: Client, status: int) -> None:
        """Answer a client and be rid of it."""
        assert isinstance(client, SecureClient)  # noqa: S101  # there are no others here
        self._reading.discard(client)
        self._leaving.discard(client)
        if client.transport is None or client.lost:
            self.release(client)
            return
        client.answered = True
        client.transport.write(pages.answer(status, client.head))
        client.transport.close()
        self._lingering.add(client)

    def release(self, client: Client) -> None:
        """Close a client that is nobody's."""
        assert isinstance(client, SecureClient)  # noqa: S101  # there are no others here
        if client.transport is not None:
            client.transport.abort()
        self.forget(client)

    def forget(self, client: Client) -> None:
        """Stop counting a client who is somebody else's now."""
        assert isinstance(client, SecureClient)  # noqa: S101  # there are no others here
        self._reading.discard(client)
        self._leaving.discard(client)
        self._lingering.discard(client)
        self._clients.discard(client)
        if not self._clients:
            self._idle.set()

    def gone(self, client: SecureClient) -> None:
        """Learn that a client's connection has ended."""
        if client.head is None or client.answered:  # else whoever places it finds out
            self.forget(client)

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
        for task in tuple(self._handshakes.values()):
            task.cancel()
        for client in tuple(self._clients):
            self.release(client)
        self._failed.close()

    async def _handshake(self, client: SecureClient, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                lambda: client,
                sock,
                ssl=self.context,
                ssl_handshake_timeout=self._head_timeout,
                ssl_shutdown_timeout=LINGER,
            )
        except (OSError, ssl.SSLError):  # a TimeoutError is one; a client without TLS, a scanner, one that has gone
            self._failed.add()
            sock.close()
            self.forget(client)

    def _too_slow(self, client: SecureClient) -> None:
        if client.data:
            self.answer(client, 408)
        elif (task := self._handshakes.get(client)) is not None:
            task.cancel()
            self.forget(client)
        else:
            self.release(client)

    def _abort(self, client: SecureClient) -> None:
        self.release(client)
