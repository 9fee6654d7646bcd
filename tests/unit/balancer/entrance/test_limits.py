"""How many connections there may be, and what becomes of those who try to use them up."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from support.balancer.bench import Bench, request
from support.balancer.clients import open_client, read_to_end
from support.network import certificates

from socketcluster_balancer.entrance import limits
from socketcluster_balancer.entrance.limits import Limits, OverLimit, address_key
from socketcluster_balancer.placement import handoff
from socketcluster_balancer.settings import BalancerSettings


def settings(**options: Any) -> BalancerSettings:
    return BalancerSettings(workers=["unix:/nobody"], **options)


class Clock:
    """Time that passes when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, limited: Limits) -> None:
        self.now = 1000.0
        monkeypatch.setattr(limited, "_loop", self)

    def time(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("192.0.2.1", "2001:db8::1", False),
    ],
)
def test_an_address_is_counted_whole_and_of_ipv6_by_network(one: str, other: str, same: bool) -> None:
    assert (address_key(one) == address_key(other)) is same


async def test_without_limits_everybody_may_come_and_addresses_are_not_remembered() -> None:
    limited = Limits(settings())
    assert limited.key("192.0.2.1") == limited.key("2001:db8::1")
    assert {limited.enter(b"") for _ in range(1000)} == {None}
    assert limited.connections == 1000


async def test_who_leaves_makes_room_for_one_of_the_same_address() -> None:
    limited = Limits(settings(address_socket_limit=2))
    assert [limited.enter(b"a") for _ in range(3)] == [None, None, OverLimit.ADDRESS_SOCKETS]
    limited.leave(b"a")
    assert [limited.enter(b"a") for _ in range(2)] == [None, OverLimit.ADDRESS_SOCKETS]
    limited.leave(b"a")
    limited.leave(b"a")
    assert (limited.connections, limited._of_address) == (0, {})


async def test_a_rate_allows_a_burst_and_then_so_many_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    limited = Limits(settings(address_connection_rate=2, address_connection_burst=3))
    clock = Clock(monkeypatch, limited)
    assert [limited.enter(b"a") for _ in range(4)] == [None, None, None, OverLimit.ADDRESS_RATE]
    assert limited.enter(b"b") is None
    clock.now += 0.5
    assert [limited.enter(b"a") for _ in range(2)] == [None, OverLimit.ADDRESS_RATE]
    clock.now += 100
    assert [limited.enter(b"a") for _ in range(4)] == [None, None, None, OverLimit.ADDRESS_RATE]
    assert limited.retry_after(OverLimit.ADDRESS_RATE) == 1
    assert limited.connections == 8


async def test_addresses_are_forgotten_when_they_may_burst_again_or_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "MAX_ADDRESSES", 100)
    limited = Limits(settings(address_connection_rate=1, address_connection_burst=1))
    clock = Clock(monkeypatch, limited)
    for number in range(1000):
        assert limited.enter(str(number).encode()) is None
    assert len(limited._due) == 100
    assert limited.enter(b"999") is OverLimit.ADDRESS_RATE
    clock.now += 10
    for number in range(1000, 1200):  # each comes when that of the one before is full again
        clock.now += 2
        assert limited.enter(str(number).encode()) is None
    assert len(limited._due) == 1


async def test_connections_in_all_are_limited(bench: Bench) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), socket_limit=2)
    with open_client(bench), open_client(bench):
        await bench.until(lambda: bench.balancer.limits.connections == 2)
        answer = await bench.get()
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    await bench.until(lambda: bench.balancer.limits.connections == 0)
    assert (await bench.get()).status == 200
    assert bench.refused == {"socket_limit": 1}


async def test_connections_of_an_address_are_limited_and_others_are_not(bench: Bench) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), address_socket_limit=2, listen="127.0.0.1:0")
    loop = asyncio.get_running_loop()
    with open_client(bench), open_client(bench), socket.socket() as other:
        await bench.until(lambda: bench.balancer.limits.connections == 2)
        answer = await bench.get()
        assert answer.status == 429
        assert int(answer.headers["retry-after"]) > 0
        other.setblocking(False)
        other.bind(("127.0.0.2", 0))
        await loop.sock_connect(other, ("127.0.0.1", bench.port))
        await loop.sock_sendall(other, b"GET / HTTP/1.1\r\n\r\n")
        assert (await read_to_end(other)).startswith(b"HTTP/1.1 200 ")
    assert bench.refused == {"address_socket_limit": 1}


async def test_new_connections_of_an_address_are_limited(bench: Bench) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), address_connection_rate=0.001, address_connection_burst=3)
    assert [(await bench.get()).status for _ in range(4)] == [200, 200, 200, 429]
    assert (await bench.get()).headers["retry-after"] == "1000"
    assert bench.refused == {"address_connection_rate": 2}


