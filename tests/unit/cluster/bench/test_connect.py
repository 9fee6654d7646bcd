"""Making connections, to one place only."""

from __future__ import annotations

from support.cluster.bench_server import bench_server

from socketcluster.bench.client import Client
from socketcluster.bench.connect import Connector
from socketcluster.bench.plan import PORTS_OF_AN_ADDRESS, Plan, Protocol
from socketcluster.bench.tally import Tally


class Nobody:
    """An observer that does nothing."""

    def answered(self, client: Client, due: int, error: str) -> None: ...
    def delivered(self, due: int) -> None: ...
    def ended(self, client: Client, reason: str) -> None: ...


async def connector(url: str, **options: object) -> tuple[Connector, Tally]:
    tally = Tally()
    made = Connector(Plan(url=url, protocol=Protocol.WEBSOCKET, **options), tally, Nobody())  # type: ignore[arg-type]
    await made.resolve()
    return made, tally


async def test_all_connections_are_opened_with_the_headers_and_counted() -> None:
    async with bench_server() as server:
        made, tally = await connector(server.url + "/chat", headers=(("Cookie", "a=b"),))
        clients = await made.open_all(0, 5)
        assert (len(clients), tally.opened, tally.open, tally.connecting.count) == (5, 5, 5, 5)
        assert all(request.startswith("GET /chat HTTP/1.1\r\n") for request in server.requests)
        assert all("\r\nCookie: a=b\r\n" in request for request in server.requests)
        assert len({request.split("Sec-WebSocket-Key: ")[1].split()[0] for request in server.requests}) == 5
        for client in clients:
            client.close()


async def test_more_than_an_address_has_ports_for_come_from_others() -> None:
    async with bench_server() as server:
        made, _ = await connector(server.url)
        clients = [await made.open(number) for number in (0, PORTS_OF_AN_ADDRESS)]
        hosts = {writer.get_extra_info("peername")[0] for writer in server.writers}
        assert hosts == {"127.0.0.1", "127.1.0.1"}
        for client in clients:
            assert client is not None
            client.close()


async def test_at_a_rate_all_are_opened_too() -> None:
    async with bench_server() as server:
        made, tally = await connector(server.url, connect_rate=1000.0)
        assert len(await made.open_all(0, 3)) == tally.opened == 3


async def test_who_is_refused_is_counted_by_why_and_goes_nowhere_else() -> None:
    async with bench_server() as server, bench_server() as other:
        server.status, server.body = 302, f"Location: {other.url}".encode()
        made, tally = await connector(server.url)
        assert await made.open_all(0, 2) == []
        assert (tally.opened, tally.open) == (0, 0)
        assert list(tally.errors.values()) == [2]
        assert next(iter(tally.errors)).startswith("HTTP 302")
        assert other.requests == []
    made, tally = await connector(server.url)
    assert await made.open(0) is None
    assert tally.errors == {"connection refused": 1}


async def test_a_server_that_says_nothing_is_given_up() -> None:
    async with bench_server() as server:
        server.status = 101
        made, tally = await connector(server.url.replace("ws:", "wss:"), timeout=0.2)
        assert await made.open(0) is None
        assert sum(tally.errors.values()) == 1
