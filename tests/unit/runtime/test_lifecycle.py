"""Lifecycle, logging and the health check, in processes of their own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1.health_pb2 import HealthCheckResponse
from support.network.certificates import Authority

from socketcluster_runtime import rpc
from socketcluster_runtime.tls.rpc_tls import load_rpc_tls

SERVICE = """
import asyncio, logging, sys
from typing import ClassVar
from socketcluster_runtime import lifecycle
from socketcluster_runtime.errors import AddressInUseError, SettingsError
from socketcluster_runtime.logs.logging import get_logger
from socketcluster_runtime.settings import ServiceSettings

class Settings(ServiceSettings):
    service: ClassVar[str] = "example"

async def serve(settings, life):
    log = get_logger("example")
    if sys.argv[1] == "taken":
        raise AddressInUseError("cannot listen on here")
    if sys.argv[1] == "broken":
        raise RuntimeError("a bug")
    if sys.argv[1] == "reads":
        def read(outcomes=iter(["one", None, SettingsError("no such file"), RuntimeError("a bug")])):
            outcome = next(outcomes)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome
        life.on_reload("something", read)
    log.info("event", number=7)
    logging.getLogger("other").warning("from the standard library")
    life.ready()
    await life.stopping.wait()
    if sys.argv[1] == "stubborn":
        print("stopping", flush=True)
        await asyncio.Event().wait()

lifecycle.run(Settings, serve)
"""
SECRET = "a secret of the tests"


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Any]]:
    running: list[asyncio.subprocess.Process] = []

    async def start(*arguments: str, **environment: str) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            env={**os.environ, **environment},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.fixture
async def notified(tmp_path: Path) -> AsyncIterator[tuple[str, Callable[[], Any]]]:
    """Where readiness is told, and a wait for it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        name = f"\0socketcluster-test-{os.getpid()}-{id(notify)}"
        notify.bind(name)
        notify.setblocking(False)
        yield "@" + name[1:], lambda: asyncio.get_running_loop().sock_recv(notify, 100)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_service_says_that_it_is_ready_and_stops_when_asked(
    start: Callable[..., Any], notified: Any, number: signal.Signals
) -> None:
    address, ready = notified
    process = await start("-c", SERVICE, "", NOTIFY_SOCKET=address, LOG_FORMAT="json", SOCKETCLUSTER_NAME="one")
    assert await ready() == f"READY=1\nMAINPID={process.pid}".encode()
    process.send_signal(number)
    _out, error = await process.communicate()
    assert process.returncode == 0
    lines = [json.loads(line) for line in error.splitlines()]
    assert [(line["event"], line["level"]) for line in lines] == [
        ("event", "info"),
        ("from the standard library", "warning"),
    ]
    assert lines[0]["number"] == 7
    assert all((line["service"], line["name"]) == ("example", "one") for line in lines)


async def test_a_service_tells_its_metrics_where_it_is_told_to(start: Callable[..., Any], notified: Any) -> None:
    address, ready = notified
    options = {"LOG_FORMAT": "json", "SOCKETCLUSTER_METRICS_LISTEN": "127.0.0.1:0"}
    process = await start("-c", SERVICE, "", NOTIFY_SOCKET=address, **options)
    await ready()
    line = json.loads(await process.stderr.readline())
    assert line["event"] == "metrics"
    reader, writer = await asyncio.open_connection(line["host"], line["port"])
    writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert b"\nprocess_cpu_seconds_total " in await reader.read()
    writer.close()
    process.terminate()
    assert await process.wait() == 0


async def test_log_lines_for_people_and_their_level(start: Callable[..., Any], notified: Any) -> None:
    address, ready = notified
    process = await start("-c", SERVICE, "", NOTIFY_SOCKET=address, LOG_LEVEL="warning", SOCKETCLUSTER_NAME="one")
    await ready()
    process.terminate()
    _out, error = await process.communicate()
    (line,) = error.decode().splitlines()
    assert "one" in line
    assert "from the standard library" in line
    assert "\x1b" not in line


