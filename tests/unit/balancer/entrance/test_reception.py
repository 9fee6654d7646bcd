"""What the balancer answers itself, and clients that wait for a worker."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
from pathlib import Path

import pytest
from support.balancer.bench import Bench, LogLines


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


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


async def test_an_answer_survives_what_the_client_still_sends(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing while bytes are unread would reset the connection and take the answer away."""
    monkeypatch.setattr("socketcluster_balancer.entrance.reception.LINGER", 0.5)
    await bench.start(await bench.worker("aaaaaaaa"))
    with socket.create_connection(("127.0.0.1", bench.port)) as client:
        client.sendall(b"\0" * 100_000)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        assert (await loop.sock_recv(client, 100)).startswith(b"HTTP/1.1 400 ")
        await bench.balancer.reception.idle()
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


async def test_a_client_that_sends_on_is_held_up_and_still_gets_its_answer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten megabytes of header: neither read to their end, nor a reason to take the answer away by a reset."""
    monkeypatch.setattr("socketcluster_balancer.entrance.reception.LINGER", 60)
    await bench.start(await bench.worker("aaaaaaaa"))
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", bench.port))
        sending = asyncio.ensure_future(loop.sock_sendall(client, b"GET / HTTP/1.1\r\nx: " + bytes(10_000_000)))
        reception = bench.balancer.reception
        await bench.until(lambda: reception.clients == 1)
        (attacker,) = reception._clients
        await bench.until(lambda: attacker.discarded > 256 * 1024)
        assert (await bench.get()).status == 200
        assert not sending.done()
        assert attacker.discarded <= (256 + 64) * 1024
        sending.cancel()
        assert (await loop.sock_recv(client, 100)).startswith(b"HTTP/1.1 431 ")


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


async def test_a_client_that_waits_is_served_when_a_worker_becomes_ready(bench: Bench) -> None:
    worker = await bench.worker("aaaaaaaa", ready=False)
    await bench.start(worker)
    waiting = asyncio.ensure_future(bench.get())
    await bench.until(lambda: bench.waiting == 1)
    await worker.tell(ready=True)
    assert (await waiting).said["worker"] == "aaaaaaaa"


async def test_a_client_waits_only_so_long(bench: Bench) -> None:
    worker = await bench.worker("aaaaaaaa", ready=False)
    await bench.start(worker, worker_wait=0.1)
    assert (await bench.get()).status == 503
    await worker.tell(ready=True)
    await bench.until(lambda: bool(bench.available))
    assert (await bench.get()).status == 200


async def test_a_client_waits_out_a_worker_that_is_killed_and_comes_back(bench: Bench) -> None:
    worker = await bench.worker("aaaaaaaa")
    await bench.start(worker)
    await worker.stop_grpc()
    worker.stop_listening_for_sockets()
    worker.break_links()
    waiting = asyncio.ensure_future(bench.get())
    await bench.until(lambda: bench.waiting == 1)
    worker.listen_for_sockets()
    await worker.start_grpc()
    assert (await waiting).said["via"] == "handoff"


async def test_only_so_many_clients_wait(bench: Bench) -> None:
    worker = await bench.worker("aaaaaaaa", ready=False)
    await bench.start(worker, max_waiting=3)
    waiting = [asyncio.ensure_future(bench.get()) for _ in range(3)]
    await bench.until(lambda: bench.waiting == 3)
    assert (await bench.get()).status == 503
    await worker.tell(ready=True)
    assert [answer.status for answer in await asyncio.gather(*waiting)] == [200] * 3


async def test_when_no_worker_takes_a_client_it_is_answered_503(bench: Bench) -> None:
    workers = [await bench.worker(letter * 8) for letter in "ab"]
    for worker in workers:
        worker.silent = True
    await bench.start(*workers, handoff_timeout=0.05, worker_wait=0)
    assert (await bench.get()).status == 503
    for worker in workers:
        await bench.until(lambda: not worker.received.empty())  # noqa: B023  # waited for at once
        assert worker.received.qsize() == 1


async def test_out_of_descriptors_new_clients_are_refused_and_the_old_are_served(
    bench: Bench, log_lines: LogLines
) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), head_timeout=30)
    loop = asyncio.get_running_loop()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as early, socket.socket() as late, socket.socket() as later:
        for client in (early, late, later):
            client.setblocking(False)
        await loop.sock_connect(early, ("127.0.0.1", bench.port))
        await loop.sock_sendall(early, b"GET / HT")
        assert (await bench.get()).status == 200  # so that the one before was accepted
        await bench.until_still(descriptors)
        spare = os.dup(0)
        os.close(spare)
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))  # nothing can be opened from here on
        try:
            for refused in (late, later):
                await loop.sock_connect(refused, ("127.0.0.1", bench.port))
                async with asyncio.timeout(60):
                    answer = await loop.sock_recv(refused, 1000)
                assert answer.startswith(b"HTTP/1.1 503")
                assert b"Retry-After" in answer
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await loop.sock_sendall(early, b"TP/1.1\r\n\r\n")
        assert (await loop.sock_recv(early, 100)).startswith(b"HTTP/1.1 200")
    assert (await bench.get()).status == 200
    assert "out of descriptors: new clients are refused" in log_lines(logging.ERROR)


async def test_the_balancers_own_answers_close_only_after_the_client(bench: Bench) -> None:
    await bench.start(await bench.worker("aaaaaaaa"))
    async with bench.client() as (reader, writer):
        writer.write(b"\0")
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.write(b"more")
        await writer.drain()
    await bench.balancer.reception.idle()
