"""Clients that come by TLS, which ends at the balancer."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import ssl
from contextlib import suppress

import pytest
from support.balancer.bench import PATIENCE, Bench, LogLines
from support.balancer.clients import GET, connected, get_blocking, trusting
from support.network import certificates

BIG = 16 * 1024 * 1024


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_by_tls_is_relayed_and_the_worker_knows_how_it_came(
    bench: Bench, files: certificates.Files, version: ssl.TLSVersion
) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), tls_cert=files.cert, tls_key=files.key)
    context = trusting(files)
    context.minimum_version = context.maximum_version = version
    answer, facts = await asyncio.to_thread(get_blocking, bench.port, context)
    assert b'"via": "relay"' in answer
    assert b'"tls": true' in answer
    assert facts["alpn"] == "http/1.1"
    assert facts["version"] == ("TLSv1.2" if version is ssl.TLSVersion.TLSv1_2 else "TLSv1.3")
    assert "GCM" in facts["cipher"] or "CHACHA20" in facts["cipher"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_session_is_resumed(bench: Bench, files: certificates.Files, version: ssl.TLSVersion) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), tls_cert=files.cert, tls_key=files.key)
    context = trusting(files)
    context.minimum_version = context.maximum_version = version
    _, first = await asyncio.to_thread(get_blocking, bench.port, context)
    _, second = await asyncio.to_thread(get_blocking, bench.port, context, first["session"])
    assert (first["reused"], second["reused"]) == (False, True)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_older_versions_and_ciphers_without_forward_secrecy_are_refused(
    bench: Bench, files: certificates.Files
) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), tls_cert=files.cert, tls_key=files.key)
    old = trusting(files)
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    weak = trusting(files)
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    weak.set_ciphers("ECDHE+AES:!AESGCM:!AESCCM")
    for context in (old, weak):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.to_thread(get_blocking, bench.port, context)
    assert b"200 OK" in (await asyncio.to_thread(get_blocking, bench.port, trusting(files)))[0]


async def ask_plainly(port: int, *parts: bytes) -> bytes:
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for part in parts:
            writer.write(part)
            with suppress(ConnectionError):
                await writer.drain()
        answer = b""
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                answer += data
        writer.close()
        return answer


async def test_who_speaks_no_tls_fails(bench: Bench, files: certificates.Files, log_lines: LogLines) -> None:
    balancer = await bench.start(await bench.worker("aaaaaaaa"), tls_cert=files.cert, tls_key=files.key)
    assert not (await ask_plainly(bench.port, b"\x80\x01 nonsense")).startswith(b"HTTP")
    await bench.until(lambda: "TLS handshakes failed" in log_lines(logging.INFO))
    assert (balancer.counters.refused["tls_handshake"], balancer.counters.refused["plain_http"]) == (1, 0)
    await bench.until(lambda: balancer.limits.connections == 0)


@pytest.mark.parametrize(
    "sent",
    [
        (GET,),
        (b"G", b"ET / HTTP/1.1\r\n"),
        (b"POST / HTTP/1.1\r\ncontent-length: 10000000\r\n\r\n", bytes(100_000)),
    ],
)
async def test_plain_http_is_told_of_https(
    bench: Bench, files: certificates.Files, log_lines: LogLines, sent: tuple[bytes, ...]
) -> None:
    balancer = await bench.start(await bench.worker("aaaaaaaa"), tls_cert=files.cert, tls_key=files.key)
    answer = await ask_plainly(bench.port, *sent)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\n\r\nThis port speaks HTTPS" in answer
    assert log_lines(logging.INFO)[-1] == "plain HTTP at the port of HTTPS: answered 400"
    assert (balancer.counters.refused["tls_handshake"], balancer.counters.refused["plain_http"]) == (0, 1)
    await bench.until(lambda: balancer.limits.connections == 0)
    async with connected(bench, trusting(files)) as (reader, writer):
        writer.write(GET)
        assert b"200 OK" in await reader.read()


async def test_plain_http_that_never_ends_does_not_stay(bench: Bench, files: certificates.Files) -> None:
    balancer = await bench.start(await bench.worker("aaaaaaaa"), tls_cert=files.cert, tls_key=files.key)
    async with asyncio.timeout(PATIENCE):
        _, writer = await asyncio.open_connection("127.0.0.1", bench.port)
        writer.write(GET)
        with suppress(ConnectionError):  # it comes, or this lasts until the timeout
            while True:
                writer.write(bytes(65536))
                await writer.drain()
        writer.close()
    await bench.until(lambda: balancer.limits.connections == 0)


@pytest.mark.parametrize("secure_first", [True, False])
async def test_large_bodies_both_ways(bench: Bench, files: certificates.Files, secure_first: bool) -> None:
    """Back-pressure: the one that sends waits for the one that does not read, whichever it is."""
    worker = await bench.worker("aaaaaaaa")
    body = os.urandom(BIG)
    may_read = asyncio.Event()
    sent = 0

    async def send(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        for start in range(0, BIG, 65536):
            writer.write(body[start : start + 65536])
            await writer.drain()
            sent = start + 65536

    async def take(reader: asyncio.StreamReader) -> bytes:
        await may_read.wait()
        return hashlib.sha256(await reader.readexactly(BIG)).digest()

    taken: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if secure_first:
            taken.set_result(await take(reader))
        else:
            await send(writer)
        writer.close()

    worker.serve = serve
    await bench.start(worker, tls_cert=files.cert, tls_key=files.key)
    async with connected(bench, trusting(files)) as (reader, writer):
        writer.write(GET)
        client = asyncio.ensure_future(send(writer) if secure_first else take(reader))
        await bench.until_still(lambda: sent)
        assert 0 < sent < BIG
        may_read.set()
        result = await client
        digest = await taken if secure_first else result
    assert digest == hashlib.sha256(body).digest()
    await bench.until(lambda: bench.relays == 0)


async def test_a_client_that_goes_takes_the_worker_s_connection_along(bench: Bench, files: certificates.Files) -> None:
    worker = await bench.worker("aaaaaaaa")
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"hello")
        await reader.read()
        ended.set()
        writer.close()

    worker.serve = serve
    await bench.start(worker, tls_cert=files.cert, tls_key=files.key)
    async with connected(bench, trusting(files)) as (reader, writer):
        writer.write(GET)
        assert await reader.readexactly(5) == b"hello"
    async with asyncio.timeout(PATIENCE):
        await ended.wait()
    await bench.until(lambda: bench.relays == 0)


async def test_bad_heads_are_answered(bench: Bench, files: certificates.Files) -> None:
    await bench.start(
        await bench.worker("aaaaaaaa"), tls_cert=files.cert, tls_key=files.key, head_timeout=1, max_head_bytes=512
    )
    for sent, status in (
        (b"\x00\x01 nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 200, b"431"),
        (b"GET / HTTP/1.1\r\n", b"408"),
    ):
        async with connected(bench, trusting(files)) as (reader, writer):
            writer.write(sent)
            assert (await reader.read()).startswith(b"HTTP/1.1 " + status)


async def test_a_client_that_says_nothing_is_closed(bench: Bench, files: certificates.Files) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), tls_cert=files.cert, tls_key=files.key, first_byte_timeout=1)
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", bench.port)  # not even a handshake
        with suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
    async with connected(bench, trusting(files)) as (reader, writer):
        with suppress(ConnectionError):
            assert await reader.read() == b""


async def test_no_worker_is_a_503(bench: Bench, files: certificates.Files) -> None:
    await bench.start(workers=[f"unix:{bench.folder}/none"], tls_cert=files.cert, tls_key=files.key, worker_wait=0)
    async with connected(bench, trusting(files)) as (reader, writer):
        writer.write(GET)
        assert (await reader.read()).startswith(b"HTTP/1.1 503")


# Files
