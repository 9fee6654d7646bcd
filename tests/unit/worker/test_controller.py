"""What a controller is and sees: how it is loaded, its events, its pages, its tasks, its options."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from fastapi import FastAPI, Request
from pydantic import SecretStr, ValidationError
from starlette.responses import JSONResponse
from support.worker.running import StartWorker

from socketcluster_runtime.errors import ControllerError, SettingsError
from socketcluster_worker.api.worker import Worker
from socketcluster_worker.connection import Handshake
from socketcluster_worker.controller import run_controller
from socketcluster_worker.settings import WorkerSettings
from socketcluster_worker.tasks import Tasks

NOBODY = cast(Worker, object())


pytestmark = pytest.mark.usefixtures("own_modules")


@pytest.mark.parametrize(
    ("source", "line", "text"),
    [
        ("x = 1\n", None, "has no function run"),
        ("run = 5\n", None, "has no function run"),
        ("def run(worker)\n", 1, "SyntaxError"),
        ("import nothing_of_that_name\n", 1, "ModuleNotFoundError"),
        ("import json\n\njson.loads('{')\n", 3, "JSONDecodeError"),
        ("def run(worker):\n    inner()\ndef inner():\n    raise ValueError('no')\n", 4, "ValueError: no"),
        ("async def run(worker):\n    raise ValueError('async')\n", 2, "ValueError: async"),
    ],
)
async def test_a_controller_that_fails_is_told_with_file_and_line(
    tmp_path: Path, source: str, line: int | None, text: str
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(source)
    with pytest.raises(ControllerError) as failed:
        await run_controller(path, NOBODY)
    assert text in str(failed.value)
    assert str(failed.value).startswith(f"{path}:{line}: " if line else f"{path}: ")


async def test_a_neighbour_can_be_imported_and_its_line_is_told(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_mine.py").write_text("def fail():\n    raise ValueError('there')\n")
    path = tmp_path / "mine.py"
    path.write_text("from neighbour_of_mine import fail\ndef run(worker):\n    fail()\n")
    with pytest.raises(ControllerError, match=r"neighbour_of_mine\.py:2: ValueError: there"):
        await run_controller(path, NOBODY)


@pytest.mark.parametrize(("name", "text"), [("missing.py", "no such controller"), ("mine.txt", "ends in .py")])
async def test_what_is_no_module_is_no_controller(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(ControllerError, match=text):
        await run_controller(tmp_path / name, NOBODY)


async def test_a_worker_stops_though_its_controller_waits(start_worker: StartWorker) -> None:
    begun: asyncio.Queue[Worker] = asyncio.Queue()

    async def run(worker: Worker) -> None:
        begun.put_nowait(worker)
        await asyncio.Event().wait()

    starting = asyncio.ensure_future(start_worker(run))
    await begun.get()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting  # the fixture stops the worker, which would hang if it waited for run()


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


async def test_tasks_lose_no_error_and_end() -> None:
    errors: list[tuple[str, str]] = []
    tasks = Tasks(lambda error, what: errors.append((str(error), what)))

    async def fail() -> None:
        raise ValueError("async")

    def fail_at_once() -> None:
        raise ValueError("plain")

    tasks.run(fail, (), "one")
    tasks.run(fail_at_once, (), "two")
    await tasks.drain(5)
    await tasks.run_and_wait(fail, (), "three")
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    tasks.watch(future, "four")
    future.set_exception(ValueError("watched"))
    tasks.spawn(asyncio.Event().wait(), "five")
    assert await tasks.drain(0) == 1
    assert sorted(errors) == [("async", "one"), ("async", "three"), ("plain", "two"), ("watched", "four")]
    assert len(tasks) == 0


def test_a_handshake_is_what_the_request_says() -> None:
    headers = [(b"Cookie", b"a=1"), (b"X-One", b"\xfc"), (b"cookie", b"b=2"), (b"x-one", b"two")]
    handshake = Handshake.parse("/a%20b?x=1&y=%C3%BC&empty=", headers, ("::1", 5), secure=True)
    assert handshake.path == "/a b"
    assert handshake.query["x"] == "1"
    assert handshake.query["y"] == "ü"
    assert handshake.headers == {"cookie": "a=1; b=2", "x-one": "ü, two"}
    assert (handshake.address, handshake.secure) == (("::1", 5), True)


def test_a_handshake_has_all_parameters_of_its_query() -> None:
    handshake = Handshake.parse("/?token=&flag&a=1&b=2&a=%20&a=1", [], None, secure=False)
    assert handshake.query == {"token": "", "flag": "", "a": "1", "b": "2"}
    assert handshake.query_all == {"token": ("",), "flag": ("",), "a": ("1", " ", "1"), "b": ("2",)}


def test_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOCKETCLUSTER_STORES", " a:1 , dns:///b:2,")
    assert WorkerSettings.load().stores == ("a:1", "dns:///b:2")
    monkeypatch.setenv("SOCKETCLUSTER_HEARTBEAT_INTERVALL", "5")
    with pytest.raises(SettingsError, match="did you mean SOCKETCLUSTER_HEARTBEAT_INTERVAL"):
        WorkerSettings.load()
    for wrong in ({"path": "no-slash"}, {"heartbeat_interval": 0}, {"max_http_buffer_size": 1}, {"stores": ""}):
        with pytest.raises(ValidationError):
            WorkerSettings(**{"stores": "a:1", "secret": SecretStr("x" * 16), **cast(Any, wrong)})
