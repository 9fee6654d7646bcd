"""The program of health checks: what it says of services, well and not."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from grpc_health.v1 import health

from socketcluster_runtime import rpc
from socketcluster_runtime.health import check_grpc, check_http, main, serves

SECRET = "a secret of the tests"


class Answers(BaseHTTPRequestHandler):
    """Answers with the status that the path names."""

    def do_GET(self) -> None:
        self.send_response(int(self.path[1:]))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:  # its log is of no use here
        pass


@pytest.fixture
def http() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()


@pytest.fixture
async def served() -> AsyncIterator[tuple[str, health.aio.HealthServicer]]:
    server, servicer = rpc.server(SECRET)
    port = rpc.listen(server, "127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}", servicer
    await server.stop(None)


def test_a_url_is_well_if_it_answers_200(http: str) -> None:
    assert check_http(f"{http}/200") is None
    assert check_http(f"{http}/503") == "HTTP Error 503: Service Unavailable"


def test_a_path_may_be_left_out_and_what_speaks_no_http_is_not_well(http: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        answers = [b"HTTP/1.0 200 OK\r\n\r\n", b"SSH-2.0\r\n", b""]

        def serve() -> None:
            for answer in answers:
                connection, _ = server.accept()
                with connection:
                    asked.append(connection.recv(1000))
                    connection.sendall(answer)

        asked: list[bytes] = []
        serving = threading.Thread(target=serve)
        serving.start()
        assert check_http(f"http://127.0.0.1:{port}") is None
        assert check_http(f"http://127.0.0.1:{port}/") == "no HTTP: 'SSH-2.0'"
        assert check_http(f"http://127.0.0.1:{port}/") == "no HTTP: ''"
        serving.join()
        assert asked[0].startswith(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n".encode())
    assert "HTTP Error 404" in str(check_http(http.replace("127.0.0.1", "localhost") + "/404"))


def test_nobody_there_is_not_well(http: str) -> None:
    assert "refused" in str(check_http("http://127.0.0.1:1/"))
    assert str(check_grpc("127.0.0.1:1", SECRET)).startswith("UNAVAILABLE: ")


async def test_a_grpc_service_says_how_it_is(served: tuple[str, health.aio.HealthServicer]) -> None:
    address, servicer = served

    async def asked(secret: str = SECRET) -> str | None:
        return await asyncio.to_thread(check_grpc, address, secret)

    await rpc.set_serving(servicer, serving=True)
    assert await asked() is None
    await rpc.set_serving(servicer, serving=False)
    assert await asked() == "NOT_SERVING"
    assert await asked("another secret") == "UNAUTHENTICATED: the cluster's secret is missing or wrong"


async def test_a_call_by_hand_finds_what_the_library_finds_if_that_is_well(
    served: tuple[str, health.aio.HealthServicer],
) -> None:
    address, servicer = served
    await rpc.set_serving(servicer, serving=True)
    for _ in range(3):
        assert await asyncio.to_thread(serves, address, SECRET)
    assert not await asyncio.to_thread(serves, address, "another secret")
    await rpc.set_serving(servicer, serving=False)
    assert not await asyncio.to_thread(serves, address, SECRET)


async def test_it_goes_by_a_unix_socket_too(tmp_path: Path) -> None:
    server, servicer = rpc.server(SECRET)
    rpc.listen(server, f"unix:{tmp_path}/health")
    await server.start()
    await rpc.set_serving(servicer, serving=True)
    assert await asyncio.to_thread(serves, f"unix:{tmp_path}/health", SECRET)
    await server.stop(None)
    assert not serves(f"unix:{tmp_path}/health", SECRET)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\0\0\0\4\0\0\0\0\0" + b"\0\0\x08\7\0\0\0\0\0" + bytes(8),  # SETTINGS and GOAWAY
        b"\0\0\0\1\5\0\0\0\1",  # HEADERS that end the stream: an error
        b"\0\0\x08\6\0\0\0\0\0" + bytes(8) + b"\0\0\5\0\0\0\0\0\1" + bytes(5),  # PING, and an empty message
    ],
)
def test_what_says_anything_else_is_not_well(said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        answered: list[bytes] = []

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                answered.append(connection.recv(10_000))
                connection.sendall(said)
                connection.shutdown(socket.SHUT_WR)
                while more := connection.recv(10_000):
                    answered.append(more)

        serving = threading.Thread(target=serve)
        serving.start()
        assert not serves(f"127.0.0.1:{server.getsockname()[1]}", SECRET)
        serving.join()
        assert answered[0].startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")


def test_a_service_that_is_well_is_found_so_without_the_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("socketcluster_runtime.health.serves", lambda _, secret: secret == SECRET)
    (tmp_path / "secret").write_text(SECRET + "\n")
    monkeypatch.setenv("SOCKETCLUSTER_SECRET_FILE", str(tmp_path / "secret"))
    assert ended(monkeypatch, "127.0.0.1:1") is None
    monkeypatch.setenv("SOCKETCLUSTER_SECRET", "another one, of sixteen characters")
    assert "UNAVAILABLE" in str(ended(monkeypatch, "127.0.0.1:1"))  # that of both which counts elsewhere
    monkeypatch.delenv("SOCKETCLUSTER_SECRET")
    monkeypatch.setenv("SOCKETCLUSTER_SECRET_FILE", str(tmp_path / "none" / "secret"))
    assert "cannot be made" in str(ended(monkeypatch, "127.0.0.1:1"))


def ended(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    monkeypatch.setattr(sys, "argv", ["health", *arguments])
    with pytest.raises(SystemExit) as exited:
        main()
    return exited.value.code


def test_the_program_exits_with_0_or_the_reason(monkeypatch: pytest.MonkeyPatch, http: str) -> None:
    assert ended(monkeypatch, f"{http}/200") is None
    assert ended(monkeypatch, f"{http}/500") == f"{http}/500: HTTP Error 500: Internal Server Error"
    assert "python -m socketcluster_runtime.health ADDRESS" in str(ended(monkeypatch))


async def test_the_program_asks_with_the_secret_of_its_environment(
    monkeypatch: pytest.MonkeyPatch, served: tuple[str, health.aio.HealthServicer]
) -> None:
    address, servicer = served
    await rpc.set_serving(servicer, serving=True)
    monkeypatch.setenv("SOCKETCLUSTER_SECRET", SECRET)
    monkeypatch.setenv("SOCKETCLUSTER_SESSION_TIMEOUT", "60")  # a service's own option, which is not looked at
    assert await asyncio.to_thread(ended, monkeypatch, address) is None
    monkeypatch.setenv("SOCKETCLUSTER_SECRET", "short")
    assert "too short" in str(await asyncio.to_thread(ended, monkeypatch, address))
    monkeypatch.delenv("SOCKETCLUSTER_SECRET")
    assert "SOCKETCLUSTER_SECRET is not set" in str(await asyncio.to_thread(ended, monkeypatch, address))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("SOCKETCLUSTER_RPC_TLS_CERT", "rpc_tls_key and rpc_tls_ca is not set"),
        ("SOCKETCLUSTER_APP_NAME", "SOCKETCLUSTER_APP_NAME: String should match pattern"),
    ],
)
def test_what_is_wrong_in_the_environment_is_one_line_without_the_secret(
    monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.setenv("SOCKETCLUSTER_SECRET", "hush")
    monkeypatch.setenv(name, "a file")
    told = str(ended(monkeypatch, "127.0.0.1:1"))
    assert said in told
    assert "hush" not in told
    assert "\n" not in told
