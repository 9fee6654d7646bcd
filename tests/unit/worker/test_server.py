"""Where a worker listens for clients, and what it says where it cannot."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs
from support.worker.running import until

from socketcluster_runtime.errors import AddressInUseError, ServiceError, SettingsError
from socketcluster_runtime.sockets.capacity import Room
from socketcluster_runtime.trusted_proxies import TrustedProxies
from socketcluster_wire.handoff import Handoff
from socketcluster_worker.api.http_server import HTTPServer
from socketcluster_worker.endpoints.router import Router
from socketcluster_worker.server import ClientServer
from socketcluster_worker.transport.handoff import ClientSocket


@pytest.fixture
async def server() -> AsyncIterator[ClientServer]:
    made = ClientServer(cast(Router, None), HTTPServer(), b"key", TrustedProxies((), "proxy-protocol"), Room())
    yield made
    await made.close(0)
    made.unbind()


async def test_a_port_is_taken_before_anybody_is_let_in(server: ClientServer) -> None:
    host, port = server.bind("127.0.0.1:0")
    assert host == "127.0.0.1"
    with socket.socket() as client, pytest.raises(ConnectionRefusedError):
        client.connect((host, port))
    server.listen()
    with socket.socket() as client:
        client.connect((host, port))


async def test_the_kernel_looks_after_silent_connections_and_sends_at_once(server: ClientServer) -> None:
    server.bind("127.0.0.1:0")
    assert server._socket is not None  # what it accepts inherits these
    assert server._socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert server._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


async def test_a_port_is_given_back_and_taken_again_at_once(server: ClientServer) -> None:
    host, port = server.bind("127.0.0.1:0")
    server.unbind()
    assert server.bind(f"127.0.0.1:{port}") == (host, port)


async def test_an_address_that_cannot_be_had_is_told(server: ClientServer) -> None:
    with pytest.raises(SettingsError):
        server.bind("no port")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(AddressInUseError, match=r"cannot listen on 127\.0\.0\.1:\d+: Address already in use"):
            server.bind(f"127.0.0.1:{other.getsockname()[1]}")
    with pytest.raises(AddressInUseError, match=r"cannot listen on 192\.0\.2\.1:0: "):
        server.bind("192.0.2.1:0")  # of nobody
    server.unbind()


async def test_a_port_that_somebody_else_listens_at_meanwhile_is_told(server: ClientServer) -> None:
    _, port = server.bind("127.0.0.1:0")
    assert server._socket is not None
    server.unbind()
    assert server.bind(f"127.0.0.1:{port}")[1] == port
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))  # both may be bound, and one of them may listen
        other.listen()
        with pytest.raises(AddressInUseError, match="cannot listen: Address already in use"):
            server.listen()


async def test_a_unix_socket_is_made_anew_and_goes_with_the_server(server: ClientServer, folder: Path) -> None:
    path = folder / "http.sock"
    path.touch()
    server.listen_at(path)
    assert path.stat().st_mode & 0o777 == 0o600
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    await server.close(0)
    server._acceptors.clear()  # closed once
    assert not path.exists()


@pytest.mark.parametrize("name", ["missing/http.sock", "x" * 120])
async def test_a_unix_socket_that_cannot_be_made_is_told(server: ClientServer, folder: Path, name: str) -> None:
    with pytest.raises(ServiceError, match="cannot listen for balancers at"):
        server.listen_at(folder / name)


async def test_a_client_that_went_before_it_was_served_is_closed(
    server: ClientServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(*_: Any) -> None:
        raise ConnectionResetError("by peer")

    monkeypatch.setattr(server, "_make_http", lambda *_: asyncio.Protocol())
    monkeypatch.setattr(asyncio.get_running_loop().__class__, "connect_accepted_socket", gone, raising=True)
    own, other = socket.socketpair()
    given = ClientSocket(other.detach())
    with own, capture_logs() as lines:
        server.take_over(given, Handoff(1, b"", tls=False, client=None))
        await until(lambda: given.fileno() == -1)
        assert own.recv(1) == b""
        await until(lambda: not server._adopting)
    assert [line["event"] for line in lines] == ["a client was gone before it was served"]
