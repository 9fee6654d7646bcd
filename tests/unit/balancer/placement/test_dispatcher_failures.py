"""Clients that a worker cannot be given, or who go meanwhile, and those under way when the balancer ends."""

from __future__ import annotations

import asyncio
import socket

from support.balancer.bench import Bench, request

from socketcluster_balancer.entrance.plain import PlainClient


class Gone(PlainClient):
    """One that goes while a worker is connected to."""

    __slots__ = ()

    def _socket_addresses(self) -> tuple[tuple[str, int], tuple[str, int]]:
        raise ConnectionResetError


async def test_a_single_worker_that_can_be_reached_in_no_way_is_asked_once(bench: Bench) -> None:
    worker = await bench.worker("aaaaaaaa", handoff=False, http=False)
    await bench.start(worker, worker_wait=0)
    assert (await bench.get()).status == 503
    assert bench.balancer.counters.handovers_failed == 1
    assert bench.refused == {"no_worker": 1}


async def test_for_a_client_that_has_gone_no_connection_to_a_worker_stays(bench: Bench) -> None:
    read: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        read.put_nowait(await reader.read())
        writer.close()

    worker = await bench.worker("aaaaaaaa", handoff=False)
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    await worker.tell(http_port=server.sockets[0].getsockname()[1])
    await bench.start(worker)
    ours, theirs = socket.socketpair()
    with theirs:
        client = Gone(ours, None, b"")
        bench.balancer.dispatcher.place(client)
        assert await read.get() == b""
    assert ours.fileno() == -1
    assert bench.relays == 0
    assert bench.balancer.counters.relays == 0
    server.close()
    await server.wait_closed()


async def test_who_waits_when_the_balancer_ends_is_cut_off_and_nobody_is_looked_for(bench: Bench) -> None:
    worker = await bench.worker("aaaaaaaa", ready=False)
    balancer = await bench.start(worker)
    async with bench.client() as (reader, writer):
        writer.write(request("/"))
        await bench.until(lambda: bench.waiting == 1)
        await bench.stop(0)
        assert await reader.read() == b""
    assert bench.waiting == 0
    assert balancer.limits.connections == 0
    timer = balancer.dispatcher._retry
    assert timer is not None
    assert timer.cancelled()


async def test_who_was_handed_over_when_the_balancer_ends_is_given_to_nobody_else(bench: Bench) -> None:
    silent, other = await bench.worker("aaaaaaaa"), await bench.worker("bbbbbbbb")
    silent.silent = True
    balancer = await bench.start(silent, other)
    async with bench.client() as (_, writer):
        writer.write(request("/?sid=aaaaaaaa1"))
        await silent.received.get()
        await bench.stop(0)
    assert balancer.counters.handovers_failed == 0  # its link is closed, which is no failure of the worker
    assert balancer.dispatcher._connecting == set()
    assert bench.waiting == 0
