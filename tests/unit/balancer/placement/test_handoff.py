"""Sockets that are handed to a worker of the same host."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import os
import resource
import socket
from typing import Any

import pytest
from support.balancer.bench import Bench, LogLines, link_of

from socketcluster_balancer.placement.watched_worker import WatchedWorker


def request(target: str = "/", body: bytes = b"", *headers: str) -> bytes:
    lines = [f"POST {target} HTTP/1.1", "host: test", f"content-length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def pending(worker: WatchedWorker) -> int:
    """How many clients are on their way to a worker, or wait for that."""
    return len(link_of(worker)._in_flight) + len(link_of(worker)._queue)


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


async def test_those_that_are_acknowledged_together_are_all_served_and_counted(bench: Bench) -> None:
    worker = await bench.worker("aaaaaaaa")
    worker.pause_taking()
    worker.tells_ends = False
    balancer = await bench.start(worker, handoff_timeout=30)
    clients = [asyncio.ensure_future(bench.get()) for _ in range(10)]
    (known,) = balancer.workers.available
    await bench.until(lambda: pending(known) == 10)
    worker.resume_taking()
    assert {answer.said["via"] for answer in await asyncio.gather(*clients)} == {"handoff"}
    assert (worker.acknowledged_together, pending(known), link_of(known).living) == ([10], 0, 10)


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


async def test_a_client_that_a_worker_declines_goes_to_another_and_the_link_stays(
    bench: Bench, log_lines: LogLines
) -> None:
    full, other = await bench.worker("aaaaaaaa"), await bench.worker("bbbbbbbb")
    balancer = await bench.start(full, other, handoff_timeout=60)
    async with bench.client() as (_, writer):
        writer.write(request("/?sid=aaaaaaaa.1", b"x")[:-1])
        known = next(worker for worker in bench.available if worker.worker_id == "aaaaaaaa")
        await bench.until(lambda: link_of(known).living == 1)
        full.declines = True
        for _ in range(3):
            assert (await bench.get("/?sid=aaaaaaaa.1")).said["worker"] == "bbbbbbbb"
            known.suspect_until = 0.0
        assert len(full.declined) == 3
        assert len(full._links) == link_of(known).living == balancer.limits.connections == 1
        full.declines = False
        assert (await bench.get("/?sid=aaaaaaaa.1")).said["worker"] == "aaaaaaaa"
        writer.write(b"x")
    assert not log_lines(logging.WARNING)


async def test_if_all_workers_are_full_clients_are_told_at_once_and_served_when_there_is_room(
    bench: Bench, log_lines: LogLines
) -> None:
    workers = [await bench.worker(letter * 8) for letter in "ab"]
    await bench.start(*workers, worker_wait=3600)
    for worker in workers:
        worker.declines = True
    early = asyncio.ensure_future(bench.get())  # before the workers say that they are full
    await bench.until(lambda: all(worker.declined for worker in workers))
    for worker in workers:
        await worker.tell(ready=False, full=True)
    assert (await early).status == 503
    answer = await bench.get()
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    for worker in workers:
        worker.declines = False
        await worker.tell(ready=True, full=False)
    await bench.until(lambda: len(bench.available) == 2)
    assert (await bench.get()).status == 200
    full = "worker is out of descriptors: it is given no clients"
    assert log_lines(logging.WARNING) == [full, "no worker for clients: answered 503"]
    assert "worker not ready" not in log_lines(logging.INFO)


@pytest.mark.parametrize("handoff", [True, False])
async def test_a_balancer_without_descriptors_says_so_itself_and_blames_no_worker(
    bench: Bench, log_lines: LogLines, handoff: bool
) -> None:
    worker = await bench.worker("aaaaaaaa", handoff=handoff)
    balancer = await bench.start(worker, worker_wait=3600)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with bench.client() as (reader, writer):
        await bench.until(lambda: balancer.limits.connections == 1)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))  # nothing can be opened from here on
        try:
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert balancer.counters.refused["no_descriptor"] == 1
    assert not bench.available[0].suspect_until
    assert log_lines(logging.WARNING) == ["out of descriptors: new clients are refused"]
    assert (await bench.get()).status == 200


async def test_a_kernel_that_passes_no_more_descriptors_costs_that_client_and_not_the_link(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, other = await bench.worker("aaaaaaaa"), await bench.worker("bbbbbbbb")
    await bench.start(worker, other)
    assert (await bench.get("/?sid=aaaaaaaa.1")).said["worker"] == "aaaaaaaa"
    known = next(worker for worker in bench.available if worker.worker_id == "aaaaaaaa")
    link = link_of(known)
    own = link._sock

    class Full:
        def sendmsg(self, *_: object) -> int:
            raise OSError(errno.ETOOMANYREFS, os.strerror(errno.ETOOMANYREFS))

        def __getattr__(self, name: str) -> Any:
            return getattr(own, name)

    link._sock = Full()  # type: ignore[assignment]
    assert (await bench.get("/?sid=aaaaaaaa.1")).said["worker"] == "bbbbbbbb"
    link._sock = own
    known.suspect_until = 0.0
    assert (await bench.get("/?sid=aaaaaaaa.1")).said["worker"] == "aaaaaaaa"
    assert len(worker._links) == 1
