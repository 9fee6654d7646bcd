"""The balancer's controller: what its middleware is shown, and what becomes of clients that it lets in or does not."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
import structlog
from support.balancer.bench import PATIENCE, Bench, LogLines
from support.balancer.stand_in_worker import SECRET
from support.network import certificates

from socketcluster_balancer.admission import admission
from socketcluster_balancer.admission.controller import Controller
from socketcluster_balancer.api import Balancer, Request, Stage
from socketcluster_balancer.errors import RefusedError
from socketcluster_runtime.session_cookies import SessionCookies

UPGRADE = {"upgrade": "websocket", "connection": "Upgrade"}


pytestmark = pytest.mark.usefixtures("own_modules")


def controller(request: Callable[[Request], Any] | None = None, **stages: Callable[[Request], Any]) -> Controller:
    """Return a controller whose middleware is these functions."""
    made = Controller(Path(__file__), Balancer("tested", "socketcluster"))
    if request is not None:
        stages["request"] = request
    for stage, function in stages.items():
        made.balancer.middleware(cast(Stage, stage))(function)
    return made


# What it is shown.


@pytest.mark.parametrize("target", ["/pid#x", "/pid?a=#b", "/%70id", "http://other/pid", "HTTP://other/pid#x"])
async def test_it_is_shown_the_path_that_the_worker_chooses_by(bench: Bench, target: str) -> None:
    seen: list[Request] = []
    await bench.start(await bench.worker("aaaaaaaa"), controller=controller(seen.append))
    await bench.send(f"GET {target} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    (request,) = seen
    assert request.path == "/pid"
    assert request.headers["host"] == ("other" if "//" in target else "h")


async def test_it_is_shown_the_first_request(bench: Bench) -> None:
    seen: list[Request] = []
    await bench.start(await bench.worker("aaaaaaaa"), controller=controller(seen.append))
    head = b"POST /a%20b?c=1&c=d%2Fe&f HTTP/1.1\r\nHost: h\r\nX-One: 1\r\nx-one:2\r\ncontent-length: 0\r\n\r\n"
    await bench.send(head)
    (request,) = seen
    assert (request.method, request.path, request.query) == ("POST", "/a b", {"c": "d/e", "f": ""})
    assert request.query_all == {"c": ("1", "d/e"), "f": ("",)}
    assert request.headers == {"host": "h", "x-one": "1, 2", "content-length": "0"}
    assert request.address[0] == "127.0.0.1"
    assert not request.secure
    assert request.session_id is None


async def test_under_tls_it_is_shown_what_was_decrypted(bench: Bench, tmp_path: Path) -> None:
    files = certificates.make(tmp_path, "first")
    seen: list[Request] = []

    def keep_out(request: Request) -> None:
        seen.append(request)
        if request.path == "/secret":
            raise RefusedError(404)

    await bench.start(
        await bench.worker("aaaaaaaa"), controller=controller(keep_out), tls_cert=files.cert, tls_key=files.key
    )
    context = ssl.create_default_context(cafile=str(files.cert))
    for path, status in (("/", b"200 OK"), ("/secret", b"404 Not Found")):
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", bench.port, ssl=context)
            writer.write(f"GET {path} HTTP/1.1\r\nhost: test\r\n\r\n".encode())
            assert (await reader.read()).startswith(b"HTTP/1.1 " + status)
            writer.close()
    assert [request.secure for request in seen] == [True, True]
    assert seen[0].headers == {"host": "test"}


async def test_only_a_cookie_that_the_cluster_signed_names_a_session(bench: Bench) -> None:
    seen = []
    await bench.start(
        await bench.worker("aaaaaaaa"), controller=controller(lambda request: seen.append(request.session_id))
    )
    signed = SessionCookies("socketcluster", SECRET).write("aaaaaaaa-session", secure=False).partition(";")[0]
    for cookie in (signed, f"other=1; {signed}", signed[:-1], "socketcluster.session=aaaaaaaa-session.forged"):
        await bench.get(cookie=cookie)
    assert seen == ["aaaaaaaa-session", "aaaaaaaa-session", None, None]


@pytest.mark.parametrize(
    ("headers", "asked"),
    [
        ({}, {"request"}),
        (UPGRADE, {"upgrade"}),
        ({"upgrade": "WebSocket", "connection": "keep-alive, upgrade"}, {"upgrade"}),
        ({"upgrade": "h2c", "connection": "Upgrade"}, {"request"}),
        ({"upgrade": "websocket"}, {"request", "upgrade"}),
        ({"upgrade": "websocket, h2c", "connection": "Upgrade"}, {"request", "upgrade"}),
    ],
)
async def test_which_stage_a_request_is_for(bench: Bench, headers: dict[str, str], asked: set[str]) -> None:
    seen: list[str] = []
    made = controller(request=lambda _: seen.append("request"), upgrade=lambda _: seen.append("upgrade"))
    await bench.start(await bench.worker("aaaaaaaa"), controller=made)
    assert (await bench.get(**headers)).status == 200
    assert len(seen) == len(asked)
    assert set(seen) == asked


async def test_a_stage_without_middleware_lets_everybody_in(bench: Bench) -> None:
    def refuse(_request: Request) -> None:
        raise RefusedError

    await bench.start(await bench.worker("aaaaaaaa"), controller=controller(upgrade=refuse))
    assert (await bench.get()).status == 200
    assert (await bench.get(**UPGRADE)).status == 403


async def test_it_is_told_which_workers_there_are(bench: Bench) -> None:
    workers = [await bench.worker("aaaaaaaa", tags=["large"]), await bench.worker("bbbbbbbb", draining=True)]
    made = controller()
    assert not made.balancer.workers
    await bench.start(workers[0], workers=[each.address for each in workers], controller=made)
    (worker,) = made.balancer.workers
    assert (worker.id, worker.name, worker.tags) == ("aaaaaaaa", "name of aaaaaaaa", ("large",))


# Refusing.


def refuse(_request: Request) -> None:
    raise RefusedError(429, "Später.", headers={"Retry-After": "7", "X-Why": "flood"})


async def refuse_later(request: Request) -> None:
    await asyncio.sleep(0)
    refuse(request)


@pytest.mark.parametrize("middleware", [refuse, refuse_later])
async def test_a_refused_client_gets_status_reason_and_headers(
    bench: Bench, middleware: Callable[[Request], Any]
) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), controller=controller(middleware))
    answer = await bench.get()
    assert (answer.status, answer.body.decode()) == (429, "Später.\n")
    assert answer.headers["retry-after"] == "7"
    assert answer.headers["x-why"] == "flood"
    assert answer.headers["connection"] == "close"
    head = await bench.send(b"HEAD / HTTP/1.1\r\n\r\n")
    assert (head.status, head.body) == (429, b"")


async def test_functions_are_asked_in_order_until_one_refuses(bench: Bench) -> None:
    asked: list[str] = []
    made = controller()

    @made.balancer.middleware("request")
    def first(_request: Request) -> None:
        asked.append("first")

    @made.balancer.middleware("request")
    async def second(_request: Request) -> None:
        await asyncio.sleep(0)
        asked.append("second")

    @made.balancer.middleware("request")
    def third(request: Request) -> None:
        asked.append("third")
        if request.path == "/no":
            raise RefusedError(402)

    made.balancer.middleware("request")(lambda _: asked.append("fourth"))
    await bench.start(await bench.worker("aaaaaaaa"), controller=made)
    assert (await bench.get("/no")).status == 402
    assert asked == ["first", "second", "third"]
    assert (await bench.get("/yes")).status == 200
    assert asked[3:] == ["first", "second", "third", "fourth"]


# Failing.


def fail(_request: Request) -> None:
    raise KeyError("a secret of the server")


async def fail_later(request: Request) -> None:
    await asyncio.sleep(0)
    fail(request)


async def cancel(_request: Request) -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    "middleware",
    [fail, fail_later, cancel, lambda _: False, lambda _: True, lambda request: setattr(request, "worker", 7)],
)
async def test_whoever_it_fails_for_is_answered_500_and_never_let_in(
    bench: Bench, log_lines: LogLines, middleware: Callable[[Request], Any]
) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), controller=controller(middleware))
    answer = await bench.get()
    assert answer.status == 500
    assert b"secret" not in answer.body
    assert "the controller failed" in log_lines(logging.ERROR)


async def test_a_failure_is_logged_with_file_and_line(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "balancer_controller.py"
    path.write_text(
        "def run(balancer):\n    @balancer.middleware('request')\n    async def f(request):\n        1 / 0\n"
    )
    made = Controller(path, Balancer("tested", "socketcluster"))
    await made.run()
    await bench.start(await bench.worker("aaaaaaaa"), controller=made)
    with structlog.testing.capture_logs() as lines:
        assert (await bench.get()).status == 500
    assert [line["error"] for line in lines if line["event"] == "the controller failed"] == [
        f"{path}:4: ZeroDivisionError: division by zero"
    ]


async def wait_for_ever(_request: Request) -> None:
    await asyncio.Event().wait()


def work_for_ever(_request: Request) -> None:
    while True:
        with suppress(Exception):  # what ends it must pass here
            sum(range(1000))


@pytest.mark.parametrize("middleware", [wait_for_ever, work_for_ever])
async def test_whoever_it_takes_too_long_for_is_answered_503(
    bench: Bench, middleware: Callable[[Request], Any]
) -> None:
    made = controller(middleware)
    await bench.start(await bench.worker("aaaaaaaa"), controller=made, controller_timeout=0.05)
    answer = await bench.get()
    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    assert (await bench.get(**UPGRADE)).status == 200
    await bench.until(lambda: bench.running == 0)


async def test_async_middleware_holds_nobody_else_up(bench: Bench) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> None:
        if request.path == "/slow":
            begun.set()
            await go_on.wait()

    await bench.start(await bench.worker("aaaaaaaa"), controller=controller(slow), controller_timeout=60)
    late = asyncio.create_task(bench.get("/slow"))
    await begun.wait()
    assert (await bench.get("/fast")).status == 200
    assert not late.done()
    go_on.set()
    assert (await late).said["worker"] == "aaaaaaaa"


async def test_only_so_many_clients_are_under_way_in_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_RUNNING", 2)
    go_on = asyncio.Event()

    async def slow(_request: Request) -> None:
        await go_on.wait()

    await bench.start(await bench.worker("aaaaaaaa"), controller=controller(slow), controller_timeout=60)
    first = [asyncio.create_task(bench.get()) for _ in range(2)]
    await bench.until(lambda: bench.running == 2)
    assert (await bench.get()).status == 503
    go_on.set()
    assert [(await each).status for each in first] == [200, 200]


async def test_a_client_that_goes_meanwhile_disturbs_nobody(bench: Bench, log_lines: LogLines) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_request: Request) -> None:
        begun.set()
        await go_on.wait()

    await bench.start(await bench.worker("aaaaaaaa"), controller=controller(slow), controller_timeout=60)
    async with bench.client() as (_, writer):
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await begun.wait()
        writer.transport.abort()
    go_on.set()
    assert (await bench.get()).status == 200
    await bench.until(lambda: bench.balancer.limits.connections == 0)
    assert log_lines(logging.WARNING) == []


async def test_clients_in_it_are_served_before_the_balancer_stops(bench: Bench) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_request: Request) -> None:
        begun.set()
        await go_on.wait()

    await bench.start(await bench.worker("aaaaaaaa"), controller=controller(slow), controller_timeout=60)
    client = asyncio.create_task(bench.get())
    await begun.wait()
    stopping = asyncio.create_task(bench.stop(PATIENCE))
    go_on.set()
    assert (await client).status == 200
    await stopping


async def test_clients_that_stay_in_it_are_cut_off_when_the_balancer_stops(bench: Bench) -> None:
    made = controller(wait_for_ever)
    await bench.start(await bench.worker("aaaaaaaa"), controller=made, controller_timeout=60)
    async with bench.client() as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await bench.until(lambda: bench.running == 1)
        await bench.stop(0)
        assert await reader.read() == b""
    await bench.until(lambda: bench.running == 0)


# Routing.


def route(request: Request) -> None:
    request.worker = request.query["to"].split(",") if "," in request.query["to"] else request.query["to"]


async def test_it_routes_by_name_id_and_tag_whatever_the_load(bench: Bench) -> None:
    tags = {"aaaaaaaa": ["odd"], "bbbbbbbb": ["even"], "cccccccc": ["odd"]}
    workers = [await bench.worker(name, tags=tags[name], connections=1000 * (name == "aaaaaaaa")) for name in tags]
    await bench.start(*workers, controller=controller(route))

    async def served(to: str, **headers: str) -> set[str]:
        return {(await bench.get(f"/?to={to}", **headers)).said["worker"] for _ in range(12)}

    assert await served("aaaaaaaa") == {"aaaaaaaa"}
    assert await served("name%20of%20aaaaaaaa") == {"aaaaaaaa"}
    assert await served("even") == {"bbbbbbbb"}
    assert await served("odd", cookie="socketcluster.session=cccccccc-x.y") == {"cccccccc"}
    assert await served("aaaaaaaa,even", cookie="socketcluster.session=aaaaaaaa-x.y") == {"aaaaaaaa"}
    assert await served("odd", cookie="socketcluster.session=bbbbbbbb-x.y") <= {"aaaaaaaa", "cccccccc"}


async def test_whoever_is_routed_to_nobody_waits_and_is_answered_503(bench: Bench) -> None:
    await bench.start(await bench.worker("aaaaaaaa"), controller=controller(route), worker_wait=0)
    assert (await bench.get("/?to=nobody")).status == 503
    assert (await bench.get("/?to=aaaaaaaa")).status == 200


async def test_whoever_waits_for_one_worker_holds_up_nobody_who_waits_for_another(bench: Bench) -> None:
    first = await bench.worker("aaaaaaaa", ready=False)
    await bench.start(first, controller=controller(route))
    waiting = [asyncio.create_task(bench.get(f"/?to={to}")) for to in ("nobody", "aaaaaaaa")]
    await bench.until(lambda: bench.waiting == 2)
    await first.tell(ready=True)
    assert (await waiting[1]).said["worker"] == "aaaaaaaa"
    assert not waiting[0].done()
    waiting[0].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
