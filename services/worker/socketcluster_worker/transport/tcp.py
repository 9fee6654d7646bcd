"""What the kernel is asked for a client's TCP connection, whatever it carries."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

UNREAD_TIMEOUT = 60_000
"""Milliseconds for which a client that is not read from may not acknowledge what it is sent (TCP_USER_TIMEOUT)."""


def end_for_all(transport: asyncio.BaseTransport) -> None:
    """Shut a connection down, so that it ends for its client though another process may hold its descriptor too."""
    descriptor = transport.get_extra_info("socket").fileno()
    # Its kind is named, whatever it is: the kernel is asked for it otherwise, in three calls.
    kind = socket.AF_INET6, socket.SOCK_STREAM, 0
    with contextlib.suppress(OSError), socket.socket(*kind, os.dup(descriptor)) as own:
        own.shutdown(socket.SHUT_RDWR)


def look_after_unread(transport: asyncio.BaseTransport) -> None:
    """Have the kernel find out that a client is gone from which nothing is read, no pong either."""
    own = transport.get_extra_info("socket")
    if own is not None and own.family != socket.AF_UNIX:
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_TIMEOUT)
