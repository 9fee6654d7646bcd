"""Connections from load balancers in front, which say by the PROXY protocol who their clients are."""

from __future__ import annotations

import asyncio
import logging
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.balancer.bench import Bench, LogLines
from support.network import certificates

from socketcluster_wire import proxy_protocol

GET = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n"
CLIENT = ["203.0.113.7", 4711]
V1 = b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n"
V2 = proxy_protocol.SIGNATURE + b"\x21\x11\x00\x0c" + bytes([203, 0, 113, 7, 198, 51, 100, 1]) + b"\x12\x67\x01\xbb"
V2_TLS = V2[:15] + b"\x14" + V2[16:] + b"\x20\x00\x05\x01\x00\x00\x00\x00"
V2_IPV6 = (
    proxy_protocol.SIGNATURE + b"\x21\x21\x00\x24" + b"\x20\x01\x0d\xb8" + bytes(11) + b"\x07" + bytes(16) + V2[-4:]
)
LOCAL = proxy_protocol.SIGNATURE + b"\x20\x00\x00\x00"
TRUSTED = {"trusted_proxies": "10.0.0.0/8, 127.0.0.1, fd00::/8"}


@pytest.mark.parametrize("handoff", [True, False], ids=["handover", "relay"])
@pytest.mark.parametrize(
    ("header", "client", "tls"),
    [(V1, CLIENT, False), (V2, CLIENT, False), (V2_TLS, CLIENT, True), (V2_IPV6, ["2001:db8::7", 4711], False)],
    ids=["version 1", "version 2", "TLS in front", "IPv6"],
)
async def test_a_worker_learns_who_the_client_is(
    bench: Bench, handoff: bool, header: bytes, client: list[Any], tls: bool
) -> None:
    await bench.start(await bench.worker("aaaaaaaa", handoff=handoff), **TRUSTED)
    said = (await bench.send(header + GET)).said
    assert said["via"] == ("handoff" if handoff else "relay")
    assert said["client"] == client
    assert said["tls"] is tls
    assert said["head"] == len(GET)


@pytest.mark.parametrize("handoff", [True, False], ids=["handover", "relay"])
async def test_a_proxy_that_speaks_for_itself_is_the_client(bench: Bench, handoff: bool) -> None:
    await bench.start(await bench.worker("aaaaaaaa", handoff=handoff), **TRUSTED)
    for header in (LOCAL, b"PROXY UNKNOWN\r\n"):
        assert (await bench.send(header + GET)).said["client"][0] == "127.0.0.1"


@pytest.mark.parametrize("header", [V1, V2_TLS], ids=["version 1", "version 2"])
async def test_a_header_may_come_in_pieces(bench: Bench, header: bytes) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), **TRUSTED)
    everything = header + GET
    async with bench.client() as (reader, writer):
        for position in range(len(everything)):
            writer.write(everything[position : position + 1])
            await writer.drain()
            if position + 1 < len(header):
                seen = position + 1
                await bench.until(lambda: read_so_far(bench) == seen)  # noqa: B023  # waited for at once
        assert b'"203.0.113.7"' in await reader.read()


def read_so_far(bench: Bench) -> int | None:
    """How many bytes of the only header that is awaited were read."""
    received = bench.balancer.entrance._received
    return len(next(iter(received.values()))[1]) if received else None


async def test_a_later_request_of_the_connection_has_no_header(bench: Bench) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), **TRUSTED)
    answer = await bench.send(V2 + b"POST / HTTP/1.1\r\ncontent-length: 400\r\n\r\n", V2 * 14 + b"0123456789" * 12)
    assert answer.status == 200


@pytest.mark.parametrize("header", [V1, V2], ids=["version 1", "version 2"])
async def test_tls_may_follow_the_header(bench: Bench, tmp_path: Path, header: bytes) -> None:
    files = certificates.make(tmp_path, "first")
    await bench.start(await bench.worker("aaaaaaaa"), tls_cert=files.cert, tls_key=files.key, **TRUSTED)
    context = ssl.create_default_context(cafile=str(files.cert))
    async with bench.client() as (reader, writer):
        writer.write(header)
        await writer.drain()
        await writer.start_tls(context, server_hostname="127.0.0.1")
        writer.write(GET)
        answer = await reader.read()
    assert b'"client": ["203.0.113.7", 4711]' in answer
    assert b'"tls": true' in answer
    assert b'"via": "relay"' in answer