async def test_a_connection_that_was_handed_over_counts_until_its_worker_tells_its_end(bench: Bench) -> None:
    worker = await bench.worker("aaaaaaaa")
    worker.tells_ends = False
    await bench.start(worker, socket_limit=2)
    assert [(await bench.get()).status for _ in range(3)] == [200, 200, 503]
    worker.tells_ends = True
    worker.break_links()  # whose connections nobody can tell of any more
    await bench.until(lambda: bench.balancer.limits.connections == 0)
    for _ in range(5):
        assert (await bench.get()).status == 200
        await bench.until(lambda: bench.balancer.limits.connections == 0)


async def test_a_worker_that_tells_the_end_of_what_it_does_not_have_is_cut_off(bench: Bench) -> None:
    worker = await bench.worker("aaaaaaaa")
    await bench.start(worker)
    assert (await bench.get()).status == 200
    await bench.until(lambda: bench.balancer.limits.connections == 0)
    worker.tell_end(17)
    (known,) = bench.available
    await bench.until(lambda: known.suspect_until > 0)
    assert (await bench.get()).status == 200


async def test_a_relayed_connection_counts_until_it_has_ended(bench: Bench) -> None:
    await bench.start(await bench.worker("aaaaaaaa", handoff=False), socket_limit=1)
    async with bench.client() as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nhel")
        await bench.until(lambda: bench.relays == 1)
        assert (await bench.get()).status == 503
        writer.write(b"lo")
        assert b" 200 " in await reader.read()
    await bench.until(lambda: bench.balancer.limits.connections == 0)
    assert (await bench.get()).status == 200


async def test_under_tls_a_connection_over_a_limit_is_closed_before_the_handshake(bench: Bench, tmp_path: Path) -> None:
    made = certificates.make(tmp_path, "own")
    await bench.start(await bench.worker("aaaaaaaa"), socket_limit=1, tls_cert=made.cert, tls_key=made.key)
    with open_client(bench) as first:
        await bench.until(lambda: bench.balancer.limits.connections == 1)
        with open_client(bench) as second:
            assert await read_to_end(second) == b""
        first.send(b"GET / HTTP/1.1\r\n\r\n")  # no handshake
        assert b"This port speaks HTTPS" in await read_to_end(first)
    await bench.until(lambda: bench.balancer.limits.connections == 0)
    assert bench.refused == {"socket_limit": 1, "plain_http": 1}


async def test_a_client_of_tls_that_says_nothing_is_disconnected_and_counts_no_more(
    bench: Bench, tmp_path: Path
) -> None:
    made = certificates.make(tmp_path, "own")
    await bench.start(await bench.worker("aaaaaaaa"), first_byte_timeout=0.05, tls_cert=made.cert, tls_key=made.key)
    with open_client(bench) as client:
        assert await read_to_end(client) == b""
    await bench.until(lambda: bench.balancer.limits.connections == 0)


async def test_only_so_many_clients_queue_for_a_worker(bench: Bench) -> None:
    slow, other = await bench.worker("aaaaaaaa"), await bench.worker("bbbbbbbb")
    slow.silent = True
    await bench.start(slow, other, handoff_timeout=300, max_pending_handovers=3)
    clients = [asyncio.ensure_future(bench.get("/?sid=aaaaaaaa.1")) for _ in range(70)]
    await bench.until(lambda: sum(client.done() for client in clients) == 3)  # 64 in flight, 3 queued
    assert {client.result().said["worker"] for client in clients if client.done()} == {"bbbbbbbb"}
    slow.silent = False
    slow.break_links()
    assert {answer.status for answer in await asyncio.gather(*clients)} == {200}


@pytest.mark.parametrize(
    ("limit", "value"), [("MAX_QUEUED_BYTES", 3 * len(request("/?sid=aaaaaaaa.1"))), ("MAX_QUEUED_SECONDS", 0.0)]
)
async def test_only_so_much_queues_for_a_worker_and_for_so_long(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, limit: str, value: float
) -> None:
    monkeypatch.setattr(handoff, limit, value)
    slow, other = await bench.worker("aaaaaaaa"), await bench.worker("bbbbbbbb")
    slow.silent = True
    await bench.start(slow, other, handoff_timeout=300)
    clients = [asyncio.ensure_future(bench.get("/?sid=aaaaaaaa.1")) for _ in range(70)]
    queued = 3 if limit == "MAX_QUEUED_BYTES" else 1  # beside 64 in flight
    await bench.until(lambda: sum(client.done() for client in clients) == 70 - 64 - queued)
    assert {client.result().said["worker"] for client in clients if client.done()} == {"bbbbbbbb"}
    slow.silent = False
    slow.break_links()
    assert {answer.status for answer in await asyncio.gather(*clients)} == {200}


# Those who try to use up what others need.
