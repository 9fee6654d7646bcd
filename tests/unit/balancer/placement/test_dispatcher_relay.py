"""Clients whose bytes are copied, because their socket cannot be handed over."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from contextlib import suppress

import pytest
from support.balancer.bench import Bench

from socketcluster_runtime.sockets import relay

BIG = 16 * 1024 * 1024


async def check_that_a_client_is_relayed(bench: Bench) -> None:
    """Check that its bytes are copied, and that the worker learns its address."""
    async with bench.client() as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        text = (await reader.read()).decode()
        own = writer.get_extra_info("sockname")
    assert '"via": "relay"' in text
    assert f'"client": ["127.0.0.1", {own[1]}]' in text


async def test_without_a_handoff_path_on_this_host_bytes_are_relayed(bench: Bench) -> None:
    worker = await bench.worker("aaaaaaaa", handoff=False, handoff_path="/nonexistent/handoff")
    await bench.start(worker)
    await check_that_a_client_is_relayed(bench)


async def test_a_path_too_long_for_this_host_is_not_on_it(bench: Bench) -> None:
    await bench.start(await bench.worker("aaaaaaaa", handoff=False, handoff_path="/x" * 200))
    assert (await bench.get()).said["via"] == "relay"


async def test_handover_can_be_switched_off(bench: Bench) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), handoff=False)
    assert (await bench.get()).said["via"] == "relay"


async def test_a_worker_on_this_host_is_reached_without_tcp(bench: Bench) -> None:
    worker = await bench.worker("aaaaaaaa")
    await worker.listen_at_a_path()
    await bench.start(worker, handoff=False)
    for number in (1, 2):
        await check_that_a_client_is_relayed(bench)
        assert worker.came_by_path == number
    worker.leave_its_path()
    assert (await bench.get()).said["via"] == "relay"
    assert worker.came_by_path == 2


async def test_a_path_of_another_host_is_not_tried(bench: Bench) -> None:
    worker = await bench.worker("aaaaaaaa", handoff=False, http_path="/nonexistent/http")
    balancer = await bench.start(worker)
    assert (await bench.get()).said["via"] == "relay"
    assert [worker.http_path for worker in balancer.workers.available] == [""]


async def test_the_http_host_may_be_another_one(bench: Bench) -> None:
    await bench.start(await bench.worker("aaaaaaaa", handoff=False, http_host="localhost"))
    assert (await bench.get()).said["via"] == "relay"


async def test_a_worker_whose_port_is_closed_is_passed_over(bench: Bench) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        dead = await bench.worker("aaaaaaaa", handoff=False, http=False, http_port=port)
        await bench.start(dead, await bench.worker("bbbbbbbb"))
        assert (await bench.get("/?sid=aaaaaaaa.1")).said["worker"] == "bbbbbbbb"


async def test_a_worker_that_can_be_reached_in_no_way_is_passed_over(bench: Bench) -> None:
    nowhere = await bench.worker("aaaaaaaa", handoff=False, http=False)
    await bench.start(nowhere, await bench.worker("bbbbbbbb"))
    assert (await bench.get("/?sid=aaaaaaaa.1")).said["worker"] == "bbbbbbbb"


async def test_a_large_upload_arrives_whole(bench: Bench) -> None:
    await bench.start(await bench.worker("aaaaaaaa", handoff=False))
    body = os.urandom(BIG)
    answer = await bench.send(b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % BIG, body)
    assert answer.said["body"] == hashlib.sha256(body).hexdigest()


async def test_a_large_download_waits_for_a_slow_reader(bench: Bench) -> None:
    """Back-pressure: the worker cannot send all of it while the client does not read, however long that takes."""
    worker = await bench.worker("aaaaaaaa", handoff=False)
    body = os.urandom(BIG)
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        for start in range(0, BIG, 65536):
            writer.write(body[start : start + 65536])
            await writer.drain()
            sent = start + 65536
        writer.close()

    worker.serve = serve
    await bench.start(worker)
    loop = asyncio.get_running_loop()
    with socket.create_connection(("127.0.0.1", bench.port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.setblocking(False)
        await loop.sock_sendall(client, b"GET / HTTP/1.1\r\n\r\n")
        await bench.until_still(lambda: sent)
        assert 0 < sent < BIG
        digest = hashlib.sha256()
        while data := await loop.sock_recv(client, 65536):
            digest.update(data)
    assert digest.digest() == hashlib.sha256(body).digest()


async def test_a_large_upload_waits_for_a_slow_worker(bench: Bench) -> None:
    worker = await bench.worker("aaaaaaaa", handoff=False)
    body = os.urandom(BIG)
    may_read = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await may_read.wait()
        received = await reader.readexactly(BIG)
        writer.write(hashlib.sha256(received).hexdigest().encode())
        writer.close()

    worker.serve = serve
    await bench.start(worker)
    sent = 0
    async with bench.client() as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\n\r\n")

        async def upload() -> None:
            nonlocal sent
            for start in range(0, BIG, 65536):
                writer.write(body[start : start + 65536])
                await writer.drain()
                sent = start + 65536

        uploading = asyncio.ensure_future(upload())
        await bench.until_still(lambda: sent)
        assert 0 < sent < BIG
        may_read.set()
        await uploading
        assert await reader.read() == hashlib.sha256(body).hexdigest().encode()


async def test_a_client_may_end_its_half_first(bench: Bench) -> None:
    worker = await bench.worker("aaaaaaaa", handoff=False)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        everything = await reader.read()  # until the client's end
        writer.write(b"got " + everything[-4:])
        await writer.drain()
        writer.close()

    worker.serve = serve
    await bench.start(worker)
    async with bench.client() as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\n\r\nrest")
        writer.write_eof()
        assert await reader.read() == b"got rest"
    await bench.until(lambda: bench.relays == 0)


async def test_a_worker_may_end_its_half_first(bench: Bench) -> None:
    worker = await bench.worker("aaaaaaaa", handoff=False)
    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"bye")
        writer.write_eof()
        got.set_result(await reader.read())
        writer.close()

    worker.serve = serve
    await bench.start(worker)
    async with bench.client() as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await reader.read() == b"bye"
        writer.write(b"still here")
        writer.write_eof()
        assert await got == b"still here"
    await bench.until(lambda: bench.relays == 0)


async def test_a_client_that_does_not_end_after_the_worker_is_cut_off(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "LINGER", 0.01)
    worker = await bench.worker("aaaaaaaa", handoff=False)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    worker.serve = serve
    await bench.start(worker)
    async with bench.client() as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await reader.read() == b""
        await bench.until(lambda: bench.relays == 0)


@pytest.mark.parametrize("side", ["client", "worker"])
async def test_when_one_side_is_reset_the_other_is_closed(bench: Bench, side: str) -> None:
    worker = await bench.worker("aaaaaaaa", handoff=False)
    reached, ended = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        reached.set()
        if side == "worker":
            writer.transport.abort()
        with suppress(OSError):
            await reader.read()
        ended.set()
        writer.close()

    worker.serve = serve
    await bench.start(worker)
    async with bench.client() as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await reached.wait()
        if side == "client":
            writer.transport.abort()
        with suppress(OSError):
            assert await reader.read() == b""
        await ended.wait()
    await bench.until(lambda: bench.relays == 0)


async def test_hundreds_of_clients_are_relayed_at_once(bench: Bench) -> None:
    await bench.start(await bench.worker("aaaaaaaa", handoff=False), await bench.worker("bbbbbbbb", handoff=False))
    answers = await asyncio.gather(*(bench.get() for _ in range(200)))
    assert {answer.said["worker"] for answer in answers} == {"aaaaaaaa", "bbbbbbbb"}
    await bench.until(lambda: bench.relays == 0)


async def test_relays_get_time_to_end_when_the_balancer_stops(bench: Bench) -> None:
    worker = await bench.worker("aaaaaaaa", handoff=False)
    reached, may_end = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        reached.set()
        await may_end.wait()
        writer.write(b"the end")
        writer.close()

    worker.serve = serve
    await bench.start(worker)
    async with bench.client() as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await reached.wait()
        stopping = asyncio.ensure_future(bench.stop(20))
        may_end.set()
        assert await reader.read() == b"the end"
        writer.close()
        await stopping


async def test_a_relay_that_does_not_end_is_cut_off(bench: Bench) -> None:
    worker = await bench.worker("aaaaaaaa", handoff=False)
    reached = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        reached.set()
        with suppress(OSError):
            await reader.read()
        writer.close()

    worker.serve = serve
    await bench.start(worker)
    async with bench.client() as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await reached.wait()
        await bench.stop(0.05)
        with suppress(OSError):
            assert await reader.read() == b""
    await bench.until(lambda: bench.relays == 0)
