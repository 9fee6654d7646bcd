"""Connections to the worker's own port, and what is said of their clients in front of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from socketcluster_runtime.logs import logging
from socketcluster_runtime.logs.throttle import Throttle
from socketcluster_runtime.networks import AddressSet
from socketcluster_wire import proxy_protocol
from socketcluster_wire.errors import ProxyError
from socketcluster_worker.transport.http.origin import Origin
from socketcluster_worker.transport.http.time_limits import HEAD_TIMEOUT
from socketcluster_worker.transport.relayed import Relayed

log = logging.get_logger(__name__)


class Proxies:
    """Whose PROXY headers are believed.

    Args:
        key: what the cluster's balancers and workers sign theirs with.
        trusted: the addresses of others, who sign nothing: each of their connections must begin with a header.
    """

    def __init__(self, key: bytes, trusted: AddressSet) -> None:
        self.key = key
        self.trusted = trusted
        self._refused = Throttle(
            lambda count: log.warning(
                "connections with a PROXY header that is not believed were closed",
                connections=count,
                reason=self._refused.last,
                settings="trusted_proxies, proxy_headers",
            )
        )

    def refuse(self, reason: str) -> None:
        """Note that a connection is closed."""
        self._refused.add(reason)

    def close(self) -> None:
        """Log what is left."""
        self._refused.close()


class ProxyProtocol(asyncio.Protocol):
    """A connection to the worker's own port: reads the PROXY header, if there is one, and gives way to HTTP.

    Args:
        make_http: makes the protocol that goes on, of the client's origin and the bytes behind the header.
        proxies: whose headers are believed.
        relayed: is told of connections whose bytes a balancer copies.
    """

    def __init__(
        self, make_http: Callable[[Origin, bytes], asyncio.Protocol], proxies: Proxies, relayed: Relayed
    ) -> None:
        self._make_http = make_http
        self._proxies = proxies
        self._relayed = relayed
        self._trusted = False
        self._received = b""
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Wait for the first bytes."""
        self._transport = transport
        if self._proxies.trusted:
            self._trusted = (transport.get_extra_info("peername") or ("",))[0] in self._proxies.trusted
        self._timer = asyncio.get_running_loop().call_later(HEAD_TIMEOUT, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Read until it is clear who the client is."""
        self._received += data
        begins = proxy_protocol.SIGNATURE[: len(self._received)]
        if not self._trusted and self._received[: len(begins)] != begins:
            self._go_on(Origin(None, secure=False), self._received)
            return
        try:
            header = proxy_protocol.parse(self._received, self._proxies.key, trusted=self._trusted)
        except ProxyError as error:
            self._proxies.refuse(str(error))
            self._transport.abort()
            return
        if header is not None:
            if header.balancer:
                self._relayed.add(header.balancer, self._transport)
            # Whoever is no client but speaks for itself, or has read the fields already, says all there is to say.
            final = header.forwarded or header.source is None
            origin = Origin(header.source, header.tls, header.forwarded, final=final, placed=True)
            self._go_on(origin, self._received[header.size :])

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._timer is not None:
            self._timer.cancel()

    def _go_on(self, origin: Origin, received: bytes) -> None:
        if self._timer is not None:
            self._timer.cancel()
        http = self._make_http(origin, received)
        self._transport.set_protocol(http)
        http.connection_made(self._transport)
