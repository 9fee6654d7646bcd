"""The socket that clients connect to."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress

from socketcluster_balancer import pages
from socketcluster_balancer.counters import Counters
from socketcluster_balancer.settings import BalancerSettings, split_host_port
from socketcluster_runtime.errors import AddressInUseError, SettingsError
from socketcluster_runtime.logging import get_logger
from socketcluster_runtime.throttle import Throttle

log = get_logger(__name__)

BACKLOG = 4096
"""Connections that the kernel keeps for a balancer that is busy; ``net.core.somaxconn`` may say less."""

ACCEPTS_PER_TURN = 32
"""Connections that are accepted before everything else has its turn: of a flood, others would wait for more."""

LAST_CALL = 0.25
"""Seconds from being asked to stop within which the request of a client that has connected is to arrive."""

PAUSE = 0.1
"""Seconds without accepting after the process ran out of descriptors or memory."""

_REQUEST_BYTES = 16 * 1024
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


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
    host, port = split_host_port(address)
    try:
        family, kind, protocol, _, name = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise SettingsError(f"SOCKETCLUSTER_LISTEN: {host}: {error.strerror}") from None
    sock = socket.socket(family, kind, protocol)
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
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        raise SettingsError(f"SOCKETCLUSTER_LISTEN_FD: {descriptor}: {error.strerror}") from None
    listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if not listening or sock.family not in (socket.AF_INET, socket.AF_INET6):
        sock.close()
        raise SettingsError(f"SOCKETCLUSTER_LISTEN_FD: {descriptor} is not a listening TCP socket")
    sock.set_inheritable(False)
    return sock


class Listener:
    """Accepts connections and passes each on, non-blocking, to ``accepted``.

    Out of descriptors, it refuses connections: a client that is told so tries again, or elsewhere; one that waits in
    the kernel's queue waits in vain. A spare descriptor is kept for that.

    Args:
        sock: listens.
        accepted: is given each connection, and the address that it comes from.
        counters: the balancer's.
        answers: are those that are refused told by HTTP? Not where they speak TLS.
    """

    def __init__(
        self,
        sock: socket.socket,
        accepted: Callable[[socket.socket, str], object],
        counters: Counters,
        *,
        answers: bool,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._accepted = accepted
        self._counters = counters
        self._answers = answers
        self._spare: int | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._exhausted = Throttle(lambda count: log.error("out of descriptors: refusing", clients=count))
        self._no_memory = Throttle(lambda count: log.error("cannot accept: out of memory", pauses=count))

    @property
    def address(self) -> tuple[str, int]:
        """The host and port that are listened on."""
        host, port = self._sock.getsockname()[:2]
        return host, port

    @property
    def paused(self) -> bool:
        """Is accepting paused, for want of descriptors or memory?"""
        return self._pause is not None

    def start(self) -> None:
        """Accept from now on."""
        self._keep_spare()
        self._loop.add_reader(self._sock, self._accept, ACCEPTS_PER_TURN)

    async def close(self, last_call: float) -> None:
        """Accept what the kernel has already taken for us, then stop.

        Where it keeps connections until they speak, that includes those that do within ``last_call`` seconds.
        """
        if last_call and self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT):
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 0)
            await asyncio.sleep(last_call)
        self._loop.remove_reader(self._sock)
        self._accept(BACKLOG)
        if self._pause is not None:
            self._pause.cancel()
        self._exhausted.close()
        self._no_memory.close()
        self._sock.close()
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    def _accept(self, limit: int) -> None:
        for _ in range(limit):
            try:
                sock, address = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    if error.errno in (errno.EMFILE, errno.ENFILE):
                        self._refuse_some()
                    else:
                        self._no_memory.add()
                    self._rest()
                    return
                continue  # that client's own trouble (it has gone, its network is down): see accept(2)
            sock.setblocking(False)
            self._accepted(sock, address[0])

    def _keep_spare(self) -> None:
        if self._spare is None:
            with suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _refuse_some(self) -> None:
        """Refuse connections that wait, one after the other, with the spare descriptor."""
        for _ in range(ACCEPTS_PER_TURN):
            self._keep_spare()
            if self._spare is None:
                return
            os.close(self._spare)
            self._spare = None
            try:
                sock, _ = self._sock.accept()
            except OSError:  # none waits, or somebody else was faster
                break
            with sock, suppress(OSError):
                sock.setblocking(False)
                if self._answers:
                    sock.send(pages.answer(503))
                    sock.shutdown(socket.SHUT_WR)
                    sock.recv(_REQUEST_BYTES)  # what is left unread would reset the connection
            self._exhausted.add()
            self._counters.refused["no_descriptor"] += 1
        self._keep_spare()

    def _rest(self) -> None:
        self._loop.remove_reader(self._sock)
        if self._pause is None:
            self._pause = self._loop.call_later(PAUSE, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self.start()
