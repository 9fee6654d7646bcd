"""Sessions and their cookies; who a client is when a balancer says so, by a header or with the socket itself."""

from __future__ import annotations

import array
import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from support.clients.raw import HANDSHAKE, RawClient, RawWebSocket, event, frame, upgrade
from support.worker.running import Probe, RunningWorker, StartWorker, until

from socketcluster_runtime.secrets.keys import Purpose, derive_key
from socketcluster_runtime.session_cookies import MAX_TRIED, SessionCookies
from socketcluster_wire import handoff, proxy_protocol
from socketcluster_worker.api.worker import Worker
from socketcluster_worker.ids import IdGenerator, worker_id
from socketcluster_worker.transport.handoff import BalancerLink

KEY = derive_key("a secret of the tests", Purpose.PROXY_HEADERS)
WHO = b"GET /who HTTP/1.1\r\nHost: localhost\r\n\r\n"


def tell(worker: Worker) -> None:
    """Be a controller that tells clients who they are."""

    @worker.http_server.on("req")
    async def page(request: Any) -> Any:
        body = await request.body()
        client = request.client and [request.client.host, request.client.port]
        return {"client": client, "scheme": request.url.scheme, "session": request.session.id, "body": body.decode()}

    @worker.ws_server.on("connection")
    def connected(client: Any) -> None:
        client.on("who", lambda: [client.handshake.address, client.handshake.secure, client.session.id])


def header(*, tls: bool = False, key: bytes = KEY) -> bytes:
    return proxy_protocol.encode(("203.0.113.7", 4711), ("198.51.100.1", 443), tls=tls, key=key)


async def test_only_a_new_session_gets_a_cookie(start_worker: StartWorker) -> None:
    worker = await start_worker(tell)
    answer = await (await worker.connect()).request("GET", "/who")
    cookie = answer.headers["set-cookie"]
    session = json.loads(answer.body)["session"]
    assert cookie.startswith(f"socketcluster.session={session}.")
    assert cookie.partition("; ")[2] == "Path=/; HttpOnly; SameSite=Lax"
    mine = cookie.partition(";")[0]
    again = await (await worker.connect()).request("GET", "/who", Cookie=f"a=b; {mine}")
    assert json.loads(again.body)["session"] == session
    assert "set-cookie" not in again.headers
    websocket = await worker.websocket(Cookie=mine)
    assert "set-cookie" not in websocket.response.headers
    for forged in (f"socketcluster.session={session}", mine[:-1], f"socketcluster.session={session}.x", "x" * 20_000):
        other = await (await worker.connect()).request("GET", "/who", Cookie=forged)
        assert json.loads(other.body)["session"] != session
        assert "set-cookie" in other.headers


async def test_under_tls_the_cookie_is_secure(start_worker: StartWorker) -> None:
    worker = await start_worker(tell)
    for tls in (True, False):
        client = await worker.connect()
        await client.send(header(tls=tls) + WHO)
        answer = await client.answer()
        assert ("; Secure" in answer.headers["set-cookie"]) is tls
        assert answer.headers["set-cookie"].startswith("__Host-socketcluster." if tls else "socketcluster.")
        mine = answer.headers["set-cookie"].partition(";")[0]
        session = json.loads(answer.body)["session"]
        for cookie, believed in ((mine, True), (mine.removeprefix("__Host-"), not tls), ("__Host-" + mine, False)):
            client = await worker.connect()
            await client.send(header(tls=tls) + WHO[:-2] + f"Cookie: {cookie}\r\n\r\n".encode())
            assert (json.loads((await client.answer()).body)["session"] == session) is believed
        client = await worker.connect()
        await client.send(header(tls=tls) + upgrade())
        assert ("; Secure" in (await client.answer()).headers["set-cookie"]) is tls


async def test_http_and_sockets_have_one_session_object_until_the_last_leaves(
    start_worker: StartWorker, probe: Probe
) -> None:
    seen: list[Any] = []
    app = FastAPI()

    @app.get("/mounted")
    def mounted(request: Request) -> str:
        seen.append(request.session)
        return "ok"

    def run(worker: Worker) -> None:
        probe.run(worker)
        worker.http_server.mount(app)

    worker = await start_worker(run)
    answer = await (await worker.connect()).request("GET", "/mounted")
    assert answer.body == b'"ok"'
    cookie = answer.headers["set-cookie"].partition(";")[0]
    tabs = [await worker.websocket(Cookie=cookie) for _ in range(2)]
    sockets = []
    for tab in tabs:
        await tab.send_text(HANDSHAKE)
        sockets.append(await probe.sockets.get())
    await (await worker.connect()).request("GET", "/mounted", Cookie=cookie)
    session = seen[0]
    assert seen[1] is session is sockets[0].session is sockets[1].session
    routes = worker.service._client._routes
    for tab, left in zip(tabs, (1, 0), strict=True):
        assert [s for route in routes for s in route.attached_sessions()] == [session.id]
        await tab.end()
        await probe.ends.get()
        assert len(session.sockets) == left
    assert not [s for route in routes for s in route.attached_sessions()]


