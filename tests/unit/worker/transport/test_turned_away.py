"""A worker that has no descriptor for another client."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.clients.raw import ENGINE
from support.network.ports import tcp_pair
from support.worker.running import RunningWorker, StartWorker, until

from socketcluster_runtime.sockets import capacity
from socketcluster_wire import handoff
from socketcluster_worker.api.worker import Worker
from socketcluster_worker.transport import turned_away

HEAD = b"GET /page HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
OUT = "out of descriptors: new clients are refused"


def tell(worker: Worker) -> None:
    """Be a controller with a page."""

    @worker.http_server.on("req")
    def page(request: Any) -> Any:
        return "a page"


@pytest.fixture
async def worker(start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch) -> RunningWorker:
    monkeypatch.setattr(capacity, "LOOK_INTERVAL", 0.005)
    return await start_worker(tell)


@contextmanager
def full(worker: RunningWorker) -> Iterator[None]:
    """Have the worker find that its limit is reached by clients; there is the reserve left."""
    limit = worker.service._room._limit
    worker.service._room._limit = lambda: 1
    worker.service._room._below = 0  # it asked for the limit before
    try:
        yield
    finally:
        worker.service._room._limit = limit


class Balancer:
    """Hands sockets over."""

    def __init__(self, worker: RunningWorker) -> None:
        self.link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.link.connect(worker.handoff_path)
        self.link.setblocking(False)
        self._last = 0

    def send(self, sock: socket.socket, head: bytes = HEAD) -> int:
        self._last += 1
        packet = handoff.encode(handoff.Handoff(self._last, head, tls=False, client=("203.0.113.9", 5)))
        socket.send_fds(self.link, [packet], [sock.fileno()])
        return self._last

    async def reply(self) -> handoff.Reply:
        while True:
            data = await asyncio.get_running_loop().sock_recv(self.link, handoff.MAX_REPLY_BYTES)
            if not (reply := handoff.decode_reply(data)).ended:
                return reply


async def answer(sock: socket.socket) -> bytes:
    """Read a client's answer to its end."""
    sock.setblocking(False)
    received = b""
    while data := await asyncio.get_running_loop().sock_recv(sock, 1000):
        received += data
    return received


async def test_a_handed_over_client_is_declined_and_the_next_one_served(worker: RunningWorker) -> None:
    balancer = Balancer(worker)
    with balancer.link, capture_logs() as lines:
        client, own = tcp_pair()
        with client, own:
            with full(worker):
                for _ in range(100):
                    number = balancer.send(own)
                    assert await balancer.reply() == handoff.Reply((number,), ended=False, declined=True)
                assert worker.service._room.full
            await until(lambda: not worker.service._room.full)
            number = balancer.send(own)
            assert await balancer.reply() == handoff.Reply((number,), ended=False)
            own.close()
            assert b"a page" in await answer(client)
    assert [line["event"] for line in lines if line["log_level"] in ("warning", "error")] == [OUT]


async def test_a_packet_that_lost_its_descriptor_on_the_way_costs_that_client_and_not_the_link(
    worker: RunningWorker,
) -> None:
    balancer = Balancer(worker)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with balancer.link:
        first, own = tcp_pair()
        with first, own:
            balancer.send(own)
            await balancer.reply()  # the link was accepted
            free = os.dup(0)
            os.close(free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))  # the kernel has none to give from here on
            try:
                number = balancer.send(own)
                assert await balancer.reply() == handoff.Reply((number,), ended=False, declined=True)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await until(lambda: not worker.service._room.full)
        client, own = tcp_pair()
        with client:
            number = balancer.send(own)
            assert await balancer.reply() == handoff.Reply((number,), ended=False)
            own.close()
            assert b"a page" in await answer(client)


async def test_a_packet_without_a_descriptor_is_no_balancer_s(worker: RunningWorker) -> None:
    balancer = Balancer(worker)
    with balancer.link:
        balancer.link.send(handoff.encode(handoff.Handoff(1, HEAD, tls=False, client=None)))
        assert await asyncio.get_running_loop().sock_recv(balancer.link, 100) == b""


async def test_who_connects_to_the_worker_itself_is_told_to_come_again(
    worker: RunningWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turned_away, "MAX_WAITED_FOR", 2)
    with full(worker):
        waiting = [await worker.connect() for _ in range(4)]
        for number, raw in enumerate(waiting):
            if number < 2:  # the others are answered unasked
                await raw.send(HEAD)
            refused = await raw.answer()
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert await raw.closed() == b""
            raw.close()
        await until(lambda: not worker.service._server._turned_away._open)
    await until(lambda: not worker.service._room.full)
    raw = await worker.connect()
    await raw.send(HEAD)
    assert (await raw.answer()).status_code == 200


async def test_who_is_connected_is_served_on_and_told_that_the_worker_is_full_if_that_is_asked(
    worker: RunningWorker,
) -> None:
    raw = await worker.connect()
    assert (await raw.request("GET", "/socketcluster/health")).status_code == 200
    with full(worker):
        refused = await worker.connect()
        await until(lambda: worker.service._room.full)
        health = await raw.request("GET", "/socketcluster/health")
        assert health.status_code == 503
        assert "no descriptor" in json.loads(bytes(health.body))["reason"]
        opened = await raw.request("GET", ENGINE + "polling")
        assert opened.status_code == 200
        refused.abort()
    await until(lambda: not worker.service._room.full)
    raw = await worker.connect()
    assert (await raw.request("GET", "/socketcluster/health")).status_code == 200
