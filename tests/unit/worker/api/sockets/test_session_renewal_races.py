"""Sessions that are renewed while something else is under way: by other requests and workers, and planters of ids."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from support.clients.raw import HANDSHAKE, RawClient, RawWebSocket
from support.worker.running import Probe, RunningWorker, StartWorker, until
from websockets.http11 import Response

from socketcluster_worker.api.worker import Worker

Workers = list[RunningWorker]


@pytest.fixture
async def workers(start_worker: StartWorker, probe: Probe) -> Workers:
    def run(worker: Worker) -> None:
        probe.run(worker)

        @worker.http_server.on("req")
        async def page(request: Any) -> Any:
            session = request.session
            token = None
            if request.url.path == "/login":
                user = (await request.body()).decode()
                token = await session.renew()
                await session.set("user", user)
            elif request.url.path == "/twice":
                token = await asyncio.gather(session.renew(), session.renew())
            elif request.url.path == "/other":
                token = await worker.ws_server.sessions.get(request.query_params["id"]).renew()
            return {"id": session.id, "user": await session.get("user"), "token": token}

    return [await start_worker(run) for _ in range(2)]


def cookie_of(answer: Response) -> str:
    return answer.headers["set-cookie"].partition(";")[0]


async def request(worker: RunningWorker, path: str, cookie: str = "", body: bytes | None = None) -> Response:
    client = await worker.connect()
    method = "GET" if body is None else "POST"
    return await client.request(method, path, body, **({"Cookie": cookie} if cookie else {}))


async def waiting_post(worker: RunningWorker, path: str, cookie: str) -> RawClient:
    """A request whose body, ``mallory``, does not come; it has reached the handler."""
    client = await worker.connect()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\nContent-Length: 7\r\n\r\n"
    await client.send(head.encode())
    return client


async def tab(worker: RunningWorker, probe: Probe, cookie: str) -> tuple[RawWebSocket, Any]:
    websocket = await worker.websocket(Cookie=cookie)
    await websocket.send_text(HANDSHAKE)
    await websocket.next_json()
    return websocket, await probe.sockets.get()


async def end(probe: Probe, *websockets: RawWebSocket) -> None:
    for websocket in websockets:
        await websocket.end()
        await probe.ends.get()


async def test_a_login_that_waits_for_another_one_gets_no_cookie_of_that(workers: Workers, probe: Probe) -> None:
    """Who planted an id has an account, too: his login began with the old id, and ends after the other's."""
    old = cookie_of(await request(workers[0], "/"))
    websocket, socket = await tab(workers[0], probe, old)
    before = socket.session.id
    attacker = await waiting_post(workers[0], "/login", old)
    new = cookie_of(await request(workers[0], "/login", old, b"ada"))
    assert socket.session.id != before
    await attacker.send(b"mallory")
    answer = await attacker.answer()
    assert answer.status_code == 409
    assert "set-cookie" not in answer.headers
    kept = json.loads((await request(workers[0], "/", new)).body or b"")
    assert kept == {"id": socket.session.id, "user": "ada", "token": None}
    await end(probe, websocket)


async def test_one_request_renews_twice_and_gets_the_last_cookie(workers: Workers) -> None:
    old = cookie_of(await request(workers[0], "/"))
    answer = await request(workers[0], "/twice", old)
    told = json.loads(answer.body)
    assert told["token"] == [None, None]
    for worker in workers:
        assert json.loads((await request(worker, "/", cookie_of(answer))).body)["id"] == told["id"]


async def test_a_request_that_renews_another_session_is_given_a_token(workers: Workers) -> None:
    """Its response has its own browser's cookie."""
    mine = await request(workers[0], "/")
    other = await request(workers[0], "/login", "", b"ada")
    answer = await request(workers[0], f"/other?id={json.loads(other.body)['id']}", cookie_of(mine))
    assert "set-cookie" not in answer.headers
    token = json.loads(answer.body)["token"]
    fetched = await request(workers[0], "/socketcluster/session", cookie_of(other), token.encode())
    assert fetched.status_code == 204
    assert json.loads((await request(workers[0], "/", cookie_of(fetched))).body)["user"] == "ada"


async def test_a_worker_that_does_not_remember_serves_the_old_cookie_again(workers: Workers) -> None:
    """As after its restart: the store refuses the old id; the browser's next request begins a session."""
    first = await request(workers[0], "/login", "", b"ada")
    await request(workers[0], "/login", cookie_of(first), b"ada")
    sessions = workers[1].worker.ws_server.sessions
    await until(lambda: sessions.is_over(json.loads(first.body)["id"]))
    sessions._over.clear()
    assert (await request(workers[1], "/", cookie_of(first))).status_code == 409
    answer = await request(workers[1], "/", cookie_of(first))
    assert json.loads(answer.body)["user"] is None
    assert cookie_of(answer) != cookie_of(first)


async def test_whoever_holds_a_session_that_came_twice_has_the_one_with_the_sockets(
    workers: Workers, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request with the new cookie was faster than the news of the renewal."""
    old = cookie_of(await request(workers[0], "/"))
    websocket, socket = await tab(workers[0], probe, old)
    there, remote = await tab(workers[1], probe, old)
    held = remote.session
    assert await held.get("k") is None  # the store knows of its socket by now
    server = workers[1].worker.ws_server
    late: list[tuple[str, str]] = []
    told = server.session_renewed
    monkeypatch.setattr(server, "session_renewed", lambda *ids: late.append(ids))
    await socket.session.renew()
    await until(lambda: late)
    faster = server.sessions.get(socket.session.id)
    told(*late[0])
    monkeypatch.undo()
    assert remote.session is faster
    assert held.sockets == faster.sockets == (remote,)
    await socket.session.renew()
    await until(lambda: held.id == socket.session.id)
    assert faster.id == held.id
    held.emit("hello", 1)
    assert (await there.next_json())["data"] == 1
    assert (await websocket.next_json())["data"] == 1
    await held.set("k", 1)
    await socket.session.destroy()
    for each in (websocket, there):
        assert (await each.next_close())[0] == 4101
        await probe.ends.get()
    assert held.is_over


async def test_transactions_follow_a_session_that_is_renewed(workers: Workers, probe: Probe) -> None:
    """In whatever state the renewal finds them: begun, on their way, and on another worker."""
    old = cookie_of(await request(workers[0], "/"))
    websocket, socket = await tab(workers[0], probe, old)
    there, remote = await tab(workers[1], probe, old)
    assert await remote.session.get("log") is None
    async with remote.session.transaction() as transaction:
        transaction.add("log", "begun")
        before = socket.session.id
        await socket.session.renew()
        await until(lambda: remote.session.id != before)
    for number in range(10):
        renewing = asyncio.create_task(socket.session.renew())
        for session in (remote.session, socket.session):
            async with session.transaction() as transaction:
                transaction.add("log", number)
        await renewing
    assert await socket.session.get("log") == ["begun", *(number for number in range(10) for _ in range(2))]
    await end(probe, websocket, there)
