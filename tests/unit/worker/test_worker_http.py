"""HTTP as the worker's own port speaks it: limits, pipelining, upgrades, whatever bytes arrive."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest
from starlette.requests import Request
from support.raw import ENGINE, HANDSHAKE, RawWebSocket, event, frame, upgrade
from support.worker import Probe, RunningWorker, StartWorker, until

from socketcluster_wire.errors import HeadTooLargeError, MalformedHeadError
from socketcluster_wire.request_head import RequestHead
from socketcluster_worker import turns
from socketcluster_worker.api.worker import Worker
from socketcluster_worker.connection import Handshake
from socketcluster_worker.transport.framing import PIECE
from socketcluster_worker.transport.http import HTTPProtocol

HEALTH = "/socketcluster/health"
OPENING = f"{ENGINE}?EIO=4&transport=polling"


async def cookie_of(worker: RunningWorker) -> str:
    """Return the header of a browser that has a session, whose connections are kept."""
    client = await worker.connect()
    answer = await client.request("GET", OPENING)
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
    await client.send(b"GET / HTTP/1.1\r\nHost: x\r\nX-Endless: ")
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
    monkeypatch.setattr("socketcluster_worker.transport.time_limits.HEAD_TIMEOUT", 0.05)
    monkeypatch.setattr("socketcluster_worker.transport.proxied.HEAD_TIMEOUT", 0.05)
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
    monkeypatch.setattr("socketcluster_worker.transport.time_limits.HEAD_TIMEOUT", 0.05)
    await client.send(b"\r\n")
    assert await client.closed() == b""


async def test_a_handler_may_take_longer_than_a_head(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socketcluster_worker.transport.time_limits.HEAD_TIMEOUT", 0.3)

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


class Seen:
    """A controller that remembers which requests reached its pages, and answers them with their bodies."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def run(self, worker: Worker) -> None:
        @worker.http_server.on("req")
        async def page(request: Request) -> str:
            self.paths.append(request.url.path)
            body = (await request.body()).decode()
            return f"{request.method} {request.url.path} {request.headers.get('upgrade')} {body}"


HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)


@pytest.mark.parametrize("split", [1, 7, 100_000])
@pytest.mark.parametrize(
    ("framing", "body"),
    [(b"Content-Length: %d" % len(HIDDEN), HIDDEN), (b"Transfer-Encoding: chunked", CHUNKS)],
)
async def test_a_body_behind_another_upgrade_is_no_request(
    start_worker: StartWorker, framing: bytes, body: bytes, split: int
) -> None:
    seen = Seen()
    worker = await start_worker(seen.run)
    cookie = (await cookie_of(worker)).encode()
    client = await worker.connect()
    one = b"POST /%%s HTTP/1.1\r\nHost: x\r\nCookie: %s\r\nUpgrade: foo\r\nConnection: Upgrade\r\n%s\r\n\r\n" % (
        cookie,
        framing,
    )
    seen.paths.clear()
    data = one % b"a" + body + one % b"b" + body
    for i in range(0, len(data), split):
        await client.send(data[i : i + split])
    for path in "ab":
        assert (await client.answer()).body == f"POST /{path} foo ".encode() + HIDDEN
    assert seen.paths == ["/a", "/b"]
    client.close()


@pytest.mark.parametrize("path", ["/socketcluster/", "/mine", "/socket.io/?EIO=4&transport=websocket"])
@pytest.mark.parametrize(
    ("framing", "body"),
    [(f"Content-Length: {len(HIDDEN)}", HIDDEN), ("Transfer-Encoding: chunked", CHUNKS)],
)
async def test_a_request_for_a_websocket_has_no_body(
    start_worker: StartWorker, path: str, framing: str, body: bytes
) -> None:
    seen = Seen()
    worker = await start_worker(seen.run)
    client = await worker.connect()
    name, _, value = framing.partition(": ")
    await client.send(upgrade(path, **{name: value}) + body)
    assert (await client.answer()).status_code == 400
    assert await client.closed() == b""
    assert seen.paths == []


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: a",
        b"GET / HTTP/1.0\r\nHost: a\r\nHost: b",
        b"GET / HTTP/1.1\r\nHost: a/b",
        b"CONNECT a:80 HTTP/1.1\r\nHost: a:80",
        b"GET http://u@a/ HTTP/1.1\r\nHost: a b",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked",
        b"GET /\xff HTTP/1.1\r\nHost: a",
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3",
        b"GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c",
        b"GET / HTTP/1.1\nHost: a\nX-A: b",
        b"GET / HTTP/1.1\r\nHost: a\r\nX-A : b",
    ],
)
async def test_what_could_be_read_in_two_ways_is_refused(start_worker: StartWorker, head: bytes) -> None:
    seen = Seen()
    worker = await start_worker(seen.run)
    client = await worker.connect()
    await client.send(head + b"\r\n\r\n" + HIDDEN)
    assert (await client.answer()).status_code in (400, 501)
    assert await client.closed() == b""
    assert seen.paths == []


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