async def test_a_worker_tells_how_many_clients_and_sessions_it_has(worker: RunningWorker, probe: Probe) -> None:
    def told() -> list[float | None]:
        get = worker.lifecycle.metrics.get_sample_value
        return [get("socketcluster_worker_connections"), get("socketcluster_worker_sessions")]

    assert told() == [0, 0]
    tab = await worker.websocket()
    await tab.send_text(HANDSHAKE)
    socket = await probe.sockets.get()
    assert told() == [1, 1]
    cookie = f"socketcluster.session={tab.response.headers['set-cookie'].partition('=')[2].partition(';')[0]}"
    other = await worker.websocket(Cookie=cookie)
    await other.send_text(HANDSHAKE)
    assert (await probe.sockets.get()).session is socket.session
    assert told() == [2, 1]
    for client in (tab, other):
        await client.end()
        await probe.ends.get()
    assert told()[0] == 0


async def test_a_balancer_s_header_tells_who_the_client_is(start_worker: StartWorker) -> None:
    worker = await start_worker(tell)
    client = await worker.connect()
    for byte in header(tls=True) + WHO:
        await client.send(bytes((byte,)))
        await asyncio.sleep(0)
    told = json.loads((await client.answer()).body)
    assert (told["client"], told["scheme"]) == (["203.0.113.7", 4711], "https")
    client = await worker.connect()
    await client.send(header() + upgrade() + frame(HANDSHAKE) + frame(event("who", None, 2)))
    websocket = RawWebSocket(client, await client.answer())
    await websocket.next_json()
    assert (await websocket.next_json())["data"][:2] == [["203.0.113.7", 4711], False]
    plain = await worker.connect()
    own = list(plain.writer.get_extra_info("sockname"))
    assert json.loads((await plain.request("GET", "/who")).body)["client"] == own


