"""ASGI apps that a controller mounts, and what handlers of requests may raise."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send
from support.clients.raw import RawWebSocket, frame, upgrade
from support.worker.running import RunningWorker, StartWorker, until
from websockets.frames import Opcode

from socketcluster_runtime.errors import ControllerError
from socketcluster_worker import fairness
from socketcluster_worker.api.worker import Worker
from socketcluster_worker.transport.http.mounted_websocket import PIECE, MountedWebSocket

CONTROLLERS = Path(__file__).parents[3] / "controllers"


def living(name: str, log: list[str], state: dict[str, Any] | None = None) -> FastAPI:
    """Return an app that notes when it is started and stopped, and tells its state."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        log.append(f"{name} up")
        yield {"name": name} if state is None else state
        log.append(f"{name} down")

    app = FastAPI(lifespan=lifespan)

    @app.get("/state")
    def tell(request: Request) -> dict[str, Any]:
        request.scope["state"]["seen"] = True  # a request's own
        return dict(request.scope["state"])

    return app


async def test_each_app_has_a_state_of_its_own_and_lives_once(start_worker: StartWorker) -> None:
    log: list[str] = []
    shared: list[int] = []
    one, two = living("one", log), living("two", log, {"name": "two", "list": shared})

    async def plain(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200})  # the fields may be left out
        await send({"type": "http.response.body", "body": json.dumps(scope["state"]).encode()})

    def run(worker: Worker) -> None:
        for path, app in (("/v1", one), ("/v2", one), ("/two", two), ("/plain", plain)):
            worker.http_server.mount(app, path)
        worker.http_server.on("req", lambda request: request.scope["state"])

    worker = await start_worker(run)
    assert sorted(log) == ["one up", "two up"]
    async with worker.browser() as browser:
        for path, state in (
            ("/v1/state", {"name": "one", "seen": True}),
            ("/v2/state", {"name": "one", "seen": True}),
            ("/two/state", {"name": "two", "list": [], "seen": True}),
            ("/plain", {}),
            ("/handler", {}),
        ):
            answer = await browser.http.get(path)
            assert (answer.status_code, answer.json()) == (200, state)
    started = list(log)
    await worker.stop()
    assert log[2:] == [entry.replace("up", "down") for entry in reversed(started)]


async def test_an_app_is_stopped_after_its_last_response(start_worker: StartWorker) -> None:
    log: list[str] = []
    app = living("app", log)

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def endless() -> AsyncIterator[bytes]:
            try:
                yield b"."
                await asyncio.Event().wait()
            finally:
                log.append("the stream has ended")

        return StreamingResponse(endless())

    worker = await start_worker(lambda worker: worker.http_server.mount(app), drain_timeout=0.1)
    client = await worker.connect()
    await client.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    await client.reader.readuntil(b"\r\n\r\n1\r\n.")
    await worker.stop()
    assert log == ["app up", "the stream has ended", "app down"]


