"""The sockets on which clients are accepted, bound before anything is started."""

from __future__ import annotations

import errno
import socket

from socketcluster.errors import ListenError, PortInUseError

BACKLOG = 4096
"""Clients that may wait while a balancer is started again."""


def listen(host: str, port: int, count: int) -> list[socket.socket]:
    """Return ``count`` sockets that listen on the same port, between which the kernel spreads the clients.

    Raises:
        PortInUseError: somebody else listens there.
        ListenError: ``host`` is no address of this machine, or this user may not use the port.
    """
    sockets: list[socket.socket] = []
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        for _ in range(count):
            made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            sockets.append(made)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if len(sockets) > 1:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            made.bind(address)
            # The first is bound without it, which fails if another cluster of this user shares the port already.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            address = made.getsockname()
        for made in sockets:
            made.listen(BACKLOG)
    except OSError as error:
        for made in sockets:
            made.close()
        raise _explain(error, host, port) from None
    return sockets


def url(host: str, port: int, scheme: str = "http") -> str:
    """Return where a browser on this machine finds the cluster."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared, not bound
    return f"{scheme}://[{reachable}]:{port}" if ":" in reachable else f"{scheme}://{reachable}:{port}"


def _explain(error: OSError, host: str, port: int) -> ListenError:
    if error.errno == errno.EADDRINUSE:
        return PortInUseError(f"port {port} is in use: choose another with --port")
    if error.errno == errno.EACCES:
        return ListenError(f"port {port} is not for this user: choose one above 1023 with --port")
    return ListenError(f"cannot accept clients on host {host}: {error.strerror}")
