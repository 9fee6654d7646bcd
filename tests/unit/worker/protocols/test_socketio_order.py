"""Where clients can recover: what one handler does to one client arrives in that order, whatever ways it takes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from support.clients.raw import RawWebSocket
from support.worker.running import Probe, RunningWorker, StartWorker

from socketcluster_store_client.errors import StoreUnavailableError

PATH = "/socket.io/?EIO=4&transport=websocket"


class Client:
    """A client, and what its handlers do."""

    def __init__(self, websocket: RawWebSocket, socket: Any) -> None:
        self.websocket = websocket
        self.socket = socket

    @classmethod
    async def connect(cls, worker: RunningWorker, probe: Probe) -> Client:
        websocket = await worker.websocket(PATH)
        await websocket.next()
        await websocket.send_text("40")
        await websocket.next()
        return cls(websocket, await probe.sockets.get())

    async def run(self, handler: Any) -> None:
        """Have the client call a handler."""
        self.socket.on("run", handler)
        await self.websocket.send_text('427["run"]')

    async def next(self) -> tuple[str, Any]:
        """Return what kind of packet comes next, and its first datum."""
        text = await self.websocket.next_text()
        data = json.loads(text[text.index("[") :]) if "[" in text else [None]
        return text[:2], data[0]


@pytest.fixture
async def workers(start_worker: StartWorker, probe: Probe) -> list[RunningWorker]:
    return [await start_worker(probe.run, recovery_window=60) for _ in range(2)]


@pytest.fixture
async def client(workers: list[RunningWorker], probe: Probe) -> Client:
    return await Client.connect(workers[0], probe)


async def test_an_acknowledgement_comes_after_what_was_emitted_before(client: Client) -> None:
    def handler() -> str:
        client.socket.emit("one")
        client.socket.namespace.emit("two")
        client.socket.session.emit("three")
        client.socket.emit("four")
        return "done"

    for _ in range(3):
        client.socket.off("run")
        await client.run(handler)
        assert [await client.next() for _ in range(5)] == [
            ("42", "one"),
            ("42", "two"),
            ("42", "three"),
            ("42", "four"),
            ("43", "done"),
        ]


async def test_so_does_one_with_binary_and_one_of_an_async_handler(client: Client) -> None:
    async def handler() -> bytes:
        client.socket.emit("one")
        return b"\1"

    await client.run(handler)
    assert await client.next() == ("42", "one")
    assert await client.next() == ("46", {"_placeholder": True, "num": 0})
    assert bytes((await client.websocket.next()).data) == b"\1"


async def test_a_call_comes_after_what_was_emitted_before(client: Client) -> None:
    async def handler() -> Any:
        client.socket.emit("one")
        return await client.socket.call("two")

    await client.run(handler)
    assert [await client.next() for _ in range(2)] == [("42", "one"), ("42", "two")]
    await client.websocket.send_text('430["answer"]')
    assert await client.next() == ("43", "answer")


async def test_the_end_comes_after_what_was_emitted_before(client: Client, probe: Probe) -> None:
    def handler() -> None:
        client.socket.emit("one")
        client.socket.disconnect()
        client.socket.disconnect()
        client.socket.emit("after the end")

    await client.run(handler)
    assert [await client.next() for _ in range(2)] == [("42", "one"), ("41", None)]
    assert (await probe.ends.get())[1] == 1000


async def test_a_broadcast_reaches_those_who_were_members_when_it_was_made(
    workers: list[RunningWorker], client: Client, probe: Probe
) -> None:
    stranger = await Client.connect(workers[0], probe)
    server = workers[0].worker.ws_server

    def handler() -> None:
        client.socket.join("room")
        server.to("room").emit("joined")
        client.socket.leave("room")
        stranger.socket.join("room")
        server.to("room").emit("left")
        server.emit("end")

    await client.run(handler)
    assert [await client.next() for _ in range(2)] == [("42", "joined"), ("42", "end")]
    assert [await stranger.next() for _ in range(2)] == [("42", "left"), ("42", "end")]


async def test_who_has_nothing_on_its_way_waits_for_nobody(
    workers: list[RunningWorker], client: Client, probe: Probe
) -> None:
    other = await Client.connect(workers[0], probe)
    for _ in range(3):
        client.socket.emit("many")
    assert client.socket.turn
    assert not other.socket.turn
    assert [await client.next() for _ in range(3)] == [("42", "many")] * 3
    assert not client.socket.turn
    assert not client.socket._behind


async def test_clients_of_other_protocols_get_a_broadcast_at_once_and_once(
    workers: list[RunningWorker], client: Client
) -> None:
    raw = await workers[0].socket()
    server = workers[0].worker.ws_server
    server.emit("news", 1)
    server.emit("news", 2)
    assert not next(socket for socket in server.sockets if socket.protocol == "socketcluster").turn
    assert [(await raw.next_json())["data"] for _ in range(2)] == [1, 2]
    assert [await client.next() for _ in range(2)] == [("42", "news")] * 2
    server.emit("end")
    assert (await raw.next_json())["event"] == "end"


async def test_what_waits_goes_out_when_the_store_has_refused(
    workers: list[RunningWorker], client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = workers[0].worker.ws_server.exchange

    def fail(*_: Any, **__: Any) -> Any:
        future = asyncio.get_running_loop().create_future()
        future.set_exception(StoreUnavailableError("no store", operation="publish"))
        return future

    monkeypatch.setattr(exchange._client, "call", fail)

    def handler() -> str:
        client.socket.emit("lost")
        return "done"

    await client.run(handler)
    assert await client.next() == ("43", "done")


async def test_what_the_store_carries_out_after_all_is_delivered(
    workers: list[RunningWorker], client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = workers[0].worker.ws_server.exchange
    call = exchange._client.call

    def give_up(*args: Any, **options: Any) -> Any:
        call(*args, **options)
        future = asyncio.get_running_loop().create_future()
        future.set_exception(StoreUnavailableError("no answer in time", operation="publish"))
        return future

    monkeypatch.setattr(exchange._client, "call", give_up)

    def handler() -> str:
        client.socket.emit("late")
        return "done"

    await client.run(handler)
    assert [await client.next() for _ in range(2)] == [("43", "done"), ("42", "late")]
