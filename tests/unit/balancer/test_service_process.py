"""The service as a process of its own."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from support.balancer.bench import PATIENCE, Bench
from support.balancer.stand_in_worker import SECRET
from support.network import certificates


class Process:
    """A balancer, and what it says."""

    def __init__(self, folder: Path, workers: str) -> None:
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SOCKETCLUSTER_")},
            "SOCKETCLUSTER_WORKERS": workers,
            "SOCKETCLUSTER_SECRET": SECRET,
            "SOCKETCLUSTER_LISTEN": "127.0.0.1:0",
            "SOCKETCLUSTER_NAME": "tested",
            "NOTIFY_SOCKET": str(folder / "notify"),
        }
        self.lines: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.errors: asyncio.StreamReader | None = None
        self._transport: asyncio.BaseTransport | None = None
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(folder / "notify"))
        self.notify.setblocking(False)

    async def start(self, **options: Any) -> None:
        # Not by asyncio, whose fork would meet gRPC's threads in this process: this is a vfork.
        self.process = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-m", "socketcluster_balancer"], env=self.environment, stderr=subprocess.PIPE, **options
        )
        self.errors = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(self.errors)
        self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, self.process.stderr)

    async def port(self) -> int:
        line = await self.line("listening")
        return int(line.partition("port=")[2].split()[0])

    async def line(self, text: str) -> str:
        assert self.errors is not None
        async with asyncio.timeout(PATIENCE):
            while data := await self.errors.readline():
                self.lines.append(data.decode())
                if text in self.lines[-1]:
                    return self.lines[-1]
        raise AssertionError(f"no line with {text!r} in {self.lines}")

    async def ready(self) -> None:
        async with asyncio.timeout(PATIENCE):
            assert (await asyncio.get_running_loop().sock_recv(self.notify, 100)).startswith(b"READY=1")

    async def exit_status(self, number: int | None = None) -> int:
        assert self.process is not None
        assert self.errors is not None
        if number is not None:
            self.process.send_signal(number)
        async with asyncio.timeout(PATIENCE):
            self.lines += (await self.errors.read()).decode().splitlines()
        return self.process.wait(PATIENCE)  # it has closed its standard error: it is at its end

    def stop(self) -> None:
        self.notify.close()
        if self._transport is not None:
            self._transport.close()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)


@pytest.fixture
async def process(folder: Path) -> AsyncIterator[Process]:
    made = Process(folder, f"unix:{folder}/aaaaaaaa.grpc")
    yield made
    made.stop()


async def get(port: int, host: str = "127.0.0.1") -> bytes:
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        answer = await reader.read()
        writer.close()
        return answer


async def test_it_is_ready_with_the_first_worker_and_ends_with_sigterm(bench: Bench, process: Process) -> None:
    await process.start()
    port = await process.port()
    with pytest.raises(BlockingIOError):
        process.notify.recv(100)
    await bench.worker("aaaaaaaa")
    await process.ready()
    assert b'"worker": "aaaaaaaa"' in await get(port)
    assert await process.exit_status(signal.SIGTERM) == 0
    assert not any("Traceback" in line or "warning" in line for line in process.lines), process.lines


async def test_it_ends_while_no_worker_is_there(process: Process) -> None:
    process.environment["SOCKETCLUSTER_WORKERS"] += ",dns:///localhost:1"
    await process.start()
    await process.port()
    assert await process.exit_status(signal.SIGTERM) == 0


async def test_clients_under_way_are_served_before_it_ends(bench: Bench, process: Process) -> None:
    process.environment["SOCKETCLUSTER_WORKER_WAIT"] = "15"
    await process.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", await process.port())
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert process.process is not None
    process.process.send_signal(signal.SIGTERM)
    await process.line("stopping")
    await bench.worker("aaaaaaaa")
    async with asyncio.timeout(PATIENCE):
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    assert await process.exit_status() == 0


async def refused(port: int) -> None:
    """Wait until nobody listens any more: "stopping" is logged just before the socket is closed."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            return
        except ConnectionError:  # it waited to be accepted when the socket was closed
            continue
        writer.close()


