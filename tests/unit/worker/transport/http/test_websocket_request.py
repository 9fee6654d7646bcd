"""Which requests become WebSockets without HTTP's machinery, and which are left to that."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any, cast

import pytest

from socketcluster_runtime.trusted_proxies import TrustedProxies
from socketcluster_worker.connection import Handshake
from socketcluster_worker.transport.http.framing import MAX_HEAD_BYTES
from socketcluster_worker.transport.http.origin import Origin
from socketcluster_worker.transport.http.routes import Routes
from socketcluster_worker.transport.http.websocket_request import WebSocketRequest, find

ADDRESS = ("192.0.2.7", 4000)
PATH = "/socket.io/?EIO=4&transport=websocket"
FIELDS = (
    "Host: app.example:8000",
    "Connection: keep-alive, Upgrade",
    "upgrade: WebSocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Cookie: a=1",
    "cookie:\tb=2 ",
)


class Router:
    """Serves one path, for one host."""

    def __init__(self) -> None:
        self.upgraded: list[Handshake] = []
        self.websocket: Any = None

    def serves(self, path: str) -> bool:
        return path == "/socket.io/"

    def is_for_us(self, host: str, path: str, *, secure: bool) -> bool:
        return host.startswith("app.example")

    def upgrade(self, transport: Any, handshake: Handshake, raw_headers: Any = None) -> Any:
        self.upgraded.append(handshake)
        return self.websocket


def request(target: str = PATH, *more: str, fields: tuple[str, ...] = FIELDS, method: str = "GET") -> bytes:
    return "\r\n".join((f"{method} {target} HTTP/1.1", *fields, *more, "", "")).encode("latin-1")


def found(received: bytes, router: Router | None = None, *, secure: bool = False) -> WebSocketRequest | None:
    proxies = TrustedProxies((), "proxy-protocol")
    return find(received, Origin(None, secure), ADDRESS, cast(Routes, router or Router()), proxies)


class Transport:
    """Notes who takes over."""

    protocol: Any = None

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol


class Taken:
    """A WebSocket that is open."""

    def __init__(self) -> None:
        self.received = b""

    def data_received(self, data: bytes) -> None:
        self.received += data


def test_the_websocket_takes_over_with_what_was_read_behind_its_request() -> None:
    router, transport = Router(), Transport()
    router.websocket = Taken()
    made = found(request() + b"a frame", router, secure=True)
    assert made is not None
    made.connection_made(cast(Any, transport))
    assert transport.protocol is router.websocket
    assert router.websocket.received == b"a frame"
    (handshake,) = router.upgraded
    assert (handshake.path, handshake.query) == ("/socket.io/", {"EIO": "4", "transport": "websocket"})
    assert (handshake.address, handshake.secure) == (ADDRESS, True)
    read = handshake.headers
    assert (read["host"], read["upgrade"], read["cookie"]) == ("app.example:8000", "WebSocket", "a=1; b=2")
    handshake.pack()
    assert handshake.headers == read


def test_one_that_is_refused_keeps_its_protocol() -> None:
    router, transport = Router(), Transport()
    made = found(request(), router)
    assert made is not None
    made.connection_made(cast(Any, transport))
    assert (len(router.upgraded), transport.protocol) == (1, None)


@pytest.mark.parametrize(
    "received",
    [
        b"",
        request()[:-1],
        request(method="POST"),
        request("/other"),
        request("http://app.example/socket.io/?EIO=4"),
        request(PATH + "&sid=abc"),
        request(PATH, "Content-Length: 1"),
        request(PATH, "Transfer-Encoding: chunked"),
        request(PATH, "X-Forwarded-For: 1.2.3.4"),
        request(PATH, "Forwarded: for=1.2.3.4"),
        request(PATH, "Sec-WebSocket-Protocol: chat"),
        request(PATH, "Host: app.example"),
        request(PATH, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
        request(PATH, "X y: 1"),
        request(PATH, " folded"),
        request(PATH, "X: \0"),
        request(PATH, "X: " + "a" * MAX_HEAD_BYTES),
        request(fields=FIELDS[1:]),
        request(fields=("Host: other.example", *FIELDS[1:])),
        request(fields=("Host: app.example/x", *FIELDS[1:])),
        request(fields=FIELDS[:2] + FIELDS[3:]),
        request().replace(b"\r\n", b"\n"),
        request().replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
)
def test_what_is_not_as_usual_is_left_to_http(received: bytes) -> None:
    assert found(received) is None


def test_what_a_trusted_proxy_sends_is_left_to_http() -> None:
    trusting = TrustedProxies((ip_network("192.0.2.0/24"),), "x-forwarded")
    assert find(request(), Origin(None, False), ADDRESS, cast(Routes, Router()), trusting) is None
    assert find(request(), Origin(None, False), ("192.0.3.1", 1), cast(Routes, Router()), trusting) is not None


def test_requests_are_counted_that_came_by_no_proxy() -> None:
    proxies = TrustedProxies((), "x-forwarded")
    assert proxies.forgotten is not None
    find(request(), Origin(None, False), ADDRESS, cast(Routes, Router()), proxies)
    find(request(), Origin(None, False, final=True), ADDRESS, cast(Routes, Router()), proxies)
    assert proxies.forgotten._requests == 1
