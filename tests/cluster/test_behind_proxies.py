"""A cluster behind the proxies that deploy/ has files for, started with those files, which say who its clients are."""

from __future__ import annotations

import asyncio
import json
import re
import tomllib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from support.clients.raw import ENGINE, HANDSHAKE, Polling, RawClient, RawWebSocket, event, frame, upgrade
from support.cluster.cluster import until
from support.cluster.local import LocalCluster
from support.network import fronts
from support.network.fronts import DEPLOY, HOST, Front

from socketcluster_worker.settings import WorkerSettings

CONTROLLER = Path(__file__).parents[1] / "controllers" / "scenario" / "controller.py"
OPTIONS = ("--trusted-proxies", "127.0.0.1", "--proxy-headers", "x-forwarded")
CLIENT, OTHER = "127.0.0.9", "127.0.0.10"
"""Addresses of this machine that nobody else connects from."""
SPOOFED = {
    "X_Forwarded_For": "6.6.6.6",
    "X_Forwarded_Proto": "https, http",
    "X_Forwarded_Host": "evil.example",
    "Forwarded": "for=6.6.6.6;proto=http;host=evil.example",
    "X_Real_IP": "6.6.6.6",
}
PLAIN = "Accept-Encoding: identity\r\n"
"""Without it Caddy accepts gzip for the client, and unpacks it."""
PROXIES = [pytest.param(name, marks=getattr(pytest.mark, name)) for name in ("nginx", "haproxy", "caddy")]


class Behind(NamedTuple):
    """A cluster, and what is in front of it."""

    cluster: LocalCluster
    front: Front
    clients: list[RawClient]

    async def connect(self, *, tls: bool = True, client: str = CLIENT) -> RawClient:
        made = RawClient(*await self.front.connect(tls=tls, client=client))
        self.clients.append(made)
        return made

    def host(self, tls: bool = True) -> str:
        return f"{HOST}:{self.front.tls if tls else self.front.plain}"

    async def ask(self, path: str = "/who", *, tls: bool = True, **headers: str) -> tuple[dict[str, Any], str]:
        """Return what a page says, and the cookie that came with it."""
        client = await self.connect(tls=tls)
        answer = await client.request("GET", path, None, **{"Host": self.host(tls)} | headers)
        assert answer.status_code == 200, answer
        return json.loads(bytes(answer.body or b"null")), answer.headers.get("set-cookie", "")

    async def open(
        self, headers: Mapping[str, str] = MappingProxyType({}), *, tls: bool = True, client: str = CLIENT
    ) -> RawWebSocket | int:
        """Open a WebSocket; return the status if there is none."""
        raw = await self.connect(tls=tls, client=client)
        await raw.send(upgrade(**{"Host": self.host(tls), **headers}))
        answer = await raw.answer()
        return RawWebSocket(raw, answer) if answer.status_code == 101 else answer.status_code


async def call(websocket: RawWebSocket | int, name: str) -> Any:
    """Make the handshake and call an event; return its answer."""
    assert isinstance(websocket, RawWebSocket), websocket
    await websocket.send(frame(HANDSHAKE), frame(event(name, None, 2)))
    while (message := await websocket.next_json()).get("rid") != 2:
        pass
    return message["data"]


@asynccontextmanager
async def behind(name: str, folder: Path, *options: str, workers: int = 2) -> AsyncIterator[Behind]:
    async with LocalCluster(CONTROLLER, folder / "data", *OPTIONS, *options, workers=workers) as cluster:
        port = int(cluster.url.rpartition(":")[2])
        async with fronts.running(name, port, folder / "front") as front:
            running = Behind(cluster, front, [])

            async def health() -> int:
                client = await running.connect()
                return (await client.request("GET", "/socketcluster/health", None, Host=running.host())).status_code

            await until(health, lambda status: status == 200)  # the proxy has found out, too
            try:
                yield running
            finally:
                for client in running.clients:
                    client.close()


@pytest.mark.parametrize("name", PROXIES)
async def test_clients_are_known_behind_a_proxy(tmp_path: Path, name: str) -> None:
    async with behind(name, tmp_path) as running:
        for tls in (True, False):
            for headers in ({}, SPOOFED):
                said, cookie = await running.ask(tls=tls, **headers)
                assert said["address"] == CLIENT
                assert ("; Secure" in cookie) is tls
                assert (await call(await running.open(headers, tls=tls), "who"))["address"] == CLIENT
        await origins(running)
        await polling_and_its_upgrade(running)
        await bodies(running)
        await attacks(running)


