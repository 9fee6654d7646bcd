"""What a connection had is freed when it ends, without the collector of cyclic garbage, which may come late."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from support.clients.raw import RawWebSocket
from support.worker.running import RunningWorker, StartWorker, until

from socketcluster_worker.api.worker import Worker
from socketcluster_worker.errors import EventError


@pytest.fixture
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("without_collector")
@pytest.mark.parametrize("in_good_order", [True, False])
@pytest.mark.parametrize(
    "connect", [RunningWorker.socket, RunningWorker.browser_socket, RunningWorker.socketio, RunningWorker.engineio]
)
async def test_an_ended_connection_is_freed_with_what_its_handlers_hold(
    start_worker: StartWorker, connect: Callable[[RunningWorker], Awaitable[RawWebSocket]], in_good_order: bool
) -> None:
    there: list[weakref.ref[Any]] = []
    ended: list[str] = []

    def run(worker: Worker) -> None:
        @worker.ws_server.on("connection")
        def connected(socket: Any) -> None:
            there.extend((weakref.ref(socket), weakref.ref(socket._peer)))

            async def message(text: str) -> None:
                socket.emit("message", text)

            async def disconnected() -> None:
                ended.append(socket.protocol)

            socket.on("message", message)
            socket.on("disconnect", disconnected)

    worker = await start_worker(run)
    websocket = await connect(worker)
    await until(lambda: there)
    there.extend(map(weakref.ref, worker.service._server._router.open_websockets))
    assert len(there) == 3
    worker.worker.ws_server.emit("message", "to all")
    await websocket.next_text()
    if in_good_order:
        await websocket.end()
    else:
        websocket.client.abort()
    await until(lambda: not any(one() for one in there))
    assert len(ended) == 1


@pytest.mark.usefixtures("without_collector")
async def test_so_is_one_that_was_refused(start_worker: StartWorker) -> None:
    there: list[weakref.ref[Any]] = []

    def run(worker: Worker) -> None:
        @worker.ws_server.use("handshake")
        async def judge(action: Any) -> None:
            there.append(weakref.ref(action.socket))
            raise EventError("not you")

    worker = await start_worker(run)
    websocket = await worker.websocket("/socket.io/?EIO=4&transport=websocket")
    await websocket.next()
    await websocket.send_text("40")
    assert await websocket.next_text() == '44{"message":"not you"}'
    await until(lambda: not there[0]())
    await websocket.end()


@pytest.mark.usefixtures("without_collector")
async def test_a_socket_that_was_kept_stays_one_that_is_gone(start_worker: StartWorker) -> None:
    kept: list[Any] = []
    worker = await start_worker(lambda worker: worker.ws_server.on("connection", kept.append) and None)
    websocket = await worker.socket()
    await until(lambda: kept)
    (socket,) = kept
    worker.worker.ws_server.emit("x", 1)
    (carrier,) = map(weakref.ref, worker.service._server._router.open_websockets)
    await websocket.end()
    await until(lambda: socket not in worker.worker.ws_server.sockets)
    assert (socket.protocol, socket.connected, socket.writable) == ("socketcluster", False, False)
    socket.emit("x", 1)
    socket.disconnect()
    assert socket.kick_out() is False
    socket.deauthenticate()
    await until(lambda: carrier() is None)  # it holds nothing of the connection
    assert repr(socket) == f"<Socket {socket.id} socketcluster closed>"
