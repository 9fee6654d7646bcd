"""Load balancers in front of this one: they say by the PROXY protocol who each client is."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

from socketcluster_balancer.counters import BalancerCounters
from socketcluster_balancer.entrance.deadlines import DeadlineQueue
from socketcluster_balancer.settings import BalancerSettings
from socketcluster_runtime.logs.logging import get_logger
from socketcluster_runtime.logs.throttle import Throttle
from socketcluster_runtime.networks import AddressSet
from socketcluster_runtime.secrets.keys import Purpose, derive_key
from socketcluster_wire import proxy_protocol
from socketcluster_wire.errors import ProxyError
from socketcluster_wire.proxy_protocol import ProxyHeader

log = get_logger(__name__)

Accept = Callable[[socket.socket, str, ProxyHeader | None], object]


class ProxyEntrance:
    """Stands between the listener and the reception: reads the header of each connection from a trusted proxy.

    Of the socket it reads the header alone, to the byte: behind it comes TLS, or a request.

    Args:
        settings: the balancer's.
        counters: the balancer's.
        trusted: the addresses of those proxies.
        accept: is given each connection, its client's address, and the header that was in front of it, if the peer is a
            trusted proxy.
    """

    def __init__(
        self, settings: BalancerSettings, counters: BalancerCounters, trusted: AddressSet, accept: Accept
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._counters = counters
        self._trusted = trusted
        self._key = derive_key(settings.shared_secret(), Purpose.PROXY_HEADERS)
        self._pass_on = accept
        self._received: dict[socket.socket, tuple[str, bytes]] = {}
        """By connection, the peer's address, and as much of its header as was read."""
        self._deadlines: DeadlineQueue[socket.socket] = DeadlineQueue(settings.head_timeout, self._too_slow)
        self._idle = asyncio.Event()
        self._idle.set()
        self._refused = Throttle(
            lambda count: log.warning(
                "connections from trusted proxies without a proper PROXY header were closed",
                connections=count,
                reason=self._refused.last,
                settings="trusted_proxies, proxy_headers",
            )
        )

    def accept(self, sock: socket.socket, host: str) -> None:
        """Take a new connection in, which comes from the address ``host``."""
        if not self._trusted or host not in self._trusted:
            self._pass_on(sock, host, None)
            return
        self._received[sock] = host, b""
        self._idle.clear()
        if not self._read(sock):
            self._loop.add_reader(sock, self._readable, sock)
            self._deadlines.add(sock)

    async def drain(self, timeout: float) -> None:
        """Take no more headers in after ``timeout`` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        for sock in tuple(self._received):
            self._close(sock)
        self._deadlines.close()
        self._refused.close()

    def _readable(self, sock: socket.socket) -> None:
        if sock in self._received:
            self._read(sock)

    def _read(self, sock: socket.socket) -> bool:
        """Read what there is of the header; return whether reading is over, for whatever reason."""
        host, before = self._received[sock]
        try:
            data = sock.recv(proxy_protocol.MAX_HEADER_BYTES, socket.MSG_PEEK)
            if not data:
                self._refuse(sock, "a connection ended within its PROXY header") if before else self._close(sock)
                return True
            header = proxy_protocol.parse(before + data, self._key, trusted=True)
            sock.recv(len(data) if header is None else header.size - len(before))
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:  # it has gone
            self._close(sock)
            return True
        except ProxyError as error:
            self._refuse(sock, str(error))
            return True
        if header is None:
            self._received[sock] = host, before + data
            return False
        self._forget(sock)
        self._pass_on(sock, host if header.source is None else header.source[0], header)
        return True

    def _too_slow(self, sock: socket.socket) -> None:
        if self._received[sock][1]:
            self._refuse(sock, "a PROXY header did not arrive in time")
        else:  # opened in advance, perhaps
            self._close(sock)

    def _refuse(self, sock: socket.socket, reason: str) -> None:
        self._close(sock)
        self._refused.add(reason)
        self._counters.refused["proxy_header"] += 1

    def _close(self, sock: socket.socket) -> None:
        self._forget(sock)
        sock.close()

    def _forget(self, sock: socket.socket) -> None:
        self._loop.remove_reader(sock)
        self._deadlines.discard(sock)
        del self._received[sock]
        if not self._received:
            self._idle.set()
