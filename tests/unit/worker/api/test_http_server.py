"""Pages of a controller, and the apps that it mounts, as clients see them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse
from support.worker.running import StartWorker

from socketcluster_worker.api.worker import Worker


async def test_pages_and_mounted_apps(start_worker: StartWorker) -> None:
    app, deep = FastAPI(), FastAPI()
    answers: dict[str, Any] = {
        "/html": "<p>",
        "/text": "plain",
        "/bytes": b"\x00",
        "/json": {"a": 1},
        "/list": [1],
        "/own": JSONResponse({"mine": True}, 201),
    }

    @app.get("/where")
    def where(request: Request) -> str:
        return f"app {request.scope['root_path']}"

    @deep.get("/where")
    def deep_where(request: Request) -> str:
        return f"deep {request.scope['root_path']}"

    def run(worker: Worker) -> None:
        server = worker.http_server
        server.mount(app, "/app")
        server.mount(deep, "/app/deep/")
        with pytest.raises(ValueError, match="begins with a slash"):
            server.mount(app, "x")
        with pytest.raises(TypeError, match=r"mount\(app, path\)"):
            server.mount("/x", app)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="another app"):
            server.mount(deep, "/app/")
        with pytest.raises(ValueError, match="no event 'request'"):
            server.on("request", print)  # type: ignore[call-overload]
        server.on("req", lambda request: None)
        server.on("req", lambda request: answers.get(request.url.path))

    worker = await start_worker(run)
    async with worker.browser() as browser:
        seen = {path: await browser.http.get(path) for path in (*answers, "/app/where", "/app/deep/where", "/nothing")}
    assert {path: answer.headers["content-type"].partition(";")[0] for path, answer in seen.items()} == {
        "/html": "text/html",
        "/text": "text/plain",
        "/bytes": "application/octet-stream",
        **dict.fromkeys(("/json", "/list", "/own", "/app/where", "/app/deep/where"), "application/json"),
        "/nothing": "text/plain",
    }
    assert [seen[path].json() for path in ("/app/where", "/app/deep/where")] == ["app /app", "deep /app/deep"]
    assert (seen["/own"].status_code, seen["/nothing"].status_code, seen["/bytes"].content) == (201, 404, b"\x00")


async def test_a_mounted_app_lives_as_long_as_the_worker(start_worker: StartWorker) -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, str]]:
        seen.append("start")
        yield {"pool": "of connections"}
        seen.append("stop")

    app = FastAPI(lifespan=lifespan)

    @app.get("/pool")
    def pool(request: Request) -> str:
        return str(request.state.pool)

    worker = await start_worker(lambda worker: worker.http_server.mount(app))
    async with worker.browser() as browser:
        assert (await browser.http.get("/pool")).json() == "of connections"
    assert seen == ["start"]
    await worker.stop()
    assert seen == ["start", "stop"]
