"""HTTP/1.1: uvicorn's protocol, taught to begin in the middle and to leave WebSockets to us."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from socketcluster_runtime import logging
from socketcluster_wire import proxy
from socketcluster_wire.errors import ProxyError
from socketcluster_worker.connection import Handshake
from socketcluster_worker.endpoints import Endpoints

log = logging.get_logger(__name__)

MAX_HEAD_BYTES = 65_536
"""The largest head of a request; a balancer accepts less of the first one."""
HEAD_TIMEOUT = 10.0
"""Seconds that a connection has to begin with bytes that make sense."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a connection comes from, if its socket does not tell."""

    client: tuple[str, int] | None
    secure: bool


class HTTPProtocol(HttpToolsProtocol):
    """One client's connection, until it becomes a WebSocket.

    Args:
        config: uvicorn's.
        server_state: uvicorn's.
        app_state: what the user's apps keep from their start on; uvicorn's.
        endpoints: where WebSockets go.
        origin: who the client is.
        received: what was read from the connection by somebody else.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        endpoints: Endpoints,
        origin: Origin,
        received: bytes = b"",
    ) -> None:
        super().__init__(config, server_state, app_state)
        self._endpoints = endpoints
        self._origin = origin
        self._received = received
        self._head_bytes = 0
        self._in_head = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin with what was received before."""
        super().connection_made(transport)
        if self._origin.client is not None:
            self.client = self._origin.client
        if self._origin.secure:
            self.scheme = "https"
        received, self._received = self._received, b""
        if received:
            self.data_received(received)

    def data_received(self, data: bytes) -> None:
        """Take bytes, as long as a head does not grow without end."""
        if self._in_head:
            if self._head_bytes > MAX_HEAD_BYTES:
                self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\r\n")
                self.transport.close()
                return
            self._head_bytes += len(data)
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Count the bytes of a new head."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Stop counting: what follows is a body."""
        self._in_head = False
        super().on_headers_complete()

    def handle_websocket_upgrade(self) -> None:
        """Leave the connection to the endpoint that the path names, or to the user's application."""
        target = self.url.decode("latin-1")
        handshake = Handshake.parse(target, self.headers, self.client, secure=self.scheme == "https")
        if not self._endpoints.serves(handshake.path):
            super().handle_websocket_upgrade()
            return
        self.connections.discard(self)
        self._unset_keepalive_if_required()
        websocket = self._endpoints.upgrade(self.transport, handshake, self.headers)
        if websocket is not None:
            self.transport.set_protocol(websocket)


class ProxyProtocol(asyncio.Protocol):
    """A connection to the worker's own port: reads the PROXY header, if there is one, and gives way to HTTP.

    Args:
        make_http: makes the protocol that goes on, of the client's origin and the bytes behind the header.
        key: what balancers sign their headers with.
    """

    def __init__(self, make_http: Callable[[Origin, bytes], HTTPProtocol], key: bytes) -> None:
        self._make_http = make_http
        self._key = key
        self._received = b""
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Wait for the first bytes."""
        self._transport = transport
        self._timer = asyncio.get_running_loop().call_later(HEAD_TIMEOUT, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Read until it is clear who the client is."""
        self._received += data
        begins = proxy.SIGNATURE[: len(self._received)]
        if self._received[: len(begins)] != begins:
            self._go_on(Origin(None, secure=False), self._received)
            return
        try:
            header = proxy.parse(self._received, self._key)
        except ProxyError as error:
            log.warning("a connection with a PROXY header that is not believed", error=str(error))
            self._transport.abort()
            return
        if header is not None:
            self._go_on(Origin(header.source, secure=header.tls), self._received[header.size :])

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
