"""HTTP as the worker's own port speaks it: limits, pipelining, upgrades, whatever bytes arrive."""

from __future__ import annotations

import asyncio
import json

import pytest
from starlette.requests import Request
from support.clients.raw import ENGINE, HANDSHAKE, RawWebSocket, event, frame, upgrade
from support.worker.running import Probe, RunningWorker, StartWorker, cookie_of, until

from socketcluster_wire.errors import HeadTooLargeError, MalformedHeadError
from socketcluster_wire.request_head import RequestHead
from socketcluster_worker.api.worker import Worker
from socketcluster_worker.connection import Handshake

HEALTH = "/socketcluster/health"


async def test_a_connection_serves_one_request_after_the_other(worker: RunningWorker) -> None:
    cookie = await cookie_of(worker)
    client = await worker.connect()
    for _ in range(2):
        answer = await client.request("GET", HEALTH, Cookie=cookie)
        assert json.loads(answer.body) == {"status": "ok", "worker": "worker0"}
        assert "set-cookie" not in answer.headers
        assert "date" in answer.headers
    client.close()


async def test_pipelined_requests_are_answered_in_order(start_worker: StartWorker) -> None:
    release = asyncio.Event()

    def run(worker: Worker) -> None:
        @worker.http_server.on("req")
        async def page(request: Request) -> str:
            if request.url.path == "/slow":
                await release.wait()
            return request.url.path

    worker = await start_worker(run)
    cookie = (await cookie_of(worker)).encode()
    client = await worker.connect()
    await client.send(
        b"".join(b"GET /%s HTTP/1.1\r\nHost: x\r\nCookie: %s\r\n\r\n" % (n, cookie) for n in (b"slow", b"b", b"c"))
    )
    release.set()
    assert [(await client.answer()).body for _ in range(3)] == [b"/slow", b"/b", b"/c"]
    client.close()


async def test_a_head_that_is_too_large_is_refused_though_another_request_went_well_before(
    worker: RunningWorker,
) -> None:
    cookie = await cookie_of(worker)
    client = await worker.connect()
    assert (await client.request("GET", HEALTH, Cookie=cookie)).status_code == 200
    await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X-Filler: %s\r\n" % (b"x" * 1000) * 66)
    assert (await client.answer()).status_code == 431
    await client.closed()


async def test_a_head_without_an_end_is_refused(worker: RunningWorker) -> None:
    client = await worker.connect()
    await client.send(b"GET / HTTP/1.1\r\nHost: x\r\nX-Endless: ")
    await client.send(b"x" * 400_000)
    assert (await client.answer()).status_code == 431


async def test_a_whole_head_that_is_too_large_is_refused(worker: RunningWorker) -> None:
    client = await worker.connect()
    answer = await client.request("GET", "/?" + "x" * 66_000)
    assert answer.status_code == 431


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\x01\x02\x03\r\n\r\n",
        b"HELO mail\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /  HTTP/1.1\r\nHost: x\r\n\r\n",
        b"SOURCE / ICE/1.0\r\nHost: x\r\n\r\n",
        b"DESCRIBE / RTSP/1.0\r\nHost: x\r\n\r\n",
        b"GET / RTSP/1.0\r\nHost: x\r\n\r\n",
        b"\r\n" * 17 + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("behind", [False, True])
async def test_what_is_no_request_is_refused(worker: RunningWorker, garbage: bytes, split: bool, behind: bool) -> None:
    with pytest.raises((MalformedHeadError, HeadTooLargeError)):  # balancers say the same
        RequestHead.parse(garbage)
    client = await worker.connect()
    if behind:
        await client.send(b"POST /socketcluster/health HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab")
        assert (await client.answer()).status_code == 200
    for piece in [garbage[at : at + 1] for at in range(len(garbage))] if split else [garbage]:
        await client.send(piece)
    assert (await client.answer()).status_code == 400
    assert await client.closed() == b""


