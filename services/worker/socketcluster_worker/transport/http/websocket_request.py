"""Connections whose first request is read already, and which are to become WebSockets of ours at once."""

from __future__ import annotations

import asyncio
import re

from socketcluster_runtime.trusted_proxies import TELLING, TrustedProxies
from socketcluster_worker.connection import Handshake, read_fields
from socketcluster_worker.transport import tcp
from socketcluster_worker.transport.http.framing import MAX_HEAD_BYTES
from socketcluster_worker.transport.http.origin import Origin
from socketcluster_worker.transport.http.routes import Routes
from socketcluster_worker.transport.websocket_opening import is_as_usual

_HEAD = re.compile(
    rb"GET (/[!-~]*) HTTP/1\.1\r\n((?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00-\x08\x0a-\x1f\x7f]*\r\n)+)\r\n"
)
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+;=%-]+)(?::[0-9]*)?")
_OF_HTTP = ("content-length", "transfer-encoding", *TELLING)
"""Fields that are HTTP's to judge: a body would come, or a proxy says who the client is."""


def find(
    received: bytes, origin: Origin, address: tuple[str, int], router: Routes, proxies: TrustedProxies
) -> WebSocketRequest | None:
    """Return the protocol of a connection that is to become a WebSocket of ours, if that is clear at once.

    Whatever is not as usual is left to HTTP, which judges it: another request, host or path, a session that the client
    goes on with, a trusted proxy in front.

    Args:
        received: what was read from the connection.
        origin: where it comes from.
        address: the client's host and port.
        router: where WebSockets go.
        proxies: whose header fields say who the client is.
    """
    found = _HEAD.match(received)
    if found is None or found.end() > MAX_HEAD_BYTES or proxies.tell(address[0]):
        return None
    raw = found[2]
    fields = read_fields(raw)
    if not is_as_usual(fields) or _HOST.fullmatch(fields.get("host", "")) is None:
        return None
    for name in _OF_HTTP:
        if name in fields:
            return None
    handshake = Handshake(found[1].decode("ascii"), fields, address, secure=origin.secure, raw=raw)
    path = handshake.path
    if (
        not router.serves(path)
        or handshake.parameter("sid") is not None
        or not router.is_for_us(fields["host"], path, secure=origin.secure)
    ):
        return None
    if proxies.forgotten is not None and not origin.final:
        proxies.forgotten.see([], address)
    return WebSocketRequest(router, handshake, received[found.end() :])


class WebSocketRequest(asyncio.Protocol):
    """A connection until its request was answered.

    Args:
        router: answers it.
        handshake: the request.
        behind: what was read behind it.
    """

    __slots__ = ("_behind", "_handshake", "_router", "_transport")

    def __init__(self, router: Routes, handshake: Handshake, behind: bytes) -> None:
        self._router = router
        self._handshake = handshake
        self._behind = behind
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Answer; the WebSocket takes over, if there is one."""
        self._transport = transport
        websocket = self._router.upgrade(transport, self._handshake)
        if websocket is not None:
            transport.set_protocol(websocket)
            if self._behind:
                websocket.data_received(self._behind)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the connection for the client, too: it was refused, or has gone."""
        tcp.end_for_all(self._transport)
