"""The socket that clients connect to."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from contextlib import suppress

from socketcluster_balancer.counters import BalancerCounters
from socketcluster_balancer.entrance import responses
from socketcluster_balancer.settings import BalancerSettings
from socketcluster_runtime.addresses import split_host_port
from socketcluster_runtime.errors import AddressInUseError, SettingsError
from socketcluster_runtime.sockets.accepting import Acceptor, ListeningSocket
from socketcluster_runtime.sockets.capacity import Room

BACKLOG = 4096
"""Connections that the kernel keeps for a balancer that is busy; ``net.core.somaxconn`` may say less."""

LAST_CALL = 0.25
"""Seconds from being asked to stop within which the request of a client that has connected is to arrive."""

_REQUEST_BYTES = 16 * 1024


def open_socket(settings: BalancerSettings) -> socket.socket:
    """Return the listening socket that ``settings`` name, which accepted sockets inherit their options from.

    Raises:
        AddressInUseError: somebody else listens there.
        SettingsError: this process cannot listen there, or the inherited descriptor is no listening TCP socket.
    """
    sock = _bind(settings.listen) if settings.listen_fd is None else _inherit(settings.listen_fd)
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Clients speak first, whatever they speak: a flood of silent ones stays with the kernel, which rounds the time up.
    defer = max(1, round(settings.first_byte_timeout)) if settings.defer_accept else 0
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, defer)
    return sock


def _bind(address: str) -> socket.socket:
    host, port = split_host_port(address, any_port=True)
    try:
        family, kind, protocol, _, name = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise SettingsError(f"SOCKETCLUSTER_LISTEN: {host}: {error.strerror}") from None
    sock = ListeningSocket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(name)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise AddressInUseError(
                f"port {port} is taken: another program listens on {address}; stop it, or choose another port by "
                f"SOCKETCLUSTER_LISTEN=host:port (socketcluster run --port, make run PORT=)"
            ) from None
        raise SettingsError(f"SOCKETCLUSTER_LISTEN: cannot listen on {address}: {error.strerror}") from None
    return sock


def _inherit(descriptor: int) -> socket.socket:
    try:
        sock = ListeningSocket(fileno=descriptor)
    except OSError as error:
        raise SettingsError(f"SOCKETCLUSTER_LISTEN_FD: {descriptor}: {error.strerror}") from None
    listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if not listening or sock.family not in (socket.AF_INET, socket.AF_INET6):
        sock.close()
        raise SettingsError(f"SOCKETCLUSTER_LISTEN_FD: {descriptor} is not a listening TCP socket")
    sock.set_inheritable(False)
    return sock


class Listener:
    """Accepts connections and passes each on, non-blocking, to ``accepted``; refuses those that there is no room for.

    Args:
        sock: listens.
        accepted: is given each connection, and the address that it comes from.
        counters: the balancer's.
        room: for clients.
        answers: are those that are refused told by HTTP? Not where they speak TLS.
    """

    def __init__(
        self,
        sock: socket.socket,
        accepted: Callable[[socket.socket, str], object],
        counters: BalancerCounters,
        room: Room,
        *,
        answers: bool,
    ) -> None:
        self._sock = sock
        self._counters = counters
        self._answers = answers
        self._acceptor = Acceptor(sock, lambda sock, address: accepted(sock, address[0]), room, refuse=self._refuse)

    @property
    def address(self) -> tuple[str, int]:
        """The host and port that are listened on."""
        host, port = self._sock.getsockname()[:2]
        return host, port

    @property
    def paused(self) -> bool:
        """Is accepting paused, for want of descriptors or memory?"""
        return self._acceptor.paused

    def start(self) -> None:
        """Accept from now on."""
        self._acceptor.start()

    async def close(self, last_call: float) -> None:
        """Accept what the kernel has already taken for us, then stop.

        Where it keeps connections until they speak, that includes those that do within ``last_call`` seconds.
        """
        if last_call and self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT):
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 0)
            await asyncio.sleep(last_call)
        self._acceptor.accept(BACKLOG)
        self._acceptor.close()

    def _refuse(self, sock: socket.socket, _at_once: bool) -> None:
        with sock, suppress(OSError):
            if self._answers:
                sock.send(responses.answer(503))
                sock.shutdown(socket.SHUT_WR)
                sock.recv(_REQUEST_BYTES)  # what is left unread would reset the connection
        self._counters.refused["no_descriptor"] += 1
