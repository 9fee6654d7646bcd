"""How clients without TLS are answered and refused."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack

import pytest
from support.balancer.bench import PATIENCE, Bench
from support.balancer.clients import open_client, read_to_end


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


async def test_the_balancers_own_answers_close_only_after_the_client(bench: Bench) -> None:
    await bench.start(await bench.worker("aaaaaaaa"))
    async with bench.client() as (reader, writer):
        writer.write(b"\0")
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.write(b"more")
        await writer.drain()
    await bench.balancer.reception.idle()


async def test_a_refusal_reaches_a_client_that_sends_more_than_a_request(bench: Bench) -> None:
    """The answer comes before anything was read; what comes then must not turn it into a reset."""
    await bench.start(await bench.worker("aaaaaaaa"), address_connection_rate=0.001, address_connection_burst=1)
    assert (await bench.get()).status == 200
    with open_client(bench) as client:
        async with asyncio.timeout(PATIENCE):
            assert (await asyncio.get_running_loop().sock_recv(client, 1000)).startswith(b"HTTP/1.1 429 ")
        (waited_for,) = bench.balancer.reception._refused
        client.send(b"x" * 50_000)
        await bench.until(lambda: waited_for.discarded == 50_000)
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


async def test_only_so_many_refused_clients_are_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socketcluster_balancer.entrance.plain.MAX_REFUSED", 2)
    await bench.start(await bench.worker("aaaaaaaa"), address_connection_rate=0.001, address_connection_burst=1)
    assert (await bench.get()).status == 200
    with ExitStack() as stack:
        clients = [stack.enter_context(open_client(bench)) for _ in range(5)]
        for client in clients:
            assert (await read_to_end(client)).startswith(b"HTTP/1.1 429 ")
        assert len(bench.balancer.reception._refused) <= 2
        await bench.stop(1)
        assert not bench.balancer.reception._refused


async def test_in_a_flood_most_refused_clients_are_reset(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socketcluster_balancer.entrance.plain.ANSWERS_A_SECOND", 1)
    await bench.start(await bench.worker("aaaaaaaa"), address_connection_rate=0.001, address_connection_burst=1)
    assert (await bench.get()).status == 200
    answered = 0
    while True:  # until one comes in the same second as another
        with open_client(bench) as client:
            answer = await read_to_end(client)
        if not answer:
            break
        assert answer.startswith(b"HTTP/1.1 429 ")
        answered += 1
    assert answered
    assert bench.refused == {"address_connection_rate": answered + 1}
