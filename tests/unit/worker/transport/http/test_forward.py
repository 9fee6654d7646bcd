"""Requests that arrive at a worker and are for a session of another one."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.clients.raw import ENGINE, HANDSHAKE, Polling, RawClient, RawWebSocket, event, frame, upgrade
from support.worker.running import Probe, RunningWorker, StartWorker, until

from socketcluster_proto.v1.store_pb2 import Directory, WorkerAddress
from socketcluster_runtime.secrets.keys import Purpose, derive_key
from socketcluster_wire import proxy_protocol
from socketcluster_wire.close_codes import CloseCode
from socketcluster_worker.transport.engineio.engine import EngineSession

KEY = derive_key("a secret of the tests", Purpose.PROXY_HEADERS)
UNKNOWN = {"code": 1, "message": "Session ID unknown"}
STRANGER = "stranger"
"""The id of a worker that a test plays."""


@pytest.fixture
async def owner(start_worker: StartWorker, probe: Probe) -> RunningWorker:
    """The worker that has the sessions."""
    return await start_worker(probe.run, name="owner")


@pytest.fixture
async def other(start_worker: StartWorker, owner: RunningWorker) -> RunningWorker:
    """The worker that the requests arrive at."""
    return await start_other(start_worker, owner)


async def start_other(start_worker: StartWorker, *knows: RunningWorker, **options: Any) -> RunningWorker:
    made = await start_worker(name="other", **options)
    find = made.service._client.workers.find
    await until(lambda: all(find(worker.worker.id) for worker in knows))
    return made


def session(worker: RunningWorker, sid: str) -> EngineSession:
    return worker.service._router._engines["/socketcluster/engine/"]._sessions[sid]


async def astray(owner: RunningWorker, other: RunningWorker) -> Polling:
    """A client whose session is the one worker's, and whose further requests arrive at the other."""
    client = await owner.engine()
    client._connect = other.connect
    return client


def under_way(worker: RunningWorker) -> int:
    return worker.service._router._forwarder.under_way


async def upgraded(client: Polling, worker: RunningWorker, *more: bytes) -> RawWebSocket:
    """Open the WebSocket that takes a polling connection over; more bytes follow the request at once."""
    raw = await worker.connect()
    await raw.send(upgrade(f"{ENGINE}websocket&sid={client.sid}") + b"".join(more))
    answer = await raw.answer()
    assert answer.status_code == 101, answer
    return RawWebSocket(raw, answer)


async def test_polling(owner: RunningWorker, other: RunningWorker, probe: Probe) -> None:
    client = await astray(owner, other)
    await client.handshake()
    socket = await probe.sockets.get()
    assert socket.handshake.address[0] == "127.0.0.1"
    waiting = await client.start_poll()
    await until(lambda: session(owner, client.sid)._poll)
    socket.emit("news", "ünïcode ✓")
    answer = await waiting.answer()
    assert json.loads(bytes(answer.body)[1:])["data"] == "ünïcode ✓"
    assert answer.headers["content-type"] == "text/plain; charset=UTF-8"
    assert len(answer.headers.get_all("date")) == 1
    await client.post("4" + event("echo", "there and back", 5))
    assert json.loads((await client.poll())[0][1:]) == {"rid": 5, "data": "there and back"}
    await until(lambda: under_way(other) == 0)


async def test_a_long_answer_and_a_long_body(owner: RunningWorker, other: RunningWorker, probe: Probe) -> None:
    client = await astray(owner, other)
    await client.handshake()
    long = "x" * 900_000
    await client.post("4" + event("echo", long, 5))
    assert json.loads((await client.poll())[0][1:])["data"] == long


async def test_only_what_opens_a_connection_sets_a_cookie(
    owner: RunningWorker, other: RunningWorker, probe: Probe
) -> None:
    client = await astray(owner, other)
    raw = await other.connect()
    for _ in range(2):  # the connection may go on, too
        answer = await raw.request("POST", client.target, b"3")
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        assert "set-cookie" not in answer.headers
    answer = await raw.request("GET", ENGINE + "polling")
    assert answer.headers["set-cookie"].startswith(f"socketcluster.session={other.worker.id}")


