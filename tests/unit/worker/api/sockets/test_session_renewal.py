"""Sessions that are renewed at a login, and destroyed at a logout: on two workers, over HTTP and for sockets."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.clients.raw import HANDSHAKE, RawWebSocket, event
from support.worker.running import Probe, RunningWorker, StartWorker, until
from websockets.http11 import Response

from socketcluster_store_client.errors import LinkError, SessionOverError, StoreUnavailableError
from socketcluster_store_client.partitioning import partition_of
from socketcluster_worker.api.worker import Worker

Workers = list[RunningWorker]
NAME = "socketcluster.session"


@pytest.fixture
async def workers(start_worker: StartWorker, probe: Probe) -> Workers:
    def run(worker: Worker) -> None:
        probe.run(worker)

        @worker.http_server.on("req")
        async def page(request: Any) -> Any:
            session = request.session
            token = None
            if request.url.path == "/login":
                token = await session.renew()
                await session.set("user", "ada")
            elif request.url.path == "/logout":
                await session.destroy()
                return {}
            return {"id": session.id, "user": await session.get("user"), "token": token}

        @worker.ws_server.on("connection")
        def connected(socket: Any) -> None:
            @socket.on("login")  # type: ignore[untyped-decorator]
            async def login(_data: Any) -> Any:
                await socket.session.set("user", "ada")
                return await socket.session.renew()

    return [await start_worker(run) for _ in range(2)]


def cookie_of(answer: Response) -> str:
    return answer.headers["set-cookie"].partition(";")[0]


async def get(worker: RunningWorker, path: str, cookie: str = "") -> Response:
    client = await worker.connect()
    return await client.request("GET", path, None, **({"Cookie": cookie} if cookie else {}))


async def told(worker: RunningWorker, path: str, cookie: str) -> Any:
    return json.loads((await get(worker, path, cookie)).body)


async def tab(worker: RunningWorker, probe: Probe, cookie: str) -> tuple[RawWebSocket, Any]:
    websocket = await worker.websocket(Cookie=cookie)
    await websocket.send_text(HANDSHAKE)
    await websocket.next_json()
    return websocket, await probe.sockets.get()


async def test_a_login_over_http_gives_the_browser_another_cookie(workers: Workers, probe: Probe) -> None:
    old = cookie_of(await get(workers[0], "/"))
    websocket, socket = await tab(workers[1], probe, old)
    before = socket.session.id
    await socket.session.set("cart", [1])
    await socket.session.expire("cart", 1000)
    heard: list[tuple[str, str]] = []
    for worker in workers:
        worker.worker.ws_server.on("session_renew", lambda *ids: heard.append(ids))
    answer = await get(workers[0], "/login", old)
    new = cookie_of(answer)
    assert answer.headers["cache-control"] == "private"
    renewed = json.loads(answer.body)
    assert renewed["token"] is None
    assert renewed["id"] != before
    assert renewed["id"][:8] == before[:8]  # which its worker is found by
    assert partition_of(renewed["id"]) == partition_of(before)
    await until(lambda: socket.session.id == renewed["id"])  # also where the other worker has its sockets
    await until(lambda: heard == [(before, renewed["id"])] * 2)
    assert await socket.session.get_all() == {"cart": [1], "user": "ada"}
    assert await socket.session.get_expiry("cart") > 0
    for worker in workers:
        kept = await told(worker, "/", new)
        assert (kept["id"], kept["user"]) == (renewed["id"], "ada")
        answer = await get(worker, "/", old)  # whoever planted it
        assert json.loads(answer.body)["user"] is None
        assert json.loads(answer.body)["id"] not in (before, renewed["id"])
        assert cookie_of(answer) not in (old, new)
    workers[0].worker.ws_server.sessions.get(renewed["id"]).emit("hello", 1)
    assert (await websocket.next_json())["data"] == 1
    await websocket.end()
    await probe.ends.get()


async def test_a_response_that_did_not_renew_gets_no_cookie_of_the_new_session(workers: Workers, probe: Probe) -> None:
    """It may be another client's, who planted the old id and has a request wait for the login."""
    old = cookie_of(await get(workers[0], "/"))
    websocket, socket = await tab(workers[0], probe, old)
    waiting = await workers[0].connect()
    head = f"POST / HTTP/1.1\r\nHost: localhost\r\nCookie: {old}\r\nContent-Length: 4\r\n\r\n"
    await waiting.send(head.encode())
    await get(workers[0], "/login", old)
    await waiting.send(b"body")
    assert "set-cookie" not in (await waiting.answer()).headers
    assert socket.session.id
    await websocket.end()
    await probe.ends.get()


