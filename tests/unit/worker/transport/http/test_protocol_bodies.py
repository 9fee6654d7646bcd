"""Where requests to the worker's own port end, and how long and large their bodies may be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from starlette.requests import Request
from support.clients.raw import upgrade
from support.worker.running import StartWorker, cookie_of, until

from socketcluster_worker import fairness
from socketcluster_worker.api.worker import Worker
from socketcluster_worker.transport.http.framing import PIECE
from socketcluster_worker.transport.http.protocol import HTTPProtocol

HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)


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


@pytest.mark.parametrize("path", ["/", "/socketcluster/engine/?EIO=4&transport=polling&sid=x"])
async def test_a_body_that_does_not_come_is_given_up(start_worker: StartWorker, path: str) -> None:
    worker = await start_worker(Seen().run, handshake_timeout=0.05)
    client = await worker.connect()
    await client.send(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab".encode())
    assert (await client.answer()).status_code in (400, 408)
    assert await client.closed() == b""


async def test_fields_behind_a_body_have_the_same_limit(start_worker: StartWorker) -> None:
    worker = await start_worker(Seen().run)  # which answers when it has the whole body
    client = await worker.connect()
    await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")
    await client.send(b"X-Filler: %s\r\n" % (b"x" * 1000) * 66)
    assert b"431" in await client.closed()


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


async def test_a_body_in_tiny_chunks_is_read_in_turns(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fairness, "SLICE", 0.0)
    asked = 0
    later = fairness.later

    def ask(go_on: Callable[[], None]) -> None:
        nonlocal asked
        asked += 1
        later(go_on)

    monkeypatch.setattr(fairness, "later", ask)

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