async def test_requests_of_one_connection_go_where_each_belongs(
    owner: RunningWorker, other: RunningWorker, probe: Probe
) -> None:
    theirs, ours = await owner.engine(), await other.engine()
    opening = await (await other.connect()).request("GET", ENGINE + "polling")
    cookie = opening.headers["set-cookie"].partition(";")[0]
    raw = await other.connect()
    for client in (ours, theirs, theirs, ours, theirs):
        answer = await raw.request("POST", client.target, b"3", Cookie=cookie)
        assert (answer.status_code, answer.body) == (200, b"ok")
    answer = await raw.request("GET", "/socketcluster/health", Cookie=cookie)
    assert json.loads(bytes(answer.body)) == {"status": "ok", "worker": "other"}


async def test_pipelined_requests_are_answered_in_order(
    owner: RunningWorker, other: RunningWorker, probe: Probe
) -> None:
    theirs, ours = await owner.engine(), await other.engine()
    raw = await other.connect()
    cookie = (await raw.request("GET", ENGINE + "polling")).headers["set-cookie"].partition(";")[0]
    raw = await other.connect()
    targets = [theirs.target, "/socketcluster/health", theirs.target, ours.target]
    bodies = [b"3", b"", b"malformed", b"3"]
    await raw.send(
        b"".join(
            f"{'POST' if body else 'GET'} {target} HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
            for target, body in zip(targets, bodies, strict=True)
        )
    )
    assert [(await raw.answer()).status_code for _ in targets] == [200, 200, 400, 200]


async def test_an_upgrade(owner: RunningWorker, other: RunningWorker, probe: Probe) -> None:
    client = await astray(owner, other)
    await client.handshake()
    websocket = await upgraded(client, other, frame("2probe"))  # what follows the request is not lost
    assert await websocket.next_text() == "3probe"
    await websocket.send_text("5")
    await until(lambda: session(owner, client.sid).transport_name == "websocket")
    assert under_way(other) == 1
    long = "y" * 900_000
    await websocket.send_text("4" + event("echo", long, 6))
    assert json.loads((await websocket.next_text())[1:]) == {"rid": 6, "data": long}
    await websocket.end()
    assert (await probe.ends.get())[1] == CloseCode.NORMAL
    await until(lambda: under_way(other) == 0)


async def test_an_owner_that_ends_the_connection(owner: RunningWorker, other: RunningWorker, probe: Probe) -> None:
    client = await astray(owner, other)
    await client.handshake()
    websocket = await upgraded(client, other, frame("2probe"), frame("5"))
    assert await websocket.next_text() == "3probe"
    (await probe.sockets.get()).disconnect(4001, "enough")
    assert await websocket.next_close() == (4001, "enough")
    assert (await probe.ends.get())[1] == 4001
    websocket.client.close()
    await until(lambda: under_way(other) == 0)


async def test_a_client_that_breaks_off(owner: RunningWorker, other: RunningWorker, probe: Probe) -> None:
    client = await astray(owner, other)
    await client.handshake()
    waiting = await client.start_poll()
    await until(lambda: session(owner, client.sid)._poll)
    waiting.abort()
    assert (await probe.ends.get())[1] == CloseCode.ABNORMAL
    assert (await client.request("GET"))[0] == 400
    client = await astray(owner, other)
    await client.handshake()
    websocket = await upgraded(client, other, frame("2probe"), frame("5"))
    assert await websocket.next_text() == "3probe"
    websocket.client.abort()
    assert (await probe.ends.get())[1] == CloseCode.ABNORMAL
    await until(lambda: under_way(other) == 0)


async def test_the_client_is_the_one_that_the_other_worker_saw(
    owner: RunningWorker, other: RunningWorker, probe: Probe
) -> None:
    client = await owner.engine()
    raw = await other.connect()
    body = ("4" + HANDSHAKE).encode()
    await raw.send(proxy_protocol.encode(("2001:db8::7", 4711), ("::1", 443), tls=True, key=KEY))
    answer = await raw.request("POST", client.target, body, Origin="https://localhost")
    assert answer.status_code == 200  # by http, the page's origin would be another one


