"""Clients that take their time for a request, or never end one."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, suppress

import psutil
import pytest
from support.balancer.bench import Bench
from support.balancer.clients import open_client, read_to_end

from socketcluster_wire.request_head import RequestHead


async def test_silence_and_a_slow_head_have_each_their_own_time(bench: Bench) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), first_byte_timeout=0.05, head_timeout=300)
    with open_client(bench) as silent, open_client(bench, b"GET ") as slow:
        assert await read_to_end(silent) == b""
        slow.send(b"/ HTTP/1.1\r\n\r\n")
        assert (await read_to_end(slow)).startswith(b"HTTP/1.1 200 ")
    assert bench.refused == {"first_byte_timeout": 1}


async def test_hundreds_of_slow_heads_hold_up_nobody(bench: Bench) -> None:
    """A byte, and another one, and never an end (Slowloris)."""
    await bench.start(await bench.worker("aaaaaaaa"), head_timeout=0.5)
    with ExitStack() as stack:
        clients = [stack.enter_context(open_client(bench)) for _ in range(300)]
        await bench.until(lambda: bench.balancer.limits.connections == 300)
        for letter in (b"G", b"E", b"T", b" "):
            for client in clients:
                with suppress(OSError):  # it has been answered
                    client.send(letter)
            assert (await bench.get()).status == 200
        answers = await asyncio.gather(*map(read_to_end, clients))
    assert {answer[:13] for answer in answers} == {b"HTTP/1.1 408 "}
    await bench.until(lambda: bench.balancer.limits.connections == 0)


async def test_hundreds_of_connections_on_which_nothing_comes_are_closed(bench: Bench) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), first_byte_timeout=2, address_socket_limit=250)
    with ExitStack() as stack:
        clients = [stack.enter_context(open_client(bench)) for _ in range(300)]
        answers = await asyncio.gather(*map(read_to_end, clients))
    kinds = [answer[:13] for answer in answers]
    assert (kinds.count(b""), kinds.count(b"HTTP/1.1 429 ")) == (250, 50)
    await bench.until(lambda: bench.balancer.limits.connections == 0)
    assert (await bench.get()).status == 200


async def test_ten_megabytes_of_header_get_nowhere(bench: Bench) -> None:
    await bench.start(await bench.worker("aaaaaaaa"))
    assert (await bench.get()).status == 200
    own = psutil.Process()
    before = own.memory_info().rss
    piece = b"x-padding: " + b"x" * 8000 + b"\r\n"

    async def attack() -> bytes:
        async with bench.client() as (reader, writer):
            with suppress(ConnectionError):
                writer.write(b"GET / HTTP/1.1\r\n")
                for _ in range(10_000_000 // len(piece)):
                    writer.write(piece)
                    await writer.drain()
            with suppress(ConnectionError):
                return bytes(await reader.read())
            return b""  # it went on after the time that it got to take its answer

    attackers = [asyncio.ensure_future(attack()) for _ in range(20)]
    for _ in range(20):
        assert (await bench.get()).status == 200
    assert {answer[:13] for answer in await asyncio.gather(*attackers)} <= {b"HTTP/1.1 431 ", b""}
    assert own.memory_info().rss - before < 50_000_000
    assert bench.refused == {"head_too_large": 20}


async def test_a_head_in_tiny_pieces_is_read_again_only_when_it_may_be_complete(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, parse = [], RequestHead.parse

    def reading(data: bytes, limit: int) -> RequestHead | None:
        read.append(len(data))
        return parse(data, limit)

    monkeypatch.setattr(RequestHead, "parse", reading)
    await bench.start(await bench.worker("aaaaaaaa"))
    clients = bench.balancer.reception._clients
    async with bench.client() as (reader, writer):
        for size in range(60, 400, 20):
            writer.write(b"GET / HTTP/1.1\r\n".ljust(60, b"x") if size == 60 else b": xxx\r\nyyyyyyyyyyyyy")
            await bench.until(lambda: [len(client.data) for client in clients] == [size])  # noqa: B023  # waited for at once
        writer.write(b"\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    assert read == [60, 80, 384]