async def test_a_request_may_come_in_any_pieces_behind_empty_lines(worker: RunningWorker) -> None:
    client = await worker.connect()
    data = b"\r\n\n\r\nGET /socketcluster/health HTTP/1.1\r\nHost: x\r\n\r\n" * 2
    for at in range(len(data)):
        await client.send(data[at : at + 1])
    assert [(await client.answer()).status_code for _ in range(2)] == [200, 200]
    client.close()


async def test_a_head_that_does_not_end_in_time_ends_the_connection(
    worker: RunningWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socketcluster_worker.transport.http.time_limits.HEAD_TIMEOUT", 0.05)
    monkeypatch.setattr("socketcluster_worker.transport.proxy_protocol.HEAD_TIMEOUT", 0.05)
    for start in (b"", b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n"):
        client = await worker.connect()
        await client.send(start)
        assert await client.closed() == b""


async def test_line_ends_after_a_request_keep_no_connection_open(
    worker: RunningWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    cookie = await cookie_of(worker)
    client = await worker.connect()
    assert (await client.request("GET", HEALTH, Cookie=cookie)).status_code == 200
    monkeypatch.setattr("socketcluster_worker.transport.http.time_limits.HEAD_TIMEOUT", 0.05)
    await client.send(b"\r\n")
    assert await client.closed() == b""


async def test_a_handler_may_take_longer_than_a_head(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socketcluster_worker.transport.http.time_limits.HEAD_TIMEOUT", 0.3)

    def run(worker: Worker) -> None:
        @worker.http_server.on("req")
        async def page(request: Request) -> bytes:
            body = await request.body()
            await asyncio.sleep(0.4)
            return body

    worker = await start_worker(run)
    client = await worker.connect()
    await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
    await asyncio.sleep(0.4)  # a body may take its time
    await client.send(b"cd")
    assert (await client.answer()).body == b"abcd"


async def test_another_protocol_is_not_upgraded_to_and_the_connection_goes_on(worker: RunningWorker) -> None:
    cookie = await cookie_of(worker)
    client = await worker.connect()
    for _ in range(2):
        answer = await client.request(
            "GET", HEALTH, Cookie=cookie, Connection="Upgrade, HTTP2-Settings", Upgrade="h2c", HTTP2_Settings="AAM"
        )
        assert answer.status_code == 200
    assert (await client.request("GET", HEALTH, Cookie=cookie)).status_code == 200
    client.close()


async def test_frames_that_come_in_one_piece_with_the_handshake_are_not_lost(
    worker: RunningWorker, probe: Probe
) -> None:
    client = await worker.connect()
    last = frame(event("echo", "hi", 2))
    await client.send(upgrade() + frame(HANDSHAKE) + frame(event("note", "early")) + last[:5])
    websocket = RawWebSocket(client, await client.answer())
    assert (await websocket.next_json())["rid"] == 1
    assert await probe.events.get() == "early"
    await client.send(last[5:])
    assert await websocket.next_json() == {"rid": 2, "data": "hi"}
    await websocket.end()
    await probe.ends.get()


@pytest.mark.parametrize("request_line", ["POST /socketcluster/ HTTP/1.1", "GET /socketcluster/ HTTP/1.0"])
async def test_a_websocket_begins_with_get_and_a_present_http(worker: RunningWorker, request_line: str) -> None:
    client = await worker.connect()
    await client.send(request_line.encode() + upgrade().partition(b" HTTP/1.1")[2])
    assert (await client.answer()).status_code == 400
    await client.closed()


async def test_an_upgrade_behind_a_request_waits_for_its_answer(start_worker: StartWorker) -> None:
    release = asyncio.Event()

    def run(worker: Worker) -> None:
        @worker.http_server.on("req")
        async def page(_: Request) -> str:
            await release.wait()
            return "page"

    worker = await start_worker(run)
    cookie = (await cookie_of(worker)).encode()
    client = await worker.connect()
    await client.send(b"GET / HTTP/1.1\r\nHost: x\r\nCookie: %s\r\n\r\n" % cookie + upgrade() + frame(HANDSHAKE))
    release.set()
    assert (await client.answer()).body == b"page"
    websocket = RawWebSocket(client, await client.answer())
    assert (await websocket.next_json())["rid"] == 1
    await websocket.end()


@pytest.mark.parametrize("path", ["/socketcluster/", "/socket.io/?EIO=4&transport=websocket", "/mine"])
@pytest.mark.parametrize(("version", "status"), [("8", 426), ("", 400)])
async def test_another_version_of_websocket_is_told_the_right_one(
    worker: RunningWorker, path: str, version: str, status: int
) -> None:
    client = await worker.connect()
    await client.send(upgrade(path, Sec_WebSocket_Version=version))
    answer = await client.answer()
    assert (answer.status_code, answer.headers["sec-websocket-version"]) == (status, "13")


async def test_a_target_may_be_a_url(start_worker: StartWorker) -> None:
    def run(worker: Worker) -> None:
        worker.http_server.on("req", lambda request: f"{request.url} {request.headers['host']}")

    worker = await start_worker(run)
    client = await worker.connect()
    answer = await client.request("GET", "http://example.org/a?c=d#e", Host="x")
    assert answer.body == b"http://example.org/a?c=d example.org"
    for target in ("ws://x/socketcluster/", "http://x/socket.io/?EIO=4&transport=websocket"):
        client = await worker.connect()
        await client.send(upgrade(target, Host="x"))
        assert (await client.answer()).status_code == 101
        client.close()


@pytest.mark.parametrize("slow", [False, True])
async def test_a_client_that_ends_its_own_direction_gets_its_answers(start_worker: StartWorker, slow: bool) -> None:
    arrived, release = asyncio.Event(), asyncio.Event()

    def run(worker: Worker) -> None:
        @worker.http_server.on("req")
        async def page(request: Request) -> str:
            arrived.set()
            await release.wait()
            return request.url.path

    worker = await start_worker(run)
    cookie = (await cookie_of(worker)).encode()
    client = await worker.connect()
    await client.send(
        b"".join(b"GET /%s HTTP/1.1\r\nHost: x\r\nCookie: %s\r\n\r\n" % (n, cookie) for n in (b"a", b"b"))
    )
    if slow:
        await arrived.wait()
    client.writer.write_eof()
    release.set()
    assert [(await client.answer()).body for _ in range(2)] == [b"/a", b"/b"]
    assert await client.closed() == b""


async def test_a_client_that_takes_nothing_of_its_answer_is_disconnected(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socketcluster_worker.transport.http.time_limits.SEND_TICK", 0.01)

    def run(worker: Worker) -> None:
        worker.http_server.on("req", lambda _: b"x" * 20_000_000)

    worker = await start_worker(run)
    client = await worker.connect()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    connections = worker.service._server._state.connections
    await until(lambda: connections)
    await until(lambda: not connections)


async def test_a_poll_of_a_half_closed_client_is_told_the_end_of_its_connection(worker: RunningWorker) -> None:
    client = await worker.connect()
    answer = await client.request("GET", ENGINE + "polling")
    cookie = answer.headers["set-cookie"].partition(";")[0]
    target = f"{ENGINE}polling&sid={json.loads(answer.body[1:])['sid']}"
    client = await worker.connect()
    await client.send(f"GET {target} HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\n\r\n".encode())
    client.writer.write_eof()
    answer = await client.answer()
    words, closing = bytes(answer.body or b"").split(b"\x1e")
    assert (answer.status_code, json.loads(words[1:])["event"], closing) == (200, "#disconnect", b"1")
    assert await client.closed() == b""
    client = await worker.connect()
    assert (await client.request("GET", target, Cookie=cookie)).status_code == 400
    client.close()


def test_parameters_and_fields_of_one_name_are_not_copied_for_each_further_one() -> None:
    many = 30_000
    fields = [(b"a", b"b")] * many + [(b"Cookie", b"c=1"), (b"cookie", b"d=2")]
    handshake = Handshake.parse("/?" + "&".join(["a"] * many) + "&b=1&b=2", fields, None, secure=False)
    assert handshake.query == {"a": "", "b": "2"}
    assert handshake.query_all == {"a": ("",) * many, "b": ("1", "2")}
    assert handshake.headers == {"a": ", ".join(["b"] * many), "cookie": "c=1; d=2"}
