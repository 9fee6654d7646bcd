"""Connections from proxies in front, which say in the header fields of each request whose it is."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

import pytest
from support.balancer.bench import Bench, LogLines
from support.network import certificates

from socketcluster_balancer.admission.controller import Controller
from socketcluster_balancer.api import Balancer, Request
from socketcluster_balancer.entrance.limits import NOBODY, Limits
from socketcluster_balancer.settings import BalancerSettings
from socketcluster_runtime.trusted_proxies import SAMPLE
from socketcluster_wire import proxy_protocol

X_FORWARDED = {"trusted_proxies": "10.0.0.0/8, 127.0.0.1, fd00::/8", "proxy_headers": "x-forwarded"}
FORWARDED = X_FORWARDED | {"proxy_headers": "forwarded"}
OTHERS = X_FORWARDED | {"trusted_proxies": "10.0.0.0/8"}
NONE = X_FORWARDED | {"trusted_proxies": ""}
TWO = {"address_connection_rate": 0.001, "address_connection_burst": 2}


def get(client: str, fields: str = "") -> bytes:
    """Return a request that a proxy sends for a client."""
    elements = ", ".join(f"for={each}" for each in client.split(", "))
    said = f"x-forwarded-for: {client}\r\nforwarded: {elements}\r\n" if client else ""
    return f"GET / HTTP/1.1\r\nhost: test\r\n{said}{fields}\r\n".encode()


@pytest.mark.parametrize("handoff", [True, False], ids=["handover", "relay"])
@pytest.mark.parametrize("options", [X_FORWARDED, FORWARDED], ids=["x", "rfc 7239"])
async def test_the_worker_is_told_of_the_proxy_and_reads_the_fields(
    bench: Bench, handoff: bool, options: dict[str, str]
) -> None:
    await bench.start(await bench.worker("aaaaaaaa", handoff=handoff), **options)
    head = get("203.0.113.7", "x-forwarded-proto: https\r\n")
    said = (await bench.send(head)).said
    assert said["via"] == ("handoff" if handoff else "relay")
    assert said["client"][0] == "127.0.0.1"
    assert said["tls"] is False
    assert said["head"] == len(head)


async def test_no_header_comes_in_front(bench: Bench) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), **X_FORWARDED)
    for header in (b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n", proxy_protocol.SIGNATURE + b"\x20\x00\x00\x00"):
        assert (await bench.send(header + get(""))).status == 400


@pytest.mark.parametrize("options", [X_FORWARDED, FORWARDED], ids=["x", "rfc 7239"])
async def test_limits_count_the_clients_and_not_the_proxy(bench: Bench, options: dict[str, str]) -> None:
    worker = await bench.worker("aaaaaaaa")
    await bench.start(worker, address_socket_limit=1, **options)
    limits, counters = bench.balancer.limits, bench.balancer.counters
    async with bench.client() as (reader, waiting):
        waiting.write(get("203.0.113.7", "content-length: 1\r\n"))
        await bench.until(lambda: counters.handovers == 1)
        answer = await bench.send(get("203.0.113.7"))
        assert answer.status == 429
        assert answer.headers["retry-after"] == "5"
        assert answer.body
        answer = await bench.send(get("203.0.113.7").replace(b"GET", b"HEAD", 1))
        assert (answer.status, answer.body) == (429, b"")
        assert (await bench.send(get("203.0.113.8"))).status == 200
        assert (await bench.send(get("6.6.6.6, 203.0.113.7"))).status == 429
        assert (await bench.send(get("203.0.113.7, 10.0.0.9, fd00::1"))).status == 429
        assert (await bench.send(get("203.0.113.7, 203.0.113.8, fd00::1"))).status == 200
        waiting.write(b"x")
        assert b"200 OK" in await reader.read()
    await bench.until(lambda: limits.connections == 0)
    assert (await bench.send(get("203.0.113.7"))).status == 200
    await bench.until(lambda: limits.connections == 0)
    assert limits._of_address == {}


async def test_connections_that_have_not_said_whose_they_are_count_as_nobodys(bench: Bench) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), address_socket_limit=1, socket_limit=3, **X_FORWARDED)
    limits = bench.balancer.limits
    async with bench.client() as (_, one), bench.client() as (_, other):
        one.write(get("203.0.113.7")[:-2])
        other.write(get("203.0.113.7")[:-2])
        await bench.until(lambda: limits.connections == 2)
        assert limits._of_address == {}
        assert (await bench.send(get("203.0.113.7"))).status == 200  # a proxy may open some in advance
        await bench.until(lambda: limits.connections == 2)
        async with bench.client():
            await bench.until(lambda: limits.connections == 3)
            assert (await bench.send(get("203.0.113.7"))).status == 503
    await bench.until(lambda: limits.connections == 0)


async def test_a_rate_counts_the_clients(bench: Bench) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), **TWO, **X_FORWARDED)
    for client in ("203.0.113.7", "203.0.113.8"):
        assert [(await bench.send(get(client))).status for _ in range(3)] == [200, 200, 429]
    assert bench.balancer.counters.refused["address_connection_rate"] == 2


async def test_a_client_that_a_proxy_does_not_name_is_the_proxy(bench: Bench) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), **TWO, **X_FORWARDED)
    assert [(await bench.send(get(said))).status for said in ("", "203.0.113.7, unknown", "nonsense")] == [
        200,
        200,
        429,
    ]


@pytest.mark.parametrize(
    "options", [OTHERS, X_FORWARDED | {"trusted_proxies": ""}, {}], ids=["others", "none", "default"]
)
async def test_nobody_else_is_believed(bench: Bench, options: dict[str, str]) -> None:
    seen: list[Request] = []
    await bench.start(await bench.worker("aaaaaaaa"), controller=controller(seen), **TWO, **options)
    fields = "x-forwarded-proto: https\r\nx-forwarded-host: app.example\r\n"
    assert [(await bench.send(get(f"203.0.113.{n}", fields))).status for n in range(3)] == [200, 200, 429]
    assert {(each.address[0], each.secure, each.headers["host"]) for each in seen} == {("127.0.0.1", False, "test")}


def controller(seen: list[Request]) -> Controller:
    made = Controller(Path(__file__), Balancer("tested", "socketcluster"))
    made.balancer.middleware("request")(seen.append)
    return made


async def test_the_controller_is_shown_the_client(bench: Bench) -> None:
    seen: list[Request] = []
    await bench.start(await bench.worker("aaaaaaaa"), controller=controller(seen), **X_FORWARDED)
    fields = "x-forwarded-proto: https\r\nx-forwarded-host: app.example\r\n"
    await bench.send(get("203.0.113.7:4711", fields))
    await bench.send(get(""))
    assert [(each.address, each.secure, each.headers["host"]) for each in seen[:1]] == [
        (("203.0.113.7", 4711), True, "app.example")
    ]
    assert (seen[1].address[0], seen[1].secure, seen[1].headers["host"]) == ("127.0.0.1", False, "test")


async def test_a_proxy_that_comes_by_tls(bench: Bench, tmp_path: Path) -> None:
    files = certificates.make(tmp_path, "first")
    options = {
        "tls_cert": files.cert,
        "tls_key": files.key,
        "address_connection_rate": 0.001,
        "address_connection_burst": 1,
    }
    seen: list[Request] = []
    await bench.start(await bench.worker("aaaaaaaa"), controller=controller(seen), **options, **X_FORWARDED)
    context = ssl.create_default_context(cafile=str(files.cert))

    async def ask(client: str, fields: str = "") -> bytes:
        async with bench.client() as (reader, writer):
            await writer.start_tls(context, server_hostname="127.0.0.1")
            writer.write(get(client, fields))
            answer: bytes = await reader.read()
            return answer

    assert b'"client": ["127.0.0.1", ' in await ask("203.0.113.7", "x-forwarded-proto: http\r\n")
    assert b" 200 OK\r\n" in await ask("203.0.113.8")
    assert (await ask("203.0.113.7")).startswith(b"HTTP/1.1 429 ")
    assert [(each.address[0], each.secure) for each in seen] == [("203.0.113.7", False), ("203.0.113.8", True)]


async def test_a_proxy_that_is_not_believed_is_named_once_where_it_matters(bench: Bench, log_lines: LogLines) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), address_socket_limit=100)
    for _ in range(2 * SAMPLE):
        await bench.send(get("203.0.113.7"))
    assert len(log_lines(logging.WARNING)) == 1


async def test_a_proxy_that_is_not_believed_matters_to_no_balancer_that_does_not_count_addresses(
    bench: Bench, log_lines: LogLines
) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), socket_limit=100)
    for _ in range(SAMPLE):
        await bench.send(get("203.0.113.7"))
    assert log_lines(logging.WARNING) == []


async def test_nobodys_connections_are_no_addresss() -> None:
    limits = Limits(BalancerSettings(workers=["unix:/nobody"], address_socket_limit=1))
    key = limits.key("203.0.113.7")
    assert limits.enter(NOBODY) is limits.enter(NOBODY) is limits.name(key) is None
    assert limits.name(key) is not None
    limits.leave(key)
    limits.leave(NOBODY)
    assert (limits.connections, limits._of_address) == (0, {})