async def test_a_second_signal_ends_it_at_once(start: Callable[..., Any], notified: Any) -> None:
    address, ready = notified
    process = await start("-c", SERVICE, "stubborn", NOTIFY_SOCKET=address)
    await ready()
    process.terminate()
    assert await process.stdout.readline() == b"stopping\n"
    process.terminate()
    assert await process.wait() == 128 + signal.SIGTERM


async def test_sighup_ends_nothing_but_has_files_read_again(start: Callable[..., Any], notified: Any) -> None:
    address, ready = notified
    process = await start("-c", SERVICE, "reads", NOTIFY_SOCKET=address, LOG_FORMAT="json")
    await ready()
    await process.stderr.readline(), await process.stderr.readline()  # of the beginning
    lines = []
    for _ in range(4):
        process.send_signal(signal.SIGHUP)
        lines.append(json.loads(await process.stderr.readline()))
    assert [(line["level"], line["event"], line["what"]) for line in lines] == [
        ("info", "read again", "something"),
        ("info", "read again", "something"),
        ("error", "not read again, what was read before stays", "something"),
        ("error", "not read again, what was read before stays", "something"),
    ]
    assert [line.get("now") for line in lines] == ["one", None, None, None]
    assert lines[2]["error"] == "no such file"
    assert "RuntimeError: a bug" in lines[3]["exception"]
    process.terminate()
    assert await process.wait() == 0


async def test_sighup_without_anything_to_read_is_answered_by_a_line(start: Callable[..., Any], notified: Any) -> None:
    address, ready = notified
    process = await start("-c", SERVICE, "", NOTIFY_SOCKET=address, LOG_FORMAT="json")
    await ready()
    await process.stderr.readline(), await process.stderr.readline()
    process.send_signal(signal.SIGHUP)
    assert json.loads(await process.stderr.readline())["event"].startswith("nothing to read again")
    process.terminate()
    assert await process.wait() == 0


async def test_the_level_of_the_log_is_read_from_its_file_again(
    start: Callable[..., Any], notified: Any, tmp_path: Path
) -> None:
    address, ready = notified
    level = tmp_path / "level"
    level.write_text("Error\n")
    options = {"NOTIFY_SOCKET": address, "LOG_FORMAT": "json", "LOG_LEVEL": "debug", "LOG_LEVEL_FILE": str(level)}
    process = await start("-c", SERVICE, "", **options)
    await ready()
    for text, event in (
        ("loud", "not read again, what was read before stays"),  # the first line: info and warning were not said
        ("info", "read again"),
    ):
        level.write_text(text)
        process.send_signal(signal.SIGHUP)
        line = json.loads(await process.stderr.readline())
        assert (line["event"], line["what"]) == (event, "log level")
    assert line["now"] == "info"
    process.terminate()
    assert await process.wait() == 0


async def test_a_file_without_a_level_keeps_no_service_down(
    start: Callable[..., Any], notified: Any, tmp_path: Path
) -> None:
    address, ready = notified
    for text, error in (("loud", "has 'loud'; write one of debug, info"), (None, "cannot be read: No such file")):
        level = tmp_path / "level"
        level.unlink(missing_ok=True)
        if text is not None:
            level.write_text(text)
        options = {"NOTIFY_SOCKET": address, "LOG_FORMAT": "json", "LOG_LEVEL": "warning"}
        process = await start("-c", SERVICE, "", LOG_LEVEL_FILE=str(level), **options)
        await ready()
        line = json.loads(await process.stderr.readline())
        assert (line["event"], line["level"]) == ("the log's level is the one of LOG_LEVEL", "warning")
        assert error in line["error"]
        assert json.loads(await process.stderr.readline())["event"] == "from the standard library"
        process.terminate()
        assert await process.wait() == 0


