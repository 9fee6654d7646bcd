"""Sockets that are handed to a worker of the same host."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from typing import Any

import pytest

Bench = Any  # of conftest.py, which cannot be imported


def request(target: str = "/", body: bytes = b"", *headers: str) -> bytes:
    lines = [f"POST {target} HTTP/1.1", "host: test", f"content-length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def pending(worker: Any) -> int:
    """How many clients are on their way to a worker, or wait for that."""
    return len(worker.link._in_flight) + len(worker.link._queue)


async def test_a_worker_gets_the_socket_itself_and_what_was_read(bench: Bench) -> None:
    await bench.start(await bench.worker("aaaaaaaa"))
    async with bench.client() as (reader, writer):
        writer.write(request("/x?y"))
        text = (await reader.read()).partition(b"\r\n\r\n")[2].decode()
        own = writer.get_extra_info("sockname")
    assert f'"client": ["127.0.0.1", {own[1]}]' in text
    assert f'"head": {len(request("/x?y"))}' in text
    assert '"via": "handoff"' in text
    assert '"nodelay": 1' in text
    assert '"keepalive": 1' in text


@pytest.mark.parametrize("size", [10, 100_000])
async def test_a_body_that_comes_with_the_head_arrives_whole(bench: Bench, size: int) -> None:
    await bench.start(await bench.worker("aaaaaaaa"))
    body = bytes(range(256)) * (size // 256 + 1)
    answer = await bench.send(request("/", body))
    assert answer.said["body"] == hashlib.sha256(body).hexdigest()


async def test_a_head_may_come_byte_by_byte(bench: Bench) -> None:
    await bench.start(await bench.worker("aaaaaaaa"))
    data = request("/", b"body")
    answer = await bench.send(*(data[position : position + 1] for position in range(len(data))))
    assert answer.said["body"] == hashlib.sha256(b"body").hexdigest()


async def test_without_acknowledgement_another_worker_gets_the_client(bench: Bench) -> None:
    mute, other = await bench.worker("aaaaaaaa"), await bench.worker("bbbbbbbb")
    mute.silent = True
    await bench.start(mute, other, handoff_timeout=0.3)
    answer = await bench.get("/?sid=aaaaaaaa.1")
    assert answer.said["worker"] == "bbbbbbbb"
    assert (await mute.received.get()).head.startswith(b"GET /?sid=")


async def test_a_late_acknowledgement_fails_so_one_worker_has_the_client(bench: Bench) -> None:
    """The worker was stopped while its packet lay in the socket."""
    late, other = await bench.worker("aaaaaaaa"), await bench.worker("bbbbbbbb")
    late.pause_taking()
    await bench.start(late, other, handoff_timeout=0.3)
    answer = await bench.get("/?sid=aaaaaaaa.1")
    assert answer.said["worker"] == "bbbbbbbb"
    late.resume_taking()
    assert isinstance(await late.refused_acks.get(), BrokenPipeError)


async def test_the_clients_of_a_broken_link_go_to_another_worker(bench: Bench) -> None:
    dying, other = await bench.worker("aaaaaaaa"), await bench.worker("bbbbbbbb")
    dying.silent = True
    await bench.start(dying, other, handoff_timeout=30)
    clients = [asyncio.ensure_future(bench.get("/?sid=aaaaaaaa.1")) for _ in range(100)]
    for _ in range(64):  # the rest is queued by flow control
        await dying.received.get()
    dying.stop_listening_for_sockets()
    dying.break_links()
    answers = await asyncio.gather(*clients)
    assert {answer.said["worker"] for answer in answers} == {"bbbbbbbb"}


async def test_a_worker_whose_socket_nobody_listens_on_is_passed_over(bench: Bench) -> None:
    dead, other = await bench.worker("aaaaaaaa"), await bench.worker("bbbbbbbb")
    dead.stop_listening_for_sockets()
    await bench.start(dead, other)
    answer = await bench.get("/?sid=aaaaaaaa.1")
    assert answer.said["worker"] == "bbbbbbbb"


async def test_a_link_is_opened_again_after_it_broke(bench: Bench) -> None:
    worker = await bench.worker("aaaaaaaa")
    balancer = await bench.start(worker)
    assert (await bench.get()).said["via"] == "handoff"
    worker.break_links()
    (known,) = balancer.workers.available
    await bench.until(lambda: known.suspect_until > 0)
    assert (await bench.get()).said["via"] == "handoff"


async def test_hundreds_of_clients_at_once_pass_flow_control(bench: Bench) -> None:
    workers = [await bench.worker(letter * 8) for letter in "abc"]
    await bench.start(*workers)
    answers = await asyncio.gather(*(bench.get(f"/{number}") for number in range(600)))
    assert {answer.said["worker"] for answer in answers} == {"aaaaaaaa", "bbbbbbbb", "cccccccc"}


async def test_a_worker_gets_no_more_than_64_packets_it_has_not_acknowledged(bench: Bench) -> None:
    worker = await bench.worker("aaaaaaaa")
    worker.silent = True
    balancer = await bench.start(worker, handoff_timeout=30)
    clients = [asyncio.ensure_future(bench.get()) for _ in range(80)]
    (known,) = balancer.workers.available
    await bench.until(lambda: pending(known) == 80)
    await bench.until_still(worker.received.qsize)
    assert worker.received.qsize() == 64
    worker.silent = False
    worker.break_links()
    assert len([answer.said for answer in await asyncio.gather(*clients)]) == 80


async def test_a_worker_that_acknowledges_what_it_was_not_sent_is_cut_off(bench: Bench) -> None:
    liar, other = await bench.worker("aaaaaaaa"), await bench.worker("bbbbbbbb")
    liar.ack_offset = 1
    await bench.start(liar, other, handoff_timeout=30)
    assert (await bench.get("/?sid=aaaaaaaa.1")).said["worker"] == "bbbbbbbb"


async def test_a_client_that_has_gone_disturbs_nobody(bench: Bench) -> None:
    await bench.start(await bench.worker("aaaaaaaa"))
    for data in (b"", b"GET", request()):
        sock = socket.create_connection(("127.0.0.1", bench.port))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # close by a reset
        sock.sendall(data)
        sock.close()
    assert (await bench.get()).status == 200


async def test_a_full_handoff_socket_is_waited_for(bench: Bench) -> None:
    """Heads of 16 KiB fill the kernel's buffer long before 64 packets are under way."""
    worker = await bench.worker("aaaaaaaa")
    worker.pause_taking()
    balancer = await bench.start(worker, handoff_timeout=30)
    clients = [asyncio.ensure_future(bench.get("/", padding="x" * 16_000)) for _ in range(150)]
    (known,) = balancer.workers.available
    await bench.until(lambda: pending(known) == 150)
    worker.resume_taking()
    assert {answer.said["via"] for answer in await asyncio.gather(*clients)} == {"handoff"}