async def test_a_login_of_a_socket_gives_a_token_for_the_cookie(workers: Workers, probe: Probe) -> None:
    old = cookie_of(await get(workers[0], "/"))
    websocket, socket = await tab(workers[0], probe, old)
    before = socket.session.id
    token = (await websocket.call("login"))["data"]
    assert socket.session.id != before
    path = "/socketcluster/session"
    other = cookie_of(await get(workers[0], "/"))

    async def fetch(body: bytes, cookie: str = old, **headers: str) -> Response:
        client = await workers[1].connect()
        return await client.request("POST", path, body, Cookie=cookie, **headers)

    assert (await fetch(b"guessed")).status_code == 403
    assert (await fetch(b"x" * 100)).status_code == 413
    assert (await fetch(token.encode(), Origin="http://elsewhere.example")).status_code == 403
    assert (await get(workers[1], path, old)).status_code == 405
    answer = await fetch(token.encode())
    assert answer.status_code == 204
    assert answer.headers["cache-control"] == "no-store"
    kept = await told(workers[1], "/", cookie_of(answer))
    assert (kept["id"], kept["user"]) == (socket.session.id, "ada")
    assert (await fetch(token.encode())).status_code == 403  # used
    old = cookie_of(answer)
    await websocket.call("login", cid=9)  # for which nobody fetches the cookie
    token = (await websocket.call("login", cid=8))["data"]
    kept = await told(workers[1], "/", cookie_of(await fetch(token.encode(), old)))
    assert kept["id"] == socket.session.id
    token = (await websocket.call("login", cid=8))["data"]
    assert (await fetch(token.encode(), other)).status_code == 403  # of another browser
    assert "set-cookie" not in (await fetch(token.encode())).headers
    await websocket.end()
    await probe.ends.get()


async def test_a_destroyed_session_ends_everywhere(workers: Workers, probe: Probe) -> None:
    cookie = cookie_of(await get(workers[0], "/login", ""))
    tabs = [await tab(worker, probe, cookie) for worker in workers]
    session = tabs[1][1].session
    gone: list[tuple[int, str]] = []
    for number, worker in enumerate(workers):
        worker.worker.ws_server.on("session_destroy", lambda ended, number=number: gone.append((number, ended)))
    answer = await get(workers[0], "/logout", cookie)
    assert answer.headers["set-cookie"].startswith(f"{NAME}=; Path=/; Max-Age=0")
    for websocket, _socket in tabs:
        assert await websocket.next_close() == (4101, "the session is over")
        assert (await probe.ends.get())[1] == 4101
    await until(lambda: sorted(gone) == [(0, session.id), (1, session.id)])
    with pytest.raises(SessionOverError):
        await session.set("user", "again")
    assert (await told(workers[1], "/", cookie))["user"] is None
    await session.destroy()
    with pytest.raises(SessionOverError):
        await session.renew()


async def test_an_operation_that_a_renewal_overtook_goes_to_the_new_id(workers: Workers, probe: Probe) -> None:
    old = cookie_of(await get(workers[0], "/"))
    websocket, socket = await tab(workers[0], probe, old)
    websocket2, other = await tab(workers[1], probe, old)
    for number in range(20):
        renewing = workers[0].worker.ws_server.run(socket.session.renew, (), "renewing")
        await other.session.add("log", number)  # on its way at the same time, on another link
        await socket.session.add("own", number)
        assert renewing is not None
        await renewing
    assert await other.session.get_all() == {"log": [*range(20)], "own": [*range(20)]}
    for one in (websocket, websocket2):
        await one.end()
        await probe.ends.get()


async def test_a_renewal_that_fails_leaves_the_session_as_it_was(
    workers: Workers, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = cookie_of(await get(workers[0], "/"))
    websocket, socket = await tab(workers[0], probe, old)
    before = socket.session.id
    await socket.session.set("cart", 1)

    async def failing(*_: object, **__: object) -> bytes:
        raise StoreUnavailableError("away")

    with monkeypatch.context() as patched:
        patched.setattr(workers[0].service._client, "call", failing)
        with pytest.raises(LinkError):
            await socket.session.renew()
    assert socket.session.id == before
    assert await socket.session.get("cart") == 1
    assert (await told(workers[1], "/", old))["id"] == before
    await websocket.end()
    await probe.ends.get()


async def test_a_worker_that_does_not_remember_is_refused_by_the_store(workers: Workers, probe: Probe) -> None:
    """As after its restart: what has the old id is sent away, and comes back with a new session."""
    old = cookie_of(await get(workers[0], "/login"))
    await get(workers[0], "/login", old)
    sessions = workers[1].worker.ws_server.sessions
    await until(lambda: sessions._over)
    sessions._over.clear()
    websocket = await workers[1].websocket(Cookie=old)
    await websocket.send_text(HANDSHAKE)
    await websocket.next_json()
    assert (await websocket.next_close())[0] == 4101
    assert (await probe.ends.get())[1] == 4101
    await probe.sockets.get()
    again = await workers[1].websocket(Cookie=old)
    assert again.response.headers["set-cookie"]
    await again.send_text(event("#handshake", {}, 1))
    await again.next_json()
    await probe.sockets.get()
    await again.end()
    await probe.ends.get()