@pytest.mark.parametrize("transport", ["polling", "websocket"])
async def test_no_request_is_forwarded_twice(
    owner: RunningWorker, other: RunningWorker, probe: Probe, transport: str
) -> None:
    client = await owner.engine()
    raw = await other.connect()
    await raw.send(proxy_protocol.encode(("192.0.2.1", 1), ("192.0.2.2", 2), tls=False, key=KEY, forwarded=True))
    await ask(raw, transport, client.sid)
    await expect_unknown(raw)


@pytest.mark.parametrize("transport", ["polling", "websocket"])
async def test_a_worker_that_nobody_knows(other: RunningWorker, transport: str) -> None:
    for sid in ("nobody77x", "owner", "%00" * 9):
        raw = await other.connect()
        await ask(raw, transport, sid)
        await expect_unknown(raw)


@pytest.mark.parametrize("transport", ["polling", "websocket"])
async def test_a_worker_that_has_gone(owner: RunningWorker, other: RunningWorker, probe: Probe, transport: str) -> None:
    client = await owner.engine()
    await owner.stop()
    assert other.service._client.workers.find(owner.worker.id)
    raw = await other.connect()
    await ask(raw, transport, client.sid)
    await expect_unknown(raw)


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (b"", b"HTTP/1.1 400"),
        (b"HTTP/1.1 200 OK\r\ncontent-le", b"HTTP/1.1 400"),
        (b"no HTTP at all\r\n\r\n", b"HTTP/1.1 400"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345", b"HTTP/1.1 200"),
    ],
)
async def test_a_worker_that_breaks_off(start_worker: StartWorker, answer: bytes, seen: bytes) -> None:
    other = await start_other(start_worker)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with stranger(other, serve):
        raw = await other.connect()
        await ask(raw, "polling", STRANGER + "x")
        assert (await raw.reader.readline()).startswith(seen)
        await until(lambda: under_way(other) == 0)
        if b"200" in seen:  # the client learns that the answer is not whole
            assert (await raw.closed()).endswith(b"\r\n\r\n12345")


async def test_a_worker_that_is_silent(start_worker: StartWorker) -> None:
    other = await start_other(start_worker, heartbeat_interval=0.05, heartbeat_timeout=0.05)
    asked = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.read()
        writer.close()

    async with stranger(other, serve):
        raw = await other.connect()
        await ask(raw, "polling", STRANGER + "x")
        await asked.wait()
        await expect_unknown(raw)


