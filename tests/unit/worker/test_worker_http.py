"""HTTP as the worker's own port speaks it: limits, pipelining, upgrades, whatever bytes arrive."""

from __future__ import annotations

import asyncio
import json

import pytest
from starlette.requests import Request
from support.raw import HANDSHAKE, RawWebSocket, event, frame, upgrade
from support.worker import Probe, RunningWorker, StartWorker

from socketcluster_worker.api.worker import Worker

HEALTH = "/socketcluster/health"


async def cookie_of(worker: RunningWorker) -> str:
    """Return the header of a browser that has a session, whose connections are kept."""
    client = await worker.connect()
    answer = await client.request("GET", HEALTH)
    assert answer.headers["connection"] == "close"  # a balancer is to choose anew, by the cookie
    assert await client.closed() == b""
    client.close()
    return answer.headers["set-cookie"].partition(";")[0]


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
    await client.send(b"GET / HTTP/1.1\r\nX-Endless: ")
    await client.send(b"x" * 400_000)
    assert (await client.answer()).status_code == 431


async def test_a_whole_head_that_is_too_large_is_refused(worker: RunningWorker) -> None:
    client = await worker.connect()
    answer = await client.request("GET", "/?" + "x" * 66_000)
    assert answer.status_code == 431


async def test_fields_behind_a_body_have_the_same_limit(worker: RunningWorker) -> None:
    client = await worker.connect()
    await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")
    await client.send(b"X-Filler: %s\r\n" % (b"x" * 1000) * 66)
    assert b"431" in await client.closed()


@pytest.mark.parametrize(
    "garbage",
    [b"\x00\x01\x02\x03\r\n\r\n", b"HELO mail\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET \xff HTTP/1.1\r\n\r\n"],
)
async def test_what_is_no_request_is_refused(worker: RunningWorker, garbage: bytes) -> None:
    client = await worker.connect()
    await client.send(garbage)
    assert (await client.answer()).status_code == 400
    assert await client.closed() == b""


async def test_a_head_that_does_not_end_in_time_ends_the_connection(
    worker: RunningWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socketcluster_worker.transport.http.HEAD_TIMEOUT", 0.05)
    monkeypatch.setattr("socketcluster_worker.transport.proxied.HEAD_TIMEOUT", 0.05)
    for start in (b"", b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n"):
        client = await worker.connect()
        await client.send(start)
        assert await client.closed() == b""


async def test_line_ends_after_a_request_keep_no_connection_open(
    worker: RunningWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socketcluster_worker.transport.http.HEAD_TIMEOUT", 0.05)
    monkeypatch.setattr("socketcluster_worker.transport.proxied.HEAD_TIMEOUT", 0.05)
    client = await worker.connect()
    cookie = await cookie_of(worker)
    assert (await client.request("GET", HEALTH, Cookie=cookie)).status_code == 200
    await client.send(b"\r\n")
    assert await client.closed() == b""


async def test_a_handler_may_take_longer_than_a_head(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socketcluster_worker.transport.http.HEAD_TIMEOUT", 0.02)

    def run(worker: Worker) -> None:
        @worker.http_server.on("req")
        async def page(request: Request) -> bytes:
            body = await request.body()
            await asyncio.sleep(0.1)
            return body

    worker = await start_worker(run)
    client = await worker.connect()
    await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
    await asyncio.sleep(0.1)  # a body may take its time
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


async def test_an_upgrade_behind_an_unanswered_request_is_refused(start_worker: StartWorker) -> None:
    def run(worker: Worker) -> None:
        worker.http_server.on("req", lambda _: asyncio.Event().wait())

    worker = await start_worker(run, drain_timeout=0)
    client = await worker.connect()
    await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + upgrade())
    assert (await client.answer()).status_code == 400
    await client.closed()