async def origins(running: Behind) -> None:
    """The page's origin is compared with what the client connected to, at the proxy."""
    for tls in (True, False):
        scheme, other = ("https", "http") if tls else ("http", "https")
        host = running.host(tls)
        websocket = await running.open({"Origin": f"{scheme}://{host}"}, tls=tls)
        assert isinstance(websocket, RawWebSocket)
        await websocket.end()
        for origin in (f"{scheme}://evil.example", f"{scheme}://{HOST}", f"{other}://{running.host(not tls)}"):
            assert await running.open({"Origin": origin}, tls=tls) == 403
        assert await running.open({"Origin": f"{scheme}://evil.example", **SPOOFED}, tls=tls) == 403


async def polling_and_its_upgrade(running: Behind) -> None:
    """Each request comes by a connection of its own, and finds its session."""
    host = running.host()
    client = Polling(lambda: connect_naming(running, host))
    await client.open()
    await client.handshake()
    waiting = await client.start_poll()
    await client.post("4" + event("who", None, 2), "4" + event("echo", "x" * 100_000, 3))
    packets = bytes((await waiting.answer()).body or b"").decode().split("\x1e")
    while not any('"rid":3' in packet for packet in packets):
        packets += await client.poll()
    answers = {
        message["rid"]: message["data"] for packet in packets if "rid" in (message := json.loads(packet[1:] or "{}"))
    }
    assert answers[2]["address"] == CLIENT
    assert answers[3] == "x" * 100_000
    raw = await running.connect()
    await raw.send(upgrade(f"{ENGINE}websocket&sid={client.sid}", Host=host))
    websocket = RawWebSocket(raw, await raw.answer())
    await websocket.send_text("2probe")
    assert bytes((await websocket.next()).data) == b"3probe"
    await websocket.send(frame("5"), frame("4" + event("who", None, 4)))
    data = bytes((await websocket.next()).data)
    assert json.loads(data[1:])["data"]["address"] == CLIENT
    await websocket.end()


async def connect_naming(running: Behind, host: str) -> RawClient:
    """Open a connection whose requests name the proxy's host and port, and get answers as they are."""
    client = await running.connect()
    send = client.send

    async def naming(data: bytes) -> None:
        await send(data.replace(b"Host: localhost\r\n", f"Host: {host}\r\n{PLAIN}".encode(), 1))

    client.send = naming  # type: ignore[method-assign]
    return client


async def bodies(running: Behind) -> None:
    """One of 3 MB is beyond what NGINX allows by itself."""
    body = b"0123456789abcdef" * 200_000
    for fields in (f"Content-Length: {len(body)}", "Transfer-Encoding: chunked"):
        client = await running.connect()
        head = f"POST /echo HTTP/1.1\r\nHost: {running.host()}\r\nConnection: close\r\n{fields}\r\n\r\n".encode()
        sent = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if "chunked" in fields else body
        sending = asyncio.create_task(client.send(head + sent))
        answer = await client.closed()
        await sending
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.count(b"0123456789abcdef") > 199_000  # but where chunks are cut