@asynccontextmanager
async def relayed(
    bench: Bench, process: Process, tmp_path: Path, *, secure: bool
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, int]]:
    """A client whose bytes the balancer copies, to a worker that echoes lines until one says ``end``."""
    worker = await bench.worker("aaaaaaaa", handoff=False)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            while (line := await reader.readline()) not in (b"end\n", b""):
                writer.write(line)
                await writer.drain()
        writer.close()

    worker.serve = echo
    context = None
    if secure:
        files = certificates.make(tmp_path, "drained")
        process.environment |= {"SOCKETCLUSTER_TLS_CERT": str(files.cert), "SOCKETCLUSTER_TLS_KEY": str(files.key)}
        context = ssl.create_default_context(cafile=str(files.cert))
    await process.start()
    port = await process.port()
    await process.ready()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        async with asyncio.timeout(PATIENCE):
            writer.write(b"GET / HTTP/1.1\r\n\r\nfirst\n")
            assert await reader.readline() == b"first\n"
            yield reader, writer, port
    finally:
        writer.close()
        with suppress(OSError, ssl.SSLError):
            await writer.wait_closed()


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_asked_to_stop_it_accepts_nobody_lets_relays_end_and_exits_with_0(
    bench: Bench, process: Process, tmp_path: Path, secure: bool
) -> None:
    process.environment["SOCKETCLUSTER_DRAIN_TIMEOUT"] = "60"
    async with relayed(bench, process, tmp_path, secure=secure) as (reader, writer, port):
        assert process.process is not None
        process.process.send_signal(signal.SIGTERM)
        await process.line("stopping")
        await refused(port)
        writer.write(b"still there?\n")
        assert await reader.readline() == b"still there?\n"
        assert process.process.poll() is None
        writer.write(b"end\n")
        assert await reader.read() == b""
        writer.close()
        assert await process.exit_status() == 0
    assert not any("Traceback" in line or "are cut off" in line for line in process.lines), process.lines


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_relays_that_do_not_end_within_drain_timeout_are_cut_off(
    bench: Bench, process: Process, tmp_path: Path, secure: bool
) -> None:
    process.environment["SOCKETCLUSTER_DRAIN_TIMEOUT"] = "0.2"
    async with relayed(bench, process, tmp_path, secure=secure) as (reader, _, _):
        assert await process.exit_status(signal.SIGTERM) == 0
        with suppress(ConnectionError):
            assert await reader.read() == b""
    assert any("cut off" in line for line in process.lines), process.lines


async def test_a_taken_port_is_named(process: Process) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process.environment["SOCKETCLUSTER_LISTEN"] = f"127.0.0.1:{port}"
        await process.start()
        assert await process.exit_status() == 78
    (line,) = process.lines
    assert f"port {port} is taken" in line
    assert "SOCKETCLUSTER_LISTEN=" in line


async def test_an_address_of_another_host_is_refused(process: Process) -> None:
    process.environment["SOCKETCLUSTER_LISTEN"] = "192.0.2.1:0"
    await process.start()
    assert await process.exit_status() == 78
    (line,) = process.lines
    assert "SOCKETCLUSTER_LISTEN: " in line


@pytest.mark.ipv6
async def test_ipv6_clients_are_served_and_named(bench: Bench, process: Process) -> None:
    await bench.worker("aaaaaaaa", handoff=False)
    process.environment["SOCKETCLUSTER_LISTEN"] = "[::]:0"
    await process.start()
    port = await process.port()
    await process.ready()
    assert b'"client": ["127.0.0.1", ' in await get(port)
    assert b'"client": ["::1", ' in await get(port, "::1")
    assert await process.exit_status(signal.SIGTERM) == 0


async def test_several_balancers_share_a_port(bench: Bench, process: Process) -> None:
    worker = await bench.worker("aaaaaaaa")
    await bench.start(worker)
    process.environment["SOCKETCLUSTER_LISTEN"] = f"127.0.0.1:{bench.port}"
    await process.start()
    await process.ready()
    assert {(await get(bench.port))[:12] for _ in range(20)} == {b"HTTP/1.1 200"}
    assert await process.exit_status(signal.SIGTERM) == 0


async def test_a_listening_socket_may_be_inherited(bench: Bench, process: Process) -> None:
    await bench.worker("aaaaaaaa")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        process.environment["SOCKETCLUSTER_LISTEN_FD"] = str(listening.fileno())
        await process.start(pass_fds=[listening.fileno()])
        await process.ready()
        assert b'"nodelay": 1' in await get(listening.getsockname()[1])
        assert await process.exit_status(signal.SIGTERM) == 0


async def test_an_inherited_socket_must_listen(process: Process) -> None:
    process.environment["SOCKETCLUSTER_LISTEN_FD"] = "0"
    await process.start(stdin=asyncio.subprocess.DEVNULL)
    assert await process.exit_status() == 78
    assert "SOCKETCLUSTER_LISTEN_FD: 0" in process.lines[0]


async def test_garbage_leaves_no_trace_in_the_log(bench: Bench, process: Process) -> None:
    await bench.worker("aaaaaaaa")
    await process.start()
    port = await process.port()
    await process.ready()
    noise = random.Random(1)
    for _ in range(50):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(noise.randbytes(300))
        writer.transport.abort()
    assert (await get(port)).startswith(b"HTTP/1.1 200 ")
    assert await process.exit_status(signal.SIGTERM) == 0
    assert len(process.lines) <= 5, process.lines


async def test_its_metrics_are_served_where_no_client_comes(bench: Bench, process: Process) -> None:
    await bench.worker("aaaaaaaa")
    process.environment["SOCKETCLUSTER_METRICS_LISTEN"] = "127.0.0.1:0"
    await process.start()
    metrics_port = int((await process.line("metrics")).partition("port=")[2].split()[0])
    port = await process.port()
    await process.ready()
    assert await get(port)
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", metrics_port)
        writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
        text = (await reader.read()).decode()
        writer.close()
    assert 'socketcluster_balancer_accepted_total{transport="plain"} 1.0' in text
    assert "process_open_fds" in text
    assert await process.exit_status(signal.SIGTERM) == 0
