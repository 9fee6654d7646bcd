"""Clients that come by TLS, from the accept until their bytes are copied to a worker: handover is for plain ones."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import cast

from socketcluster_balancer.counters import BalancerCounters
from socketcluster_balancer.entrance import responses
from socketcluster_balancer.entrance.certificate import ServerCertificate
from socketcluster_balancer.entrance.client import Client
from socketcluster_balancer.entrance.limits import Limits
from socketcluster_balancer.entrance.reception import LINGER, Reception
from socketcluster_balancer.settings import BalancerSettings
from socketcluster_runtime.logs.logging import get_logger
from socketcluster_runtime.logs.throttle import Throttle
from socketcluster_runtime.sockets.relay import Relay
from socketcluster_runtime.trusted_proxies import TrustedProxies
from socketcluster_wire.proxy_protocol import ProxyHeader

log = get_logger(__name__)


MAX_DISCARDED = 256 * 1024
"""Bytes of a client without TLS that are read and dropped; the kernel holds up what it sends beyond them."""


class SecureClient(Client, asyncio.Protocol):
    """A connection whose TLS ends here; what arrives is plain."""

    __slots__ = ("_discarded", "_reception", "answered", "lost", "transport")

    ends_tls = True

    def __init__(self, reception: SecureReception, header: ProxyHeader | None, key: bytes) -> None:
        super().__init__(header, key)
        self._reception = reception
        self.transport: asyncio.Transport | None = None
        """``None`` until the handshake is done."""
        self.lost = False
        self.answered = False
        self._discarded = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.answered:
            self._discarded += len(data)
            if self._discarded > MAX_DISCARDED and self.transport is not None and not self.transport.is_closing():
                self.transport.pause_reading()
            return
        known = len(self.data)
        self.data += data
        if self.head is None:
            self._reception.read(self, known)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._reception.gone(self)

    def _socket_addresses(self) -> tuple[tuple[str, int], tuple[str, int]]:
        if self.transport is None or self.lost:
            raise ConnectionResetError
        get = self.transport.get_extra_info
        return get("peername")[:2], get("sockname")[:2]

    async def go_on_in(self, relay: Relay, beginning: bytes) -> None:
        if self.transport is None or self.lost or self.transport.is_closing():
            relay.abort()
            raise ConnectionResetError
        relay.adopt(self.transport, beginning)


class SecureReception(Reception[SecureClient]):
    """Makes each client's TLS handshake first."""

    def __init__(
        self,
        settings: BalancerSettings,
        limits: Limits,
        counters: BalancerCounters,
        proxies: TrustedProxies,
        certificate: ServerCertificate,
    ) -> None:
        super().__init__(settings, limits, counters, proxies)
        self._certificate = certificate
        self._handshake_timeout = settings.first_byte_timeout
        self._handshakes: dict[SecureClient, asyncio.Task[None]] = {}
        self._failed = Throttle(lambda count: log.info("TLS handshakes failed", clients=count))
        self._plain = Throttle(lambda count: log.info("plain HTTP at the port of HTTPS: answered 400", clients=count))

    def accept(self, sock: socket.socket, host: str, header: ProxyHeader | None) -> None:
        key = self._key(host)
        if self._admit(key) is not None:
            sock.close()  # an answer would cost a handshake
            return
        client = SecureClient(self, header, key)
        self._take_in(client)
        self._silent.add(client)
        task = self._loop.create_task(self._handshake(client, sock))
        self._handshakes[client] = task
        task.add_done_callback(lambda _task: self._handshakes.pop(client, None))

    def read(self, client: SecureClient, known: int) -> None:
        """Look whether the client's head is complete, of which ``known`` bytes were looked at before."""
        if not known:
            self._silent.discard(client)
        if status := self._look_for_head(client, known):
            self.answer(client, status)
            return
        if client.head is not None and client.transport is not None:
            self._reading.discard(client)
            self._leaving.discard(client)
            client.transport.pause_reading()  # what comes now is for the worker
            self._complete(client)
        elif not known and client not in self._leaving:
            self._reading.add(client)

    def respond(self, client: SecureClient, response: bytes) -> None:
        self._reading.discard(client)
        self._leaving.discard(client)
        if client.transport is None or client.lost:
            self.release(client)
            return
        client.answered = True
        client.transport.write(response)
        client.transport.close()
        self._lingering.add(client)

    def release(self, client: SecureClient) -> None:
        if client.transport is not None:
            client.transport.abort()
        self._ended(client)

    def gone(self, client: SecureClient) -> None:
        """Learn that a client's connection has ended."""
        if client.head is None or client.answered:  # else whoever places it finds out
            self._ended(client)

    def close(self) -> None:
        for task in tuple(self._handshakes.values()):
            task.cancel()
        super().close()
        self._failed.close()
        self._plain.close()

    async def _handshake(self, client: SecureClient, sock: socket.socket) -> None:
        try:
            if await self._speaks_plainly(sock):
                await self._tell_of_https(client, sock)
                return
            await self._loop.connect_accepted_socket(
                lambda: client,
                sock,
                ssl=self._certificate.context,
                ssl_handshake_timeout=self._handshake_timeout,
                ssl_shutdown_timeout=LINGER,
            )
        except (OSError, ssl.SSLError):  # a TimeoutError is one; a client without TLS, a scanner, one that has gone
            self._failed.add()
            self._counters.refused["tls_handshake"] += 1
            sock.close()
            self._ended(client)

    async def _speaks_plainly(self, sock: socket.socket) -> bool:
        """Wait for a client's first byte, and leave it there: one that is a letter begins a request, and never TLS."""
        while True:
            try:
                return sock.recv(1, socket.MSG_PEEK).isalpha()
            except (BlockingIOError, InterruptedError):
                readable = self._loop.create_future()
            self._loop.add_reader(sock, _resolve, readable)
            try:
                await readable
            except asyncio.CancelledError:
                sock.close()
                raise
            finally:
                self._loop.remove_reader(sock)

    async def _tell_of_https(self, client: SecureClient, sock: socket.socket) -> None:
        self._plain.add()
        self._counters.refused["plain_http"] += 1
        self._silent.discard(client)
        self._leaving.discard(client)
        client.answered = True
        self._lingering.add(client)
        with suppress(OSError):
            await self._loop.connect_accepted_socket(lambda: client, sock)
        if client.transport is None:
            sock.close()
            self._ended(client)
        elif not client.lost:
            client.transport.write(responses.plain_http())
            client.transport.write_eof()  # closed at once, what it still sends would make of the end a reset

    def _hurry_away(self, client: SecureClient) -> None:
        if client.data:
            self.answer(client, 408)
        elif (task := self._handshakes.get(client)) is not None:
            task.cancel()
            self._ended(client)
        else:
            self.release(client)

    def _close_answered(self, client: SecureClient) -> None:
        self.release(client)


def _resolve(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)
