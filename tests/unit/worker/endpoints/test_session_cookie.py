"""What responses say of a session: to its browser, and to caches on the way."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI, Request
from starlette.datastructures import MutableHeaders
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from support.clients.raw import ENGINE, upgrade
from support.worker.running import RunningWorker, StartWorker

from socketcluster_worker.api.sockets.session import Session
from socketcluster_worker.api.worker import Worker
from socketcluster_worker.endpoints.session_cookie import SessionScope, keep_private

PUBLIC = "public, max-age=600"


def pages(worker: Worker) -> None:
    """Be a controller with pages that may be kept, and a mounted app with others."""
    app = FastAPI()

    @app.get("/plain")
    def plain() -> PlainTextResponse:
        return PlainTextResponse("same for all", headers={"cache-control": PUBLIC})

    @app.get("/mine")
    def mine(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.session.id, headers={"cache-control": PUBLIC})  # type: ignore[attr-defined]

    @worker.http_server.on("req")
    async def page(request: Request) -> Any:
        path = request.url.path
        session: Any = request.session if "mine" in path else None
        if "none" in path:
            return None
        return PlainTextResponse(session.id if session else "same for all", headers={"cache-control": PUBLIC})

    async def copying(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await app({**scope}, receive, send)

    worker.http_server.mount(app, "/app")
    worker.http_server.mount(copying, "/copying")


async def test_what_set_or_read_the_session_is_its_browser_s_alone(start_worker: StartWorker) -> None:
    worker = await start_worker(pages)
    for path in ("/plain", "/mine", "/app/plain", "/app/mine"):
        answer = await (await worker.connect()).request("GET", path)
        assert answer.headers["set-cookie"]
        assert answer.headers["connection"] == "close"
        assert answer.headers["vary"] == "Cookie"
        assert answer.headers["cache-control"] == "max-age=600, private"
    cookie = answer.headers["set-cookie"].partition(";")[0]
    client = await worker.connect()
    for path, kept in (("/plain", True), ("/app/plain", True), ("/mine", False), ("/app/mine", False)):
        answer = await client.request("GET", path, Cookie=cookie)
        assert "set-cookie" not in answer.headers
        assert (answer.headers["cache-control"] == PUBLIC) is kept
        assert ("vary" not in answer.headers) is kept
    answer = await client.request("GET", "/copying/plain", Cookie=cookie)
    assert (answer.status_code, answer.headers["vary"]) == (200, "Cookie")  # nobody can tell
    client.close()


async def test_the_worker_s_own_answers_begin_no_session(start_worker: StartWorker) -> None:
    worker = await start_worker(pages)
    client = await worker.connect()
    for path, status in (
        ("/socketcluster.js", 200),
        ("/socketcluster.mjs", 200),
        ("/socketcluster/health", 200),
        ("/socketcluster/", 426),
        ("/none", 404),
        (ENGINE + "polling&sid=unknown", 400),
        (ENGINE + "unknown", 400),
    ):
        answer = await client.request("GET", path)
        assert (path, answer.status_code) == (path, status)
        assert "set-cookie" not in answer.headers
        assert "cookie" not in answer.headers.get("vary", "")
        assert path.startswith(ENGINE) or answer.headers["x-content-type-options"] == "nosniff"
    answer = await client.request("GET", "/none/mine")
    assert (answer.status_code, answer.headers["vary"]) == (404, "Cookie")
    assert "set-cookie" not in answer.headers
    assert not worker.service._sessions.known
    client.close()


@pytest.mark.parametrize("endpoint", [ENGINE, "/socket.io/?EIO=4&transport=", "/engine.io/?EIO=4&transport="])
async def test_no_cache_keeps_what_polling_answers(worker: RunningWorker, endpoint: str) -> None:
    client = await worker.engine(endpoint)
    raw = await worker.connect()
    for method, target, body in (
        ("GET", endpoint + "polling", b""),
        ("POST", client.target, b"3"),
        ("GET", client.target + "x", b""),
        ("GET", endpoint + "none", b""),
        ("OPTIONS", endpoint + "polling", b""),
        ("POST", client.target, b"x" * 2_000_000),
    ):
        answer = await raw.request(method, target, body)
        assert answer.headers["cache-control"] == "no-store", (method, target)
        if answer.headers.get("connection") == "close":
            raw = await worker.connect()
    raw.close()


async def test_a_websocket_that_is_refused_sets_no_cookie(worker: RunningWorker) -> None:
    for request in (
        upgrade(ENGINE + "websocket&sid=unknown"),
        upgrade(Origin="https://elsewhere.example"),
        upgrade(Sec_WebSocket_Key="none"),
    ):
        client = await worker.connect()
        await client.send(request)
        answer = await client.answer()
        assert answer.status_code in (400, 403)
        assert "set-cookie" not in answer.headers
        assert answer.headers["cache-control"] == "no-store"


async def test_an_app_with_sessions_of_its_own_sees_to_its_caching(start_worker: StartWorker) -> None:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("x", headers={"cache-control": PUBLIC})(scope, receive, send)

    inner: ASGIApp = SessionMiddleware(answer, secret_key="x" * 20)

    def run(worker: Worker) -> None:
        worker.http_server.mount(inner)

    worker = await start_worker(run)
    first = await (await worker.connect()).request("GET", "/")
    cookie = first.headers["set-cookie"].partition(";")[0]
    again = await (await worker.connect()).request("GET", "/", Cookie=cookie)
    assert again.headers["cache-control"] == PUBLIC


@pytest.mark.parametrize(
    "look",
    [
        lambda scope: scope["session"],
        lambda scope: scope.get("session"),
        lambda scope: scope.pop("session"),
        lambda scope: scope.setdefault("session", None),
        lambda scope: dict(scope),
        lambda scope: {**scope},
        lambda scope: {}.update(scope),
        lambda scope: scope | {},
        lambda scope: {} | scope,
        lambda scope: scope.copy(),
        lambda scope: copy.copy(scope),
        lambda scope: list(scope.items()),
        lambda scope: list(scope.values()),
        lambda scope: dict(scope, path="/"),
    ],
)
def test_no_look_at_a_session_is_missed(look: Callable[[Any], Any]) -> None:
    session = object()
    scope = SessionScope({"path": "/"}, session)  # type: ignore[arg-type]
    assert (scope["path"], scope.get("method"), "session" in scope, len(scope)) == ("/", None, True, 2)
    assert list(scope) == ["path", "session"]
    assert not scope.session_used
    look(scope)
    assert scope.session_used


def test_a_scope_gives_the_session() -> None:
    session: Session = object()  # type: ignore[assignment]
    assert SessionScope({}, session)["session"] is session
    assert SessionScope({}, session).copy() == {"session": session}
    scope = SessionScope({}, session)
    scope["session"] = {}
    assert scope["session"] == {}
    assert not scope.session_used


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ([], "private"),
        (["public"], "private"),
        (["Public, max-age=60", "S-Maxage=9"], "max-age=60, private"),
        (["no-store"], "no-store"),
        (["no-cache, no-store"], "no-cache, no-store"),
        (["private, max-age=3"], "private, max-age=3"),
        (["public, private"], "private"),
        (['private="x-a, x-b", max-age=1'], 'private="x-a, x-b", max-age=1, private'),
        (['no-cache="set-cookie, public"'], 'no-cache="set-cookie, public", private'),
    ],
)
def test_a_stricter_rule_stays(said: list[str], kept: str) -> None:
    headers = MutableHeaders(raw=[(b"cache-control", value.encode()) for value in said])
    headers["cdn-cache-control"] = "max-age=60"
    keep_private(headers)
    assert headers.getlist("cache-control") == [kept.replace("S-Maxage=9, ", "")]
    assert headers.getlist("vary") == ["Cookie"]
    assert "cdn-cache-control" not in headers


@pytest.mark.parametrize("vary", ["*", "Accept, cookie", "Cookie"])
def test_what_varies_already_is_not_said_twice(vary: str) -> None:
    headers = MutableHeaders({"vary": vary})
    keep_private(headers)
    assert headers.getlist("vary") == [vary]
