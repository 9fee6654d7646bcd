"""What a service tells of itself in numbers."""

from __future__ import annotations

import asyncio
import re
import socket
from contextlib import suppress

import pytest

from socketcluster_runtime import metrics
from socketcluster_runtime.errors import AddressInUseError, SettingsError
from socketcluster_runtime.metrics import Gauges, make_registry, served

PATIENCE = 60.0


async def ask(port: int, request: bytes) -> bytes:
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        return answer


async def test_metrics_are_read_when_they_are_asked_for() -> None:
    registry, number = make_registry(), 1
    registry.register(Gauges(("socketcluster_test_things", "Things.", lambda: number)))
    async with served(registry, "127.0.0.1:0") as bound:
        assert bound is not None
        assert b"\nsocketcluster_test_things 1.0\n" in await ask(bound[1], b"GET /metrics HTTP/1.1\r\n\r\n")
        number = 2
        answer = await ask(bound[1], b"GET /metrics?x=1 HTTP/1.1\r\nAccept: text/plain;version=0.0.4\r\n\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n")
        assert f"Content-Length: {len(body)}\r\n".encode() in head
        assert b"\nsocketcluster_test_things 2.0\n" in body
        assert b"\nprocess_resident_memory_bytes " in body


async def test_nothing_else_is_there() -> None:
    async with served(make_registry(), "127.0.0.1:0") as bound:
        assert bound is not None
        assert (await ask(bound[1], b"GET / HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 404 ")
        assert (await ask(bound[1], b"POST /metrics HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 404 ")
        _, _, body = (await ask(bound[1], b"HEAD /metrics HTTP/1.1\r\n\r\n")).partition(b"\r\n\r\n")
        assert body == b""


async def test_without_an_address_nothing_is_served() -> None:
    async with served(make_registry(), None) as bound:
        assert bound is None


async def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(AddressInUseError, match=address):
            async with served(make_registry(), address):
                pass


@pytest.mark.parametrize("address", ["192.0.2.1:0", "127.0.0.1:99999", "no such host:9300"])
async def test_an_address_that_is_not_this_hosts_is_named(address: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(f"SOCKETCLUSTER_METRICS_LISTEN: cannot listen on {address}: ")):
        async with served(make_registry(), address):
            pass


async def test_a_reader_that_says_nothing_or_too_much_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "READ_TIMEOUT", 0.05)
    async with served(make_registry(), "127.0.0.1:0") as bound:
        assert bound is not None
        for request in (b"", b"GET /metrics", b"x" * 3 * metrics.MAX_HEAD_BYTES):
            with suppress(ConnectionResetError):  # what it sent was not read to its end
                assert await ask(bound[1], request) == b""


async def test_only_so_many_readers_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_READERS", 1)
    async with served(make_registry(), "127.0.0.1:0") as bound:
        assert bound is not None
        first_reader, first = await asyncio.open_connection("127.0.0.1", bound[1])
        try:
            assert await ask(bound[1], b"") == b""
            first.write(b"GET /metrics HTTP/1.1\r\n\r\n")
            assert (await first_reader.read()).startswith(b"HTTP/1.1 200 ")
        finally:
            first.close()