@pytest.mark.parametrize("transport", ["polling", "websocket"])
async def test_a_worker_that_hangs_is_waited_for_no_longer_than_one_that_cannot_be_reached(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    monkeypatch.setattr("socketcluster_worker.transport.http.forward.SIGN_TIMEOUT", 0.05)
    other = await start_other(start_worker, heartbeat_interval=3600)
    with socket.create_server(("127.0.0.1", 0)) as hung:  # the kernel accepts
        introduce(other, hung.getsockname()[1])
        raw = await other.connect()
        await ask(raw, transport, STRANGER + "x")
        await expect_unknown(raw)
        await until(lambda: under_way(other) == 0)


async def test_a_poll_is_waited_for_as_long_as_it_takes_once_its_worker_has_given_a_sign(
    owner: RunningWorker, other: RunningWorker, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socketcluster_worker.transport.http.forward.SIGN_TIMEOUT", 0.5)
    client = await astray(owner, other)
    await client.handshake()
    waiting = await client.start_poll()
    await until(lambda: session(owner, client.sid)._poll)
    await asyncio.sleep(0.6)  # longer than a sign may take
    (await probe.sockets.get()).emit("news", 1)
    answer = await waiting.answer()
    assert (answer.status_code, json.loads(bytes(answer.body)[1:])["data"]) == (200, 1)


@pytest.mark.parametrize("split", [False, True])
async def test_an_interim_answer_is_not_the_answer(start_worker: StartWorker, split: bool) -> None:
    other = await start_other(start_worker)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 100 Continue\r\nx-interim: yes\r\n\r\n")
        if split:
            await writer.drain()
            await asyncio.sleep(0)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
        writer.close()

    async with stranger(other, serve):
        raw = await other.connect()
        await ask(raw, "polling", STRANGER + "x")
        answer = await raw.answer()
        assert (answer.status_code, answer.body) == (200, b"hi")
        assert "x-interim" not in answer.headers


async def test_what_a_forwarded_request_is_made_of(start_worker: StartWorker) -> None:
    other = await start_other(start_worker)
    seen: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.put_nowait(await reader.readuntil(b"ody"))
        writer.write(b"HTTP/1.1 299 Fine\r\nX-It: is\r\nKeep-Alive: no\r\nContent-Length: 2\r\n\r\nhi")
        writer.close()

    async with stranger(other, serve):
        raw = await other.connect()
        await raw.send(
            f"POST {ENGINE}polling&sid={STRANGER}%78&t=%20 HTTP/1.1\r\nHost: x\r\n"
            "TE: trailers\r\nX-Mine: 1\r\nx-mine: 2\r\n"
            "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n".encode()
        )
        assert await raw.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        answer = await raw.answer()
        assert (answer.status_code, answer.body, answer.headers["x-it"]) == (299, b"hi", "is")
        assert "keep-alive" not in answer.headers
        got = await seen.get()
        header = proxy_protocol.parse(got, KEY)
        assert header is not None
        assert header.forwarded
        assert header.source == raw.writer.get_extra_info("sockname")
        assert got[header.size :].decode() == (
            f"POST {ENGINE}polling&sid={STRANGER}%78&t=%20 HTTP/1.1\r\nhost: x\r\nx-mine: 1\r\nx-mine: 2\r\n"
            "connection: close\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\nbody"
        )


async def test_forwards_are_bounded(start_worker: StartWorker, owner: RunningWorker, probe: Probe) -> None:
    other = await start_other(start_worker, owner, max_forwards=1)
    one, two = await astray(owner, other), await astray(owner, other)
    waiting = await one.start_poll()
    await until(lambda: session(owner, one.sid)._poll)
    assert (await two.request("POST", b"3"))[0] == 400
    raw = await other.connect()
    await ask(raw, "websocket", two.sid)
    await expect_unknown(raw)
    session(owner, one.sid).release_poll()
    assert bytes((await waiting.answer()).body) == b"6"
    await until(lambda: under_way(other) == 0)
    await two.post("3")


async def test_a_body_over_the_limit_is_not_forwarded(start_worker: StartWorker, owner: RunningWorker) -> None:
    other = await start_other(start_worker, owner, max_http_buffer_size=1000)
    client = await astray(owner, other)
    assert (await client.request("POST", b"4" * 1001))[0] == 413
    await client.post("3")


async def test_a_worker_that_stops_ends_what_it_forwards(
    owner: RunningWorker, other: RunningWorker, probe: Probe
) -> None:
    client = await astray(owner, other)
    await client.handshake()
    websocket = await upgraded(client, other, frame("2probe"), frame("5"))
    assert await websocket.next_text() == "3probe"
    await until(lambda: session(owner, client.sid).transport_name == "websocket")
    await other.stop()
    assert await websocket.client.closed() == b""
    assert (await probe.ends.get())[1] == CloseCode.ABNORMAL


async def ask(raw: RawClient, transport: str, sid: str) -> None:
    target = f"{ENGINE}{transport}&sid={sid}"
    if transport == "websocket":
        await raw.send(upgrade(target))
    else:
        await raw.send(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())


async def expect_unknown(raw: RawClient) -> None:
    answer = await raw.answer()
    assert answer.status_code == 400
    assert json.loads(bytes(answer.body)) == UNKNOWN


@asynccontextmanager
async def stranger(
    knows: RunningWorker, serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
) -> AsyncIterator[None]:
    """Be a worker that another one knows."""
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        introduce(knows, server.sockets[0].getsockname()[1])
        yield


def introduce(to: RunningWorker, port: int) -> None:
    """Tell a worker where the stranger is."""
    address = WorkerAddress(worker_id=STRANGER, http_host="127.0.0.1", http_port=port)
    to.service._client.workers.told("the test", Directory(workers=[address]))
