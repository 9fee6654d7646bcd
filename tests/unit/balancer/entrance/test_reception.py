"""What the balancer answers itself, and clients that wait for a worker."""

from __future__ import annotations

import asyncio
import logging
import os

import pytest
from support.balancer.bench import Bench, LogLines


async def test_garbage_is_answered_400_at_once(
    bench: Bench, caplog: pytest.LogCaptureFixture, log_lines: LogLines
) -> None:
    await bench.start(await bench.worker("aaaaaaaa"))
    for garbage in (
        b"\x16\x03\x01\x02\x00",
        b"\0",
        b"hello there\r\n\r\n",
        b"GET / HTTP/3.0\r\n\r\n",
        os.urandom(5000),
    ):
        answer = await bench.send(garbage)
        assert answer.status == 400
        assert answer.headers["connection"] == "close"
    assert not log_lines(logging.WARNING)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_slow_head_is_answered_408(bench: Bench) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), head_timeout=0.05)
    assert (await bench.send(b"GET / HTTP/1.1\r\nhost: a\r\n")).status == 408


async def test_a_client_that_says_nothing_is_closed(bench: Bench) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), first_byte_timeout=0.05)
    async with bench.client() as (reader, _):
        assert await reader.read() == b""


async def test_clients_time_out_one_by_one(bench: Bench) -> None:
    """One timer serves them all, and a client that is done does not keep its place."""
    await bench.start(await bench.worker("aaaaaaaa"), head_timeout=0.5)
    slow = [asyncio.ensure_future(bench.send(b"GET")) for _ in range(3)]
    assert (await bench.get()).status == 200
    assert [answer.status for answer in await asyncio.gather(*slow)] == [408] * 3
    assert (await bench.send(b"GET")).status == 408


async def test_a_big_head_is_answered_431(bench: Bench) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), max_head_bytes=1000)
    assert (await bench.get("/", padding="x" * 900)).status == 200
    assert (await bench.get("/", padding="x" * 1000)).status == 431
    assert (await bench.get("/" + "x" * 100_000)).status == 431


async def test_the_largest_head_fits_a_handoff_packet(bench: Bench) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), max_head_bytes=30 * 1024)
    assert (await bench.get("/", padding="x" * (30 * 1024 - 100))).said["via"] == "handoff"


async def test_without_a_worker_a_browser_gets_a_page_that_reloads_itself(bench: Bench) -> None:
    await bench.start(workers=[f"unix:{bench.folder}/nobody"], worker_wait=0)
    answer = await bench.get("/", accept="text/html,application/xhtml+xml")
    assert answer.status == 503
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["retry-after"] == "1"
    assert b'<meta http-equiv="refresh"' in answer.body
    assert b"No worker is ready" in answer.body
    assert len(answer.body) == int(answer.headers["content-length"])


async def test_without_a_worker_everyone_else_gets_text(bench: Bench) -> None:
    await bench.start(workers=[f"unix:{bench.folder}/nobody"], worker_wait=0)
    answer = await bench.get("/", accept="*/*")
    assert (answer.status, answer.headers["content-type"]) == (503, "text/plain; charset=utf-8")
    assert b"No worker is ready" in answer.body
    head = await bench.send(b"HEAD / HTTP/1.1\r\n\r\n")
    assert (head.status, head.body) == (503, b"")
    assert head.headers["content-length"] == answer.headers["content-length"]
