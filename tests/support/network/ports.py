"""Ports for servers that cannot say which one they got, and connections without a server."""

from __future__ import annotations

import contextlib
import random
import socket

_reserved: list[socket.socket] = []
"""Abstract Unix sockets, one a port that was given away; the kernel takes them back when this process ends."""


def free_port() -> int:
    """Return a port that nobody listens on, as on that of a Valkey Cluster's bus, and that nobody else is given.

    The kernel gives neither away by itself; that other runs of these tests do not choose the same is seen to by a name.
    """
    while True:
        port = random.randrange(10_000, 20_000)
        mine = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as bus:
            one.bind(("", port))
            bus.bind(("", port + 10_000))
            mine.bind(f"\0socketcluster-test-port-{port}")
            _reserved.append(mine)
            return port
        mine.close()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a TCP connection: what balancers hand over is never a Unix socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return client, listener.accept()[0]