@pytest.mark.parametrize(
    "sent",
    [
        GET,
        b"PROXY TCP4 203.0.113.7 198.51.100.1 4711\r\n" + GET,
        b"PROXY " + b"x" * 200,
        V2[:12] + b"\x31" + V2[13:] + GET,
        proxy_protocol.SIGNATURE + b"\x21\x11\xff\xff" + bytes(2000),
        proxy_protocol.encode(("192.0.2.1", 1), ("192.0.2.2", 2), tls=False, key=b"another secret") + GET,
        b"\x16\x03\x01\x02\x00",
    ],
    ids=["none", "cut", "endless", "version 3", "huge", "forged", "tls"],
)
async def test_what_is_no_header_is_closed_and_logged(bench: Bench, log_lines: LogLines, sent: bytes) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), **TRUSTED)
    async with bench.client() as (reader, writer):
        writer.write(sent)
        with suppress(ConnectionResetError):  # what it sent was not read
            assert await reader.read() == b""
    assert log_lines(logging.WARNING) == ["connections from trusted proxies without a proper PROXY header were closed"]
    assert bench.balancer.counters.refused["proxy_header"] == 1
    assert (await bench.send(V2 + GET)).said["client"] == CLIENT


async def test_those_that_are_not_trusted_are_believed_nothing(bench: Bench) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), trusted_proxies="10.0.0.0/8,::1/128")
    assert (await bench.send(GET)).said["client"][0] == "127.0.0.1"
    for header in (V1, V2, proxy_protocol.encode(("192.0.2.1", 1), ("192.0.2.2", 2), tls=False, key=b"another secret")):
        assert (await bench.send(header + GET)).status == 400


async def test_limits_count_the_clients_and_not_the_proxy(bench: Bench) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), address_socket_limit=1, **TRUSTED)
    other = V1.replace(b"203.0.113.7", b"203.0.113.8")
    async with bench.client() as (_, waiting):
        waiting.write(V2)  # the same client in either version
        await bench.until(lambda: bench.balancer.counters.accepted == 1)
        assert (await bench.send(V1 + GET)).status == 429
        assert (await bench.send(other + GET)).said["client"] == ["203.0.113.8", 4711]
    assert bench.balancer.counters.refused["address_socket_limit"] == 1


async def test_a_header_that_does_not_come_is_not_waited_for(bench: Bench, log_lines: LogLines) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), head_timeout=0.5, **TRUSTED)
    assert await answer_to(bench, b"") == b""
    assert log_lines(logging.WARNING) == []  # a connection that was opened in advance
    assert await answer_to(bench, V2[:-1]) == b""
    assert len(log_lines(logging.WARNING)) == 1


async def test_a_client_that_goes_within_its_header(bench: Bench) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), **TRUSTED)
    for sent in (b"", V2[:5]):
        async with bench.client() as (reader, writer):
            writer.write(sent)
            writer.write_eof()
            assert await reader.read() == b""
    async with bench.client() as (_, writer):
        writer.write(V2[:5])
        await bench.until(lambda: read_so_far(bench) == 5)
        writer.transport.abort()
        await bench.until(lambda: read_so_far(bench) is None)


async def test_a_balancer_that_stops_gives_a_header_a_moment(bench: Bench) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), **TRUSTED)
    async with bench.client() as (reader, writer):
        writer.write(V2[:5])
        await bench.until(lambda: read_so_far(bench) == 5)
        stopping = asyncio.create_task(bench.stop(10))
        writer.write(V2[5:] + GET)
        assert b'"203.0.113.7"' in await reader.read()
        await stopping


async def test_a_balancer_that_stops_waits_for_no_header(bench: Bench) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), **TRUSTED)
    async with bench.client() as (reader, writer):
        writer.write(V2[:5])
        await bench.until(lambda: read_so_far(bench) == 5)
        await bench.stop(0)
        assert await reader.read() == b""


async def answer_to(bench: Bench, sent: bytes) -> bytes:
    async with bench.client() as (reader, writer):
        writer.write(sent)
        data: bytes = await reader.read()
        return data
