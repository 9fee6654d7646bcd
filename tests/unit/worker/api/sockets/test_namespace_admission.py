"""Sockets that are not let in, or not yet: they leave nothing behind, and nothing reaches them, on every protocol."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.clients.raw import HANDSHAKE, RawWebSocket
from support.worker.running import Probe, RunningWorker, StartWorker, until

from socketcluster_worker.api.sockets.action import Action
from socketcluster_worker.api.sockets.namespace import Namespace
from socketcluster_worker.errors import EventError, NotLetInError


async def engineio(worker: RunningWorker) -> RawWebSocket:
    websocket = await worker.websocket("/engine.io/?EIO=4&transport=websocket")
    await websocket.next()
    return websocket


async def socketio(worker: RunningWorker) -> RawWebSocket:
    websocket = await worker.websocket("/socket.io/?EIO=4&transport=websocket")
    await websocket.next()
    await websocket.send_text("40")
    return websocket


async def raw(worker: RunningWorker) -> RawWebSocket:
    websocket = await worker.websocket()
    await websocket.send_text(HANDSHAKE)
    return websocket


Connect = Callable[[RunningWorker], Awaitable[RawWebSocket]]


class Guard:
    """A middleware of the stage ``handshake`` that joins rooms, emits, and then waits for its verdict."""

    def __init__(self, namespace: Namespace) -> None:
        self.asked: asyncio.Queue[weakref.ref[Any]] = asyncio.Queue()
        self.verdict: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        namespace.use("handshake", self.judge)

    async def judge(self, action: Action) -> None:
        action.socket.join("lobby", "left")
        action.socket.leave("left")
        action.socket.emit("message", "from the middleware")
        self.asked.put_nowait(weakref.ref(action.socket))
        if not await asyncio.shield(self.verdict):
            raise EventError("no")
        action.socket.join("late")


@pytest.fixture(params=[engineio, socketio, raw])
def connect(request: pytest.FixtureRequest) -> Connect:
    made: Connect = request.param
    return made


@pytest.mark.parametrize("case", ["refused", "gone before the verdict", "gone and let in", "gone and refused"])
async def test_nothing_is_left_of_a_socket_that_was_not_let_in(
    start_worker: StartWorker, probe: Probe, connect: Connect, case: str
) -> None:
    worker = await start_worker(probe.run)
    server = worker.worker.ws_server
    guard = Guard(server)
    client = await connect(worker)
    socket = await guard.asked.get()
    if "gone" in case:
        client.client.abort()
        await until(lambda: (made := socket()) is None or not made.connected)
    if case != "gone before the verdict":
        guard.verdict.set_result("let in" in case)
    else:
        guard.verdict.cancel()

    def forgotten() -> bool:
        gc.collect()
        return socket() is None

    await until(forgotten)
    assert not server._rooms
    assert not server.sockets
    assert probe.sockets.empty()


async def test_nothing_reaches_a_socket_before_it_is_let_in(
    start_worker: StartWorker, probe: Probe, connect: Connect
) -> None:
    worker = await start_worker(probe.run)
    server = worker.worker.ws_server
    guard = Guard(server)
    client = await connect(worker)
    made = (await guard.asked.get())()
    assert made is not None
    server.emit("message", "to all")
    server.to("lobby").emit("message", "to the room")
    server.to(made.id).emit("message", "by its id")
    made.session.emit("message", "to the session")
    with pytest.raises(NotLetInError):
        await made.call("message", "called")
    assert made.rooms == {"lobby", made.id}
    guard.verdict.set_result(True)
    socket = await probe.sockets.get()
    server.to("lobby").to("late").emit("message", "later")
    server.to("left").emit("message", "to a room that it left")
    socket.emit("message", "end")
    heard = [await client.next_text()]
    while "end" not in heard[-1]:
        heard.append(await client.next_text())
    messages = [text for text in heard if "message" in text or (text[:1] == "4" and text[:2] != "40")]
    assert [next(word for word in ("middleware", "later", "end") if word in text) for text in messages] == [
        "middleware",
        "later",
        "end",
    ]
    client.client.abort()
    await probe.ends.get()
    assert not server._rooms
