"""The socket that clients connect to."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.balancer.bench import PATIENCE, Bench, LogLines
from support.balancer.clients import open_client, read_to_end


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_silent_clients_stay_with_the_kernel(bench: Bench) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), address_socket_limit=1, defer_accept=True)
    with ExitStack() as stack:
        clients = [stack.enter_context(open_client(bench)) for _ in range(20)]
        assert (await bench.get()).status == 200  # it came after them
        assert bench.balancer.limits.connections == 0
        clients[7].send(b"GET / HTTP/1.1\r\n\r\n")
        assert (await read_to_end(clients[7])).startswith(b"HTTP/1.1 200 ")
        assert not bench.refused


async def test_a_client_that_has_connected_is_served_by_a_balancer_that_stops(bench: Bench) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), defer_accept=True)
    port = bench.port
    with open_client(bench) as client:
        stopping = asyncio.create_task(bench.stop(PATIENCE))
        await asyncio.sleep(0)
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        assert (await read_to_end(client)).startswith(b"HTTP/1.1 200 ")
        await stopping
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


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
