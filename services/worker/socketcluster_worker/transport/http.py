"""HTTP/1.1: uvicorn's protocol, taught to begin in the middle and to leave WebSockets to us."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from socketcluster_runtime import logging
from socketcluster_worker.connection import Handshake
from socketcluster_worker.endpoints import Endpoints
from socketcluster_worker.transport.forward import EXTENSION
from socketcluster_worker.transport.websocket import end_for_all

log = logging.get_logger(__name__)

MAX_HEAD_BYTES = 65_536
"""The largest head of a request; a balancer accepts less of the first one."""
HEAD_TIMEOUT = 10.0
"""Seconds that a request's head may take, from its first byte or the connection's beginning on."""
HEADER_OVERHEAD = 4
"""What a header field has beside its name and value: a colon, a space, and the line's end."""


class _HeadTooLargeError(Exception):
    """A request's head, or what trails its body, is over ``MAX_HEAD_BYTES``."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a connection comes from, if its socket does not tell."""

    client: tuple[str, int] | None
    secure: bool
    forwarded: bool = False
    """Was it passed on by another worker?"""


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
        self._unparsed_bytes = 0  # read, and not yet part of a head or body that is complete
        self._head_bytes = 0
        self._in_head = True
        self._head_timer: asyncio.TimerHandle | None = None

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
        else:
            self._time_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_head_timer()
        end_for_all(self.transport)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; uvicorn's own method loses those behind a request to upgrade."""
        self._unset_keepalive_if_required()
        self._unparsed_bytes += len(data)
        try:
            if self._unparsed_bytes > MAX_HEAD_BYTES + len(data):
                raise _HeadTooLargeError
            self.parser.feed_data(data)
        except _HeadTooLargeError:
            self._refuse_head()
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, _HeadTooLargeError):
                self._refuse_head()
            else:
                log.info("bytes that are no request", error=str(error))
                self.send_400_response("Invalid HTTP request received.")
        else:
            self._time_head()

    def on_message_begin(self) -> None:
        """Begin to count and to time a new head."""
        self._in_head, self._head_bytes, self._unparsed_bytes = True, 0, 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a piece of the target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header field, or one that trails a body."""
        self._count(len(name) + len(value) + HEADER_OVERHEAD)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Stop the clock: a body may take its time."""
        self._in_head, self._unparsed_bytes = False, 0
        if self._origin.forwarded:
            self.scope["extensions"] = {EXTENSION: {}}
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body, which has its limit where it is read."""
        self._unparsed_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Take the end of a request."""
        self._unparsed_bytes = 0
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """Leave the connection to the endpoint that the path names, or to the user's application."""
        target = self.url.decode("latin-1")
        handshake = Handshake.parse(target, self.headers, self.client, secure=self.scheme == "https")
        if not self._endpoints.serves(handshake.path):
            super().handle_websocket_upgrade()
            return
        self.connections.discard(self)
        may_be_elsewhere = "sid" in handshake.query and not self._origin.forwarded
        if may_be_elsewhere and self._endpoints.forward(self.transport, handshake, self.url, self.headers):
            return
        websocket = self._endpoints.upgrade(self.transport, handshake, self.headers)
        if websocket is not None:
            self.transport.set_protocol(websocket)

    def _upgrade(self, rest: bytes) -> None:
        """Change the protocol, as the request asked; ``rest`` was read behind it."""
        self._stop_head_timer()
        if not self._should_upgrade():
            # To another protocol than WebSocket, such as h2c, a server need not change; the parser is spent though.
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
            if rest:
                self.data_received(rest)
            return
        under_way = self.cycle is not None and not self.cycle.response_complete
        if self.scope["method"] != "GET" or self.scope["http_version"] != "1.1" or under_way:
            self.send_400_response("A WebSocket begins with a GET request of HTTP/1.1.")
            return
        self.handle_websocket_upgrade()
        if rest and not self.transport.is_closing():
            protocol = self.transport.get_protocol()
            if isinstance(protocol, asyncio.Protocol) and protocol is not self:
                protocol.data_received(rest)

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            raise _HeadTooLargeError

    def _refuse_head(self) -> None:
        self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\r\n")
        self.transport.close()

    def _time_head(self) -> None:
        """Run the clock while a head is not complete; most come in one piece, and need none."""
        answered = self.cycle is not None and self.cycle.response_complete and self.timeout_keep_alive_task is None
        if not self._in_head and not answered:
            self._stop_head_timer()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT, self.transport.abort)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
