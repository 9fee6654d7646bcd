"""Connections whose bytes a balancer copies, and what becomes of them when that balancer is about to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from starlette.types import Receive, Scope, Send
from support.clients.raw import RawClient, RawWebSocket, upgrade
from support.worker.running import Probe, RunningWorker, StartWorker, until
from websockets.frames import Opcode

from socketcluster_runtime.secrets.keys import Purpose, derive_key
from socketcluster_wire import proxy_protocol
from socketcluster_wire.close_codes import CloseCode
from socketcluster_worker.api.worker import Worker
from socketcluster_worker.transport import relayed
from socketcluster_worker.transport.relayed import Relayed

KEY = derive_key("a secret of the tests", Purpose.PROXY_HEADERS)
ONE, OTHER = b"balancer", b"another"
POLLING = "/engine.io/?EIO=4&transport=polling"


async def connected(worker: RunningWorker, balancer: bytes = ONE) -> RawClient:
    """Open a connection as a balancer does."""
    client = await worker.connect()
    header = proxy_protocol.encode(("203.0.113.7", 4711), ("198.51.100.1", 443), tls=False, key=KEY, balancer=balancer)
    await client.send(header)
    return client


async def websocket(worker: RunningWorker, path: str = "/socketcluster/", balancer: bytes = ONE) -> RawWebSocket:
    client = await connected(worker, balancer)
    await client.send(upgrade(path))
    return RawWebSocket(client, await client.answer())


def end(worker: RunningWorker, seconds: float = 0) -> int:
    return worker.service._server.relayed.end(ONE, seconds)


def heads_begun(worker: RunningWorker) -> int:
    connections: Any = worker.service._server._state.connections
    return sum(not connection._complete for connection in connections)


async def test_a_websocket_gets_a_close_frame(worker: RunningWorker, probe: Probe) -> None:
    leaving, staying = await websocket(worker), await websocket(worker, balancer=OTHER)
    assert end(worker) == 1
    frame = await leaving.next()
    assert (frame.opcode, int.from_bytes(bytes(frame.data[:2]))) == (Opcode.CLOSE, CloseCode.SERVICE_RESTART)
    await staying.send_json({"event": "#handshake", "data": {}, "cid": 1})
    assert (await staying.next_json())["rid"] == 1
    await probe.sockets.get()
    staying.client.close()
    await probe.ends.get()


async def test_a_socket_is_told_why_it_ends(worker: RunningWorker, probe: Probe) -> None:
    leaving = await websocket(worker)
    await leaving.send_json({"event": "#handshake", "data": {}, "cid": 1})
    await leaving.next_json()
    socket = await probe.sockets.get()
    end(worker)
    assert await probe.ends.get() == (socket, CloseCode.SERVICE_RESTART, "this balancer is being replaced")


async def test_a_waiting_poll_is_answered_and_its_session_goes_on_by_another_connection(worker: RunningWorker) -> None:
    opened = await (await connected(worker)).request("GET", POLLING)
    sid = opened.body.partition(b'"sid":"')[2].partition(b'"')[0].decode()
    client = await connected(worker)
    asked = asyncio.create_task(client.request("GET", f"{POLLING}&sid={sid}"))
    session = worker.service._router._engines["/engine.io/"]._sessions[sid]
    await until(lambda: session._poll is not None)
    end(worker)
    answer = await asked
    assert (answer.status_code, answer.body, answer.headers["connection"]) == (200, b"6", "close")
    assert await client.closed() == b""
    session.send_text(b"hello")
    again = await (await connected(worker, OTHER)).request("GET", f"{POLLING}&sid={sid}")
    assert again.body == b"4hello"


async def test_a_request_under_way_is_answered_and_an_idle_connection_ends(start_worker: StartWorker) -> None:
    go_on = asyncio.Event()
    began = asyncio.Event()

    def run(worker: Worker) -> None:
        @worker.http_server.on("req")
        async def page(request: Any) -> Any:
            if request.url.path == "/slow":
                began.set()
                await go_on.wait()
            return {"path": request.url.path}

    worker = await start_worker(run)
    cookie = (await (await connected(worker)).request("GET", "/")).headers["set-cookie"].partition(";")[0]
    idle, busy, half = [await connected(worker) for _ in range(3)]
    assert (await idle.request("GET", "/", cookie=cookie)).status_code == 200
    asked = asyncio.create_task(busy.request("GET", "/slow", cookie=cookie))
    await half.send(b"GET /half HTTP/1.1\r\n")
    await began.wait()
    await until(lambda: heads_begun(worker) == 1)
    assert end(worker) == 3
    assert await idle.closed() == b""
    go_on.set()
    assert (await asked).headers["connection"] == "close"
    assert await busy.closed() == b""
    await half.send(f"Host: localhost\r\nCookie: {cookie}\r\n\r\n".encode())
    assert (await half.answer()).headers["connection"] == "close"
    assert await half.closed() == b""


async def test_a_mounted_websocket_gets_a_close_frame(start_worker: StartWorker) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            while (await receive())["type"] != "websocket.disconnect":
                pass

    worker = await start_worker(lambda worker: worker.http_server.mount(app, "/app"))
    leaving = await websocket(worker, "/app")
    end(worker)
    frame = await leaving.next()
    assert (frame.opcode, bytes(frame.data)) == (Opcode.CLOSE, b"\x03\xf4")


async def test_one_that_becomes_a_websocket_meanwhile_gets_a_close_frame_too(worker: RunningWorker) -> None:
    client = await connected(worker)
    request = upgrade("/socketcluster/")
    await client.send(request[:20])
    await until(lambda: heads_begun(worker) == 1)
    end(worker)
    await asyncio.sleep(0)
    await client.send(request[20:])
    frame = await RawWebSocket(client, await client.answer()).next()
    assert frame.opcode is Opcode.CLOSE


class Connection:
    """A transport, and the protocol of it."""

    def __init__(self, left: Callable[[], object]) -> None:
        self._left = left
        self._closing = False

    def get_protocol(self) -> Any:
        return self

    def is_closing(self) -> bool:
        return self._closing

    def leave(self) -> None:
        self._closing = True
        self._left()


async def test_the_ends_are_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relayed, "STEP", 0.001)
    ended: asyncio.Queue[int] = asyncio.Queue()
    connections = [Connection(lambda: ended.put_nowait(len(open_ones()))) for _ in range(20)]

    def open_ones() -> list[Connection]:
        return [connection for connection in connections if not connection.is_closing()]

    of_balancer = Relayed()
    for connection in connections:
        of_balancer.add(ONE, cast(asyncio.BaseTransport, connection))
    assert of_balancer.end(ONE, 1000) == 20
    for number in range(20):
        assert await ended.get() == 19 - number
        assert ended.empty()  # a portion of one
    of_balancer.close()


async def test_what_comes_meanwhile_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relayed, "STEP", 0.001)
    ended: asyncio.Queue[None] = asyncio.Queue()
    of_balancer = Relayed()
    early, late = (Connection(lambda: ended.put_nowait(None)) for _ in range(2))
    of_balancer.add(ONE, cast(asyncio.BaseTransport, early))
    of_balancer.end(ONE, 1000)
    assert of_balancer.end(ONE, 0) == 1  # it is under way
    await ended.get()
    of_balancer.add(ONE, cast(asyncio.BaseTransport, late))
    await ended.get()
    of_balancer.close()


def test_balancers_that_have_no_connection_any_more_are_forgotten() -> None:
    of_balancer = Relayed()
    gone = Connection(lambda: None)
    of_balancer.add(ONE, cast(asyncio.BaseTransport, gone))
    del gone
    of_balancer.add(OTHER, cast(asyncio.BaseTransport, Connection(lambda: None)))
    assert list(of_balancer._connections) == [OTHER]