@pytest.mark.parametrize(
    ("argument", "environment", "status", "text"),
    [
        ("taken", {}, 78, b"cannot listen on here"),
        ("broken", {}, 1, b"RuntimeError: a bug"),
        ("", {"SOCKETCLUSTER_NAMES": "x"}, 78, b"example: SOCKETCLUSTER_NAMES: the example knows no such option"),
    ],
)
async def test_what_ends_a_service_is_told(
    start: Callable[..., Any], argument: str, environment: dict[str, str], status: int, text: bytes
) -> None:
    process = await start("-c", SERVICE, argument, **environment)
    _out, error = await process.communicate()
    assert process.returncode == status
    assert text in error
    assert (b"Traceback" in error) == (argument == "broken")


async def test_a_service_dies_with_its_launcher(start: Callable[..., Any], notified: Any) -> None:
    address, ready = notified
    launcher = (
        "import os, subprocess, sys\n"
        "environment = {**os.environ, 'SOCKETCLUSTER_PARENT': str(os.getpid())}\n"
        "child = subprocess.Popen([sys.executable, '-c', sys.argv[1], ''], env=environment)\n"
        "child.wait()\n"
    )
    process = await start("-c", launcher, SERVICE, NOTIFY_SOCKET=address)
    child = int((await ready()).rpartition(b"=")[2])
    watched = os.pidfd_open(child)
    gone = asyncio.Event()
    asyncio.get_running_loop().add_reader(watched, gone.set)
    process.kill()
    await gone.wait()
    asyncio.get_running_loop().remove_reader(watched)
    os.close(watched)


@pytest.mark.parametrize(
    ("serving", "secret", "status", "text"),
    [
        (HealthCheckResponse.SERVING, SECRET, 0, b""),
        (HealthCheckResponse.NOT_SERVING, SECRET, 1, b"NOT_SERVING"),
        (HealthCheckResponse.SERVING, "another secret, as long", 1, b"UNAUTHENTICATED"),
    ],
)
async def test_the_health_check_tells_the_truth(
    start: Callable[..., Any], serving: Any, secret: str, status: int, text: bytes
) -> None:
    server, health = rpc.server(SECRET)
    await health.set("", serving)
    port = rpc.listen(server, "127.0.0.1:0")
    await server.start()
    command = ("-m", "socketcluster_runtime.health", f"127.0.0.1:{port}")
    process = await start(*command, SOCKETCLUSTER_SECRET=secret, SOCKETCLUSTER_ENGINE="an option of the service")
    _out, error = await process.communicate()
    await server.stop(None)
    assert process.returncode == status, error
    assert text in error


async def test_the_health_check_goes_by_tls_as_the_services_do(start: Callable[..., Any], tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("own")
    server, health = rpc.server(SECRET)
    await health.set("", HealthCheckResponse.SERVING)
    port = rpc.listen(server, "127.0.0.1:0", load_rpc_tls(cert, key, authority.cert, "socketcluster"))
    await server.start()
    files = {"CERT": cert, "KEY": key, "CA": authority.cert}
    options = {f"SOCKETCLUSTER_RPC_TLS_{name}": str(path) for name, path in files.items()}
    for given, status, text in (
        (options, 0, b""),
        ({}, 1, b"UNAVAILABLE"),
        (options | {"SOCKETCLUSTER_RPC_TLS_NAME": "another"}, 1, b"would not be accepted"),
        (options | {"SOCKETCLUSTER_RPC_TLS_KEY": ""}, 1, b"rpc_tls_key is not set"),
    ):
        command = ("-m", "socketcluster_runtime.health", f"127.0.0.1:{port}")
        process = await start(*command, SOCKETCLUSTER_SECRET=SECRET, **given)
        _out, error = await process.communicate()
        assert process.returncode == status, error
        assert text in error
        assert b"Traceback" not in error
    await server.stop(None)


async def test_the_health_check_of_nobody(start: Callable[..., Any]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        for address in (f"127.0.0.1:{port}", f"http://127.0.0.1:{port}/"):
            process = await start("-m", "socketcluster_runtime.health", address, SOCKETCLUSTER_SECRET=SECRET)
            _out, error = await process.communicate()
            assert process.returncode == 1
            assert address.encode() in error
            assert b"Traceback" not in error
