"""A client's connection, from the accept until it is somebody else's."""

from __future__ import annotations

import abc
from typing import ClassVar

from socketcluster_runtime.sockets.relay import Relay
from socketcluster_wire.forwarded import Told
from socketcluster_wire.proxy_protocol import ProxyHeader
from socketcluster_wire.request_head import RequestHead


class Client(abc.ABC):
    """A connection that belongs to the balancer."""

    __slots__ = ("_header", "data", "head", "key", "told", "tried", "wait_until", "wanted")

    ends_tls: ClassVar[bool]
    """Does it speak TLS with the balancer?"""

    def __init__(self, header: ProxyHeader | None, key: bytes) -> None:
        self._header = header
        self.key = key
        """What its connection is counted under: see ``limits.address_key``."""
        self.data = b""
        """Everything read so far."""
        self.head: RequestHead | None = None
        """The first request, once its head has arrived."""
        self.told: Told | None = None
        """What a proxy in front says in that of who the client is; the worker reads it again, in each request."""
        self.tried: tuple[str, ...] = ()
        """The addresses of the workers that could not take it over."""
        self.wait_until = 0.0
        """Loop time until which it waits for a worker; 0 if it never had to."""
        self.wanted: frozenset[str] | None = None
        """Names, ids and tags of the workers that the controller wants it to be given to; ``None``: any."""

    @property
    def secure(self) -> bool:
        """Did its connection come by TLS, which ends here or at a balancer in front?"""
        return self.ends_tls or (self._header is not None and self._header.tls)

    @property
    def source(self) -> tuple[str, int] | None:
        """Its host and port, as a balancer in front told them; ``None``: those of its socket's peer."""
        return None if self._header is None else self._header.source

    def addresses(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """Return its host and port, and those that it, or the balancer in front, connected to.

        Raises:
            OSError: it has gone.
        """
        peer, own = self._socket_addresses()
        return self.source or peer, own

    def identity(self) -> tuple[tuple[str, int], bool]:
        """Return the client's host and port, and whether it came by TLS, as far as any proxy in front tells.

        Raises:
            OSError: it has gone.
        """
        if self.told is None:
            return self.addresses()[0], self.secure
        return self.told.client, self.secure if self.told.secure is None else self.told.secure

    @abc.abstractmethod
    def _socket_addresses(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """Return the host and port of the socket's peer, and of its own.

        Raises:
            OSError: it has gone.
        """

    @abc.abstractmethod
    async def go_on_in(self, relay: Relay, beginning: bytes) -> None:
        """Give its connection to a relay, which sends the worker ``beginning`` first.

        Raises:
            OSError: it has gone; the relay is aborted.
        """