async def attacks(running: Behind) -> None:
    """What clients write themselves, through the proxy and beside it."""
    addresses = ", ".join(["6.6.6.6"] * 400)
    said, _ = await running.ask(X_Forwarded_For=addresses, Forwarded="for=6.6.6.6," * 200)
    assert said["address"] == CLIENT
    port = int(running.cluster.url.rpartition(":")[2])
    for fields in (SPOOFED, {"X_Forwarded_For": addresses}):
        beside = RawClient(*await asyncio.open_connection("127.0.0.1", port, local_addr=(CLIENT, 0)))
        running.clients.append(beside)
        answer = await beside.request("GET", "/who", None, **fields)
        assert json.loads(bytes(answer.body or b""))["address"] == CLIENT
        assert "Secure" not in answer.headers["set-cookie"]
    # Heads that two servers might read differently: whatever comes back, nobody else is told to be the client.
    inner = "GET /who HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"
    for head in (
        "POST /who HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /who HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nTransfer-Encoding : chunked\r\n\r\n",
        "POST /who HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: \x0bchunked\r\nContent-Length: 0\r\n\r\n",
        "GET /who HTTP/1.1\r\nHost: {host}\r\nX: y\nX-Forwarded-For: 6.6.6.6\r\n\r\n",
        "GET /who HTTP/1.1\r\nHost: {host}\r\nConnection: X-Forwarded-For, X-Forwarded-Proto\r\n\r\n",
        "GET /who HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 6.6.6.7\r\n\r\n",
        "GET /who HTTP/1.1\r\nHost: {host}\r\nX_Forwarded_For: 6.6.6.6\r\n\r\n",
    ):
        client = await running.connect()
        host = running.host()
        sent = head.format(host=host, length=5 + len(inner.format(host=host))) + inner.format(host=host)
        await client.send(sent.encode("latin-1"))
        client.writer.write(f"GET /who HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answers = await client.closed()
        assert b"6.6.6." not in answers
        assert set(re.findall(rb'"address": ?"([^"]*)"', answers)) <= {CLIENT.encode()}


@pytest.mark.parametrize("name", PROXIES)
async def test_limits_count_the_clients_behind_a_proxy(tmp_path: Path, name: str) -> None:
    async with behind(name, tmp_path, "--address-socket-limit", "2", workers=1) as running:
        held = [await running.open() for _ in range(2)]
        assert all(isinstance(websocket, RawWebSocket) for websocket in held)
        assert await running.open() == 429
        assert await running.open(SPOOFED) == 429
        assert (await call(await running.open(client=OTHER), "who"))["address"] == OTHER
        assert isinstance(held[0], RawWebSocket)
        await held[0].end()

        async def again() -> RawWebSocket | int:
            return await running.open()

        await until(again, lambda opened: opened != 429)


@pytest.mark.parametrize("name", PROXIES)
async def test_what_a_proxy_sends(tmp_path: Path, name: str) -> None:
    """The fields that are believed come once, those of clients not at all, and no connection has two requests."""
    heads: asyncio.Queue[str] = asyncio.Queue()
    health = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if " /socketcluster/health " in head:
            health.set()
        else:
            heads.put_nowait(head)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        if await reader.read():  # another request, were there one
            heads.put_nowait("another")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, fronts.running(name, server.sockets[0].getsockname()[1], tmp_path / "front") as front:
        if name != "nginx":  # which only looks whether requests succeed
            await health.wait()
        while not heads.empty():
            heads.get_nowait()
        for tls, port in ((True, front.tls), (False, front.plain)):
            client = RawClient(*await front.connect(tls=tls, client=CLIENT))
            for _ in range(2):
                await client.request("GET", "/page", None, Host=f"{HOST}:{port}", **SPOOFED)
                head = await heads.get()
                assert fields(head, "host") == fields(head, "x-forwarded-host") == [f"{HOST}:{port}"]
                assert fields(head, "x-forwarded-for") == [CLIENT]
                assert fields(head, "x-forwarded-proto") == ["https" if tls else "http"]
                assert fields(head, "forwarded") == []
            client.close()
        assert heads.empty()


def fields(head: str, name: str) -> list[str]:
    return re.findall(rf"(?im)^{name}: *(.*?)\r$", head)


def test_time_outs_are_longer_than_heartbeats_and_bodies_as_large_as_the_workers_allow() -> None:
    options = WorkerSettings.model_fields
    heartbeat = options["heartbeat_interval"].default + options["heartbeat_timeout"].default
    largest = options["max_request_body"].default
    assert heartbeat < 60
    nginx = (DEPLOY / "nginx" / "socketcluster.conf").read_text()
    waits = [int(found) for found in re.findall(r"proxy_(?:read|send)_timeout (\d+)s;", nginx)]
    assert len(waits) == 2
    assert int(*re.findall(r"client_max_body_size (\d+)m;", nginx)) * 2**20 >= largest
    haproxy = (DEPLOY / "haproxy" / "haproxy.cfg").read_text()
    waits += [int(found) for found in re.findall(r"timeout (?:client|server|tunnel) (\d+)s\n", haproxy)]
    assert len(waits) == 5
    assert min(waits) > 60
    assert int(*re.findall(r"content-length\) gt (\d+)", haproxy)) == largest
    caddy = (DEPLOY / "caddy" / "Caddyfile").read_text()
    assert int(*re.findall(r"max_size (\d+)MB", caddy)) * 1_000_000 >= largest
    assert "timeout" not in caddy  # by itself it waits


def test_the_files_of_traefik_name_what_they_refer_to() -> None:
    """Debian has no Traefik to try them with."""
    static, dynamic = (
        tomllib.loads((DEPLOY / "traefik" / name).read_text()) for name in ("traefik.toml", "socketcluster.toml")
    )
    assert static["providers"]["file"]["filename"] == "socketcluster.toml"
    http = dynamic["http"]
    for router in http["routers"].values():
        assert set(router["entryPoints"]) <= set(static["entryPoints"])
        assert set(router["middlewares"]) <= set(http["middlewares"])
        assert router["service"] in http["services"]
    (balancer,) = (service["loadBalancer"] for service in http["services"].values())
    assert http["serversTransports"][balancer["serversTransport"]] == {"maxIdleConnsPerHost": -1}
    assert balancer["healthCheck"]["path"] == "/socketcluster/health"
    assert "sticky" not in balancer