async def test_pipelined_requests_are_not_parsed_before_their_turn(start_worker: StartWorker) -> None:
    seen = Seen()
    release = asyncio.Event()

    def run(worker: Worker) -> None:
        @worker.http_server.on("req")
        async def page(request: Request) -> str:
            seen.paths.append(request.url.path)
            await release.wait()
            return "x"

    worker = await start_worker(run)
    cookie = (await cookie_of(worker)).encode()
    client = await worker.connect()
    await client.send(b"GET / HTTP/1.1\r\nHost: x\r\nCookie: %s\r\n\r\n" % cookie * 500)
    await until(lambda: seen.paths)
    connections = [c for c in worker.service._server._state.connections if isinstance(c, HTTPProtocol) and c.cycle]
    (connection,) = connections
    await until(lambda: connection.flow.read_paused)
    assert len(seen.paths) == 1
    assert not connection.pipeline
    release.set()
    for _ in range(500):
        assert (await client.answer()).body == b"x"
    assert len(seen.paths) == 500
    client.close()


async def test_nothing_behind_the_last_request_is_served(start_worker: StartWorker) -> None:
    seen = Seen()
    worker = await start_worker(seen.run)
    client = await worker.connect()
    await client.send(b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" + HIDDEN)
    assert (await client.answer()).status_code == 200
    assert await client.closed() == b""
    assert seen.paths == ["/a"]


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


@pytest.mark.parametrize("path", ["/", "/socketcluster/engine/?EIO=4&transport=polling&sid=x"])
async def test_a_body_that_does_not_come_is_given_up(start_worker: StartWorker, path: str) -> None:
    worker = await start_worker(Seen().run, handshake_timeout=0.05)
    client = await worker.connect()
    await client.send(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab".encode())
    assert (await client.answer()).status_code in (400, 408)
    assert await client.closed() == b""


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_refused(start_worker: StartWorker, chunked: bool) -> None:
    worker = await start_worker(Seen().run, max_request_body=1000)
    client = await worker.connect()
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 2000"
    await client.send(b"POST / HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n")
    await client.send(b"7d0\r\n" * chunked + b"x" * 2000)
    assert (await client.answer()).status_code == 413
    assert await client.closed() == b""


@pytest.mark.parametrize("framing", ["Content-Length: 2000", "Transfer-Encoding: chunked"])
async def test_a_request_that_was_answered_before_its_body_came_is_not_answered_twice(
    start_worker: StartWorker, framing: str
) -> None:
    worker = await start_worker(lambda worker: worker.http_server.on("req", lambda _: "at once"))
    cookie = await cookie_of(worker)
    client = await worker.connect()
    await client.send(f"POST / HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\n{framing}\r\n\r\n".encode())
    assert (await client.answer()).body == b"at once"
    await client.send(b"no chunk\r\n" if "chunked" in framing else b"x" * 2000 + b"no request\r\n\r\n")
    if "chunked" not in framing:
        assert (await client.answer()).status_code == 400
    assert await client.closed() == b""


async def test_a_client_that_takes_nothing_of_its_answer_is_disconnected(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socketcluster_worker.transport.time_limits.SEND_TICK", 0.01)

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
    assert (answer.status_code, answer.body) == (200, b"1")
    assert await client.closed() == b""
    client = await worker.connect()
    assert (await client.request("GET", target, Cookie=cookie)).status_code == 400
    client.close()


async def test_a_body_in_tiny_chunks_is_read_in_turns(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "SLICE", 0.0)
    asked = 0
    later = turns.later

    def ask(go_on: Callable[[], None]) -> None:
        nonlocal asked
        asked += 1
        later(go_on)

    monkeypatch.setattr(turns, "later", ask)

    def run(worker: Worker) -> None:
        @worker.http_server.on("req")
        async def page(request: Request) -> str:
            return str(len(await request.body()))

    worker = await start_worker(run)
    client = await worker.connect()
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    await client.send(head + b"1\r\nx\r\n" * 40_000 + b"0\r\n\r\n")
    assert (await client.answer()).body == b"40000"
    assert asked >= 40_000 * 6 // PIECE // 2
    client.close()


def test_parameters_and_fields_of_one_name_are_not_copied_for_each_further_one() -> None:
    many = 30_000
    fields = [(b"a", b"b")] * many + [(b"Cookie", b"c=1"), (b"cookie", b"d=2")]
    handshake = Handshake.parse("/?" + "&".join(["a"] * many) + "&b=1&b=2", fields, None, secure=False)
    assert handshake.query == {"a": "", "b": "2"}
    assert handshake.query_all == {"a": ("",) * many, "b": ("1", "2")}
    assert handshake.headers == {"a": ", ".join(["b"] * many), "cookie": "c=1; d=2"}