async def test_an_app_that_does_not_start_is_named_and_the_others_are_stopped(start_worker: StartWorker) -> None:
    log: list[str] = []

    @asynccontextmanager
    async def failing(_: FastAPI) -> AsyncIterator[None]:
        raise ValueError("no database")
        yield

    def run(worker: Worker) -> None:
        worker.http_server.mount(living("good", log), "/good")
        worker.http_server.mount(FastAPI(lifespan=failing), "/a/bad")

    with pytest.raises(ControllerError, match="mounted at /a/bad failed to start"):
        await start_worker(run)
    assert log in ([], ["good up", "good down"])  # apps of longer paths are started first


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ([{"type": "websocket.accept"}], 101),
        ([{"type": "websocket.accept", "headers": None}], 101),
        ([{"type": "websocket.accept", "headers": [(b"X-App", b"yes")]}], 101),
        ([{"type": "websocket.http.response.start", "status": 418}, {"type": "websocket.http.response.body"}], 418),
        ([{"type": "websocket.close"}], 403),
    ],
)
async def test_what_a_message_may_leave_out_is_left_out(
    start_worker: StartWorker, accept: list[dict[str, Any]], status: int
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            for message in accept:
                await send(message)

    worker = await start_worker(lambda worker: worker.http_server.mount(app))
    client = await worker.connect()
    await client.send(upgrade("/"))
    answer = await client.answer()
    assert answer.status_code == status
    assert ("set-cookie" in answer.headers) is (status != 403)
    assert answer.headers.get("x-app") == ("yes" if accept[0].get("headers") else None)
    assert status != 418 or answer.headers["vary"] == "Cookie"


@pytest.mark.parametrize(
    ("raised", "status", "body", "fields"),
    [
        (StarletteHTTPException(404, "gone away"), 404, b"gone away", {}),
        (StarletteHTTPException(403), 403, b"Forbidden", {}),
        (
            StarletteHTTPException(401, headers={"WWW-Authenticate": "Basic"}),
            401,
            b"Unauthorized",
            {"www-authenticate"},
        ),
        (HTTPException(422, [{"why": 1}]), 422, b'{"detail":[{"why":1}]}', {}),
        (HTTPException(304, headers={"ETag": '"x"'}), 304, b"", {"etag"}),
    ],
)
@pytest.mark.parametrize("is_async", [False, True])
async def test_a_handler_may_raise_a_status(
    start_worker: StartWorker, raised: Exception, status: int, body: bytes, fields: Any, is_async: bool
) -> None:
    def refuse(_: Request) -> None:
        raise raised

    async def refuse_later(_: Request) -> None:
        raise raised

    handler: Callable[[Request], Any] = refuse_later if is_async else refuse
    worker = await start_worker(lambda worker: worker.http_server.on("req", handler))
    client = await worker.connect()
    answer = await client.request("GET", "/")
    assert (answer.status_code, bytes(answer.body or b"")) == (status, body)
    assert all(name in answer.headers for name in fields)
    assert "set-cookie" in answer.headers


async def test_a_client_that_goes_while_its_request_is_read_is_no_failure(
    start_worker: StartWorker, capsys: pytest.CaptureFixture[str]
) -> None:
    ended: list[bool] = []

    async def read(request: Request) -> None:
        try:
            await request.body()
        finally:
            ended.append(True)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await read(Request(scope, receive))

    def run(worker: Worker) -> None:
        worker.http_server.mount(app, "/app")
        worker.http_server.on("req", read)

    worker = await start_worker(run)
    for path in ("/app", "/"):
        client = await worker.connect()
        await client.send(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab".encode())
        client.abort()
    await until(lambda: len(ended) == 2)
    assert "Exception in ASGI application" not in capsys.readouterr().out


@pytest.fixture
async def django(start_worker: StartWorker) -> RunningWorker:
    """A worker with a Django application."""
    spec = importlib.util.spec_from_file_location("django_app", CONTROLLERS / "django_channels" / "controller.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return await start_worker(module.run)


async def test_django_with_channels_is_mounted_as_it_is(django: RunningWorker) -> None:
    async with django.browser() as browser:
        answer = await browser.http.get("/app/view/")
        cookie = answer.headers["set-cookie"].partition(";")[0]
        told = {"path": "/app/view/", "reversed": "/app/view/", "client": "127.0.0.1", "method": "GET"}
        assert (answer.status_code, answer.json()) == (200, told)
        assert (await browser.http.get("/app/none")).status_code == 404
    without = await django.websocket("/app/ws/", Sec_WebSocket_Protocol="one, two")
    assert without.response.headers["sec-websocket-protocol"] == "two"
    assert without.response.headers["set-cookie"]
    known = await django.websocket("/app/ws/", Cookie=cookie)
    assert "set-cookie" not in known.response.headers
    session = cookie.partition("=")[2].rpartition(".")[0]
    for websocket, expected in ((without, None), (known, session)):
        await websocket.send_json({"a": 1})
        answered = await websocket.next_json()
        assert answered["echo"] == {"a": 1}
        assert expected in (None, answered["session"])
        await websocket.end()


# WebSockets: what one client sends there is not to hold others up either, nor to fill the memory.


class Taker:
    """An app that takes messages when the test lets it."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.taken: list[Any] = []

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            await self.may.wait()
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            self.taken.append(message.get("text", message.get("bytes")))

    def run(self, worker: Worker) -> None:
        worker.http_server.mount(self.app, "/app")


def mounted_websockets() -> list[MountedWebSocket]:
    return [found for found in gc.get_objects() if isinstance(found, MountedWebSocket) and not found.disconnected]


async def open_taker(start_worker: StartWorker, taker: Taker) -> tuple[RawWebSocket, MountedWebSocket]:
    worker = await start_worker(taker.run)
    websocket = await worker.websocket("/app/")
    (mounted,) = mounted_websockets()
    return websocket, mounted


async def test_a_mounted_websocket_is_read_in_turns(start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fairness, "SLICE", 0.0)
    taker = Taker()
    taker.may.set()
    websocket, mounted = await open_taker(start_worker, taker)
    between = 0

    async def others() -> None:
        nonlocal between
        while True:
            await asyncio.sleep(0)
            between += mounted._turn_asked

    asking = asyncio.ensure_future(others())
    await websocket.send(*[frame(b"", Opcode.PING)] * 5_000, frame("end"))
    await until(lambda: taker.taken == ["end"])
    asking.cancel()
    assert between >= 5_000 * 6 // PIECE // 2
    for _ in range(5_000):
        assert (await websocket.next()).opcode is Opcode.PONG
    await websocket.end()


async def test_a_mounted_app_that_takes_nothing_holds_its_client_up(start_worker: StartWorker) -> None:
    taker = Taker()
    websocket, mounted = await open_taker(start_worker, taker)
    await websocket.send(*(frame(str(number)) for number in range(3_000)))
    await until(lambda: mounted._unread)
    assert mounted.queue.qsize() < PIECE
    taker.may.set()
    await until(lambda: len(taker.taken) == 3_000)
    assert [int(text) for text in taker.taken] == list(range(3_000))
    await websocket.send(frame("further"))
    await until(lambda: taker.taken[-1] == "further")
    await websocket.end()


async def test_a_client_that_does_not_take_pongs_is_read_no_further(start_worker: StartWorker) -> None:
    taker = Taker()
    taker.may.set()
    websocket, mounted = await open_taker(start_worker, taker)
    websocket.client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    pings = frame(b"x" * 125, Opcode.PING) * 1_000

    async def flood() -> None:
        while True:
            await websocket.send(pings)

    flooding = asyncio.ensure_future(flood())
    await until(lambda: not mounted.writable.is_set() and mounted._blocked)
    assert mounted.transport.get_write_buffer_size() < 1_000_000
    flooding.cancel()
    websocket.client.abort()
    await until(lambda: mounted.disconnected)


async def test_fragments_of_nothing_take_no_memory(start_worker: StartWorker) -> None:
    taker = Taker()
    taker.may.set()
    websocket, mounted = await open_taker(start_worker, taker)
    await websocket.send(frame("a", fin=False), *[frame(b"", Opcode.CONT, fin=False)] * 1_000)
    await websocket.send(frame(b"b", Opcode.CONT, fin=False), frame(b"", Opcode.PING))
    assert (await websocket.next()).opcode is Opcode.PONG
    assert mounted.frames == [b"ab"]
    await websocket.send(frame(b"c", Opcode.CONT))
    await until(lambda: taker.taken == ["abc"])
    await websocket.end()