@pytest.mark.parametrize(
    "sent",
    [header(key=b"another"), header()[:-1] + b"x", proxy_protocol.SIGNATURE + b"\x99\x99\x00\x00", header()[:20]],
)
async def test_a_header_that_is_not_believed_ends_the_connection(
    worker: RunningWorker, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr("socketcluster_worker.transport.proxy_protocol.HEAD_TIMEOUT", 0.05)
    client = await worker.connect()
    await client.send(sent)
    assert await client.closed() == b""


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Balancer:
    """Hands sockets over."""

    def __init__(self, worker: RunningWorker) -> None:
        self.link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.link.connect(worker.handoff_path)
        self.link.setblocking(False)
        self._last = 0
        self.ended: list[int] = []
        """Connections that the worker has told the end of."""

    async def reply(self) -> handoff.Reply:
        return handoff.decode_reply(await asyncio.get_running_loop().sock_recv(self.link, handoff.MAX_REPLY_BYTES))

    async def has_ended(self, *numbers: int) -> None:
        """Wait until the worker has told the end of connections, and of no others."""
        while len(self.ended) < len(numbers):
            reply = await self.reply()
            assert reply.ended
            self.ended += reply.ids
        assert sorted(self.ended) == list(numbers)
        self.ended.clear()

    async def give(self, head: bytes, *, tls: bool = False, keep: bool = False) -> tuple[RawClient, socket.socket]:
        """Hand a connection over; return the client's end and the balancer's, which is closed unless it is kept."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = RawClient(*await asyncio.open_connection(*listener.getsockname()))
            accepted, _ = listener.accept()
        self._last += 1
        packet = handoff.encode(handoff.Handoff(self._last, head, tls, ("203.0.113.9", 5)))
        socket.send_fds(self.link, [packet], [accepted.fileno()])
        while (reply := await self.reply()).ended:
            self.ended += reply.ids
        assert reply.ids == (self._last,)
        if not keep:
            accepted.close()
        return client, accepted


async def test_sockets_are_taken_over_with_what_was_read(start_worker: StartWorker) -> None:
    worker = await start_worker(tell)
    balancer = Balancer(worker)
    with balancer.link:
        client, _ = await balancer.give(b"POST /who HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nwhole", tls=True)
        told = json.loads((await client.answer()).body)
        assert (told["body"], told["client"], told["scheme"]) == ("whole", ["203.0.113.9", 5], "https")
        client.close()
        client, _ = await balancer.give(b"POST /who HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nwh")
        await client.send(b"ole")
        assert json.loads((await client.answer()).body)["body"] == "whole"
        client.close()
        client, _ = await balancer.give(upgrade() + frame(HANDSHAKE))
        await client.send(frame(event("who", None, 2)))
        websocket = RawWebSocket(client, await client.answer())
        await websocket.next_json()
        assert (await websocket.next_json())["data"][0] == ["203.0.113.9", 5]
        await websocket.end()


async def test_a_balancer_is_told_when_connections_end_however_they_do(start_worker: StartWorker) -> None:
    """HTTP that the worker ends, WebSockets of the worker's endpoints, resets, and connections that never spoke."""
    worker = await start_worker(tell)
    balancer = Balancer(worker)
    with balancer.link:
        client, _ = await balancer.give(WHO)
        assert await client.closed()
        await balancer.has_ended(1)
        client.close()
        client, _ = await balancer.give(upgrade())
        websocket = RawWebSocket(client, await client.answer())
        assert not balancer.ended
        await websocket.end()
        await balancer.has_ended(2)
        client, _ = await balancer.give(upgrade())
        await client.answer()
        client.abort()
        await balancer.has_ended(3)
        client, _ = await balancer.give(b"")
        client.abort()
        await balancer.has_ended(4)


async def test_a_balancer_is_told_of_more_ends_when_it_has_read_of_the_ones_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So packets about ends never take the room of acknowledgements."""
    monkeypatch.setattr(handoff, "MAX_IDS", 2)
    own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    own.setblocking(False)
    other.setblocking(False)
    link = BalancerLink(own)
    with other:
        for number in range(5):
            link.ended(number)
        for expected in ((0, 1), (2, 3), (4,)):
            for _ in range(3):
                link._tell()
            assert handoff.decode_reply(other.recv(100)) == handoff.Reply(expected, ended=True)
            with pytest.raises(BlockingIOError):
                other.recv(100)
        link.close()
        link.ended(9)
        assert other.recv(100) == b""


async def test_a_balancer_that_has_gone_is_told_nothing(start_worker: StartWorker) -> None:
    worker = await start_worker(tell)
    balancer = Balancer(worker)
    with balancer.link:
        client, _ = await balancer.give(upgrade())
        websocket = RawWebSocket(client, await client.answer())
    await websocket.end()
    other = Balancer(worker)
    with other.link:
        client, _ = await other.give(b"")
        client.abort()
        await other.has_ended(1)


async def test_a_connection_ends_for_its_client_though_its_descriptor_is_still_held(start_worker: StartWorker) -> None:
    worker = await start_worker(tell)
    balancer = Balancer(worker)
    with balancer.link:
        client, kept = await balancer.give(WHO, keep=True)
        with kept:
            assert (await client.answer()).status_code == 200
            assert await client.closed() == b""
        client.close()
        client, kept = await balancer.give(upgrade(), keep=True)
        with kept:
            await RawWebSocket(client, await client.answer()).end()


@pytest.mark.parametrize("kind", ["no descriptor", "no packet", "no socket"])
async def test_what_is_no_handover_ends_the_balancer_s_connection(
    worker: RunningWorker, tmp_path: Path, kind: str
) -> None:
    balancer = Balancer(worker)
    packet = b"\xff" if kind == "no packet" else handoff.encode(handoff.Handoff(1, b"GET", tls=False, client=None))
    before = descriptors()
    with balancer.link, (tmp_path / "file").open("w") as file, socket.socket() as unused:
        descriptor = file.fileno() if kind == "no socket" else unused.fileno()
        ancillary = (
            [] if kind == "no descriptor" else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
        )
        balancer.link.sendmsg([packet], ancillary)
        assert await asyncio.get_running_loop().sock_recv(balancer.link, 100) == b""
    await until(lambda: descriptors() < before)
    again = Balancer(worker)  # others are served on
    with again.link:
        client, _ = await again.give(b"GET /socketcluster/health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.answer()).status_code == 200
        client.close()


def test_cookies_of_another_application_or_cluster_are_not_read() -> None:
    cookies = SessionCookies("one", "secret")
    written = cookies.write("id", secure=False).partition(";")[0]
    assert cookies.read(written, secure=False) == "id"
    assert cookies.read(f'x=y;{written.replace("=", "=" + chr(34), 1)}"', secure=False) == "id"
    assert cookies.read(f"one.session=forged.x; {written}", secure=False) == "id"
    value = written.partition("=")[2]
    assert SessionCookies("two", "secret").read(f"two.session={value}", secure=False) is None
    assert SessionCookies("one", "other").read(written, secure=False) is None
    tried = "one.session=forged.x; " * MAX_TRIED
    assert cookies.read(tried + written, secure=False) is None
    long = "one.session=" + "x" * 1000  # not looked at more closely
    assert cookies.read(f"{long}; {tried[23:]}{written}", secure=False) == "id"
    for header in ("", "one.session=", "one.session", "one.session=\xff.\xff", ";;;", written + "x" * 20_000):
        assert cookies.read(header, secure=False) is None


def test_ids_begin_with_their_worker() -> None:
    generator = IdGenerator("name")
    assert generator.worker_id == worker_id("name") != worker_id("other")
    assert len(generator.worker_id) == 8
    ids = {generator.new_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(one.startswith(generator.worker_id) and len(one) == 32 for one in ids)
