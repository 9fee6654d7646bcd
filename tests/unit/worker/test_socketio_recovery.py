"""Socket.IO's connection state recovery, packet by packet, on two workers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from support.raw import RawWebSocket, frame
from support.worker import Probe, RunningWorker, StartWorker, until

PATH = "/socket.io/?EIO=4&transport=websocket"
Workers = list[RunningWorker]


class Client:
    """A client that remembers what it recovers with."""

    def __init__(self, websocket: RawWebSocket, told: dict[str, Any]) -> None:
        self.websocket = websocket
        self.sid: str = told["sid"]
        self.pid: str = told["pid"]
        self.offset: str | None = None
        self.events: list[list[Any]] = []

    @classmethod
    async def connect(cls, worker: RunningWorker, **auth: Any) -> Client:
        websocket = await worker.websocket(PATH)
        await websocket.next()
        await websocket.send_text("40" + (json.dumps(auth) if auth else ""))
        return cls(websocket, json.loads((await websocket.next_text())[2:]))

    async def next(self) -> list[Any]:
        """Return the next event without its offset, which is the last argument."""
        text = await self.websocket.next_text()
        event: list[Any] = json.loads(text[text.index("[") :])
        self.offset = event.pop()
        return event

    async def lose(self, probe: Probe) -> None:
        """Lose the connection."""
        self.websocket.client.abort()
        assert (await probe.ends.get())[1] == 1006


@pytest.fixture
async def workers(start_worker: StartWorker, probe: Probe) -> Workers:
    return [await start_worker(probe.run, recovery_window=60) for _ in range(2)]


async def heard_last(workers: Workers, text: str) -> None:
    """Wait until every worker has heard a broadcast."""

    def heard(worker: RunningWorker) -> bool:
        history = worker.worker.ws_server.history
        assert history is not None
        return bool(history._entries) and history._entries[-1].emission.args == (text,)

    await until(lambda: all(map(heard, workers)))


async def kept(socket: Any, room: str) -> None:
    """Wait until the store keeps that a socket is in a room."""

    async def is_kept() -> bool:
        states = await socket.session.get("\0recovery")
        return bool(states) and any(room in state["rooms"] for state in states.values())

    while not await is_kept():  # noqa: ASYNC110  # nothing tells
        await asyncio.sleep(0)


@pytest.mark.parametrize("home", [0, 1])
async def test_a_client_recovers_on_any_worker(workers: Workers, probe: Probe, home: int) -> None:
    client = await Client.connect(workers[0])
    socket = await probe.sockets.get()
    socket.join("room")
    socket.data["kept"] = 1
    server = workers[0].worker.ws_server
    server.emit("news", "before")
    assert await client.next() == ["news", "before"]
    await client.lose(probe)
    server.to("room").emit("news", "missed in the room")
    server.to("another room").emit("news", "not mine")
    server.volatile.emit("news", "volatile")
    server.to(client.sid).emit("news", "missed by id")
    await heard_last(workers, "missed by id")
    again = await Client.connect(workers[home], pid=client.pid, offset=client.offset)
    assert (again.sid, again.pid) == (client.sid, client.pid)
    assert [await again.next() for _ in range(2)] == [["news", "missed in the room"], ["news", "missed by id"]]
    recovered = await probe.sockets.get()
    assert recovered.recovered
    assert recovered.rooms == {"room", client.sid}
    assert recovered.data == {"kept": 1}
    assert recovered.session.id == socket.session.id
    recovered.emit("news", "after")
    assert await again.next() == ["news", "after"]


async def test_a_client_that_got_nothing_recovers_too(workers: Workers, probe: Probe) -> None:
    workers[0].worker.ws_server.emit("news", "before it came")
    await heard_last(workers, "before it came")
    client = await Client.connect(workers[0])
    await probe.sockets.get()
    await client.lose(probe)
    workers[0].worker.ws_server.emit("news", "missed")
    await heard_last(workers, "missed")
    again = await Client.connect(workers[1], pid=client.pid)
    assert again.sid == client.sid
    assert await again.next() == ["news", "missed"]


@pytest.mark.parametrize("case", ["unknown pid", "pid of no form", "offset too old", "sent away"])
async def test_a_client_that_cannot_recover_begins_anew(workers: Workers, probe: Probe, case: str) -> None:
    server = workers[0].worker.ws_server
    client = await Client.connect(workers[0])
    socket = await probe.sockets.get()
    server.emit("news", "before")
    await client.next()
    if case == "sent away":
        socket.disconnect()
        assert await client.websocket.next_text() == "41"
        await probe.ends.get()
    else:
        await client.lose(probe)
    if case == "offset too old":
        history = server.history
        assert history is not None
        history._entries.clear()
        server.emit("news", "what is kept begins here")
        server.emit("news", "and goes on")
        await heard_last(workers[:1], "and goes on")
        client.offset = client.offset and client.offset.rpartition("-")[0] + "-0"
    pids = {"unknown pid": client.pid + "x", "pid of no form": "x"}
    again = await Client.connect(workers[0], pid=pids.get(case, client.pid), offset=client.offset)
    fresh = await probe.sockets.get()
    assert again.sid != client.sid
    assert again.pid != client.pid
    assert not fresh.recovered


@pytest.mark.parametrize("home", [0])
async def test_a_client_that_recovers_takes_its_old_connection_s_place(
    workers: Workers, probe: Probe, home: int
) -> None:
    workers[0].worker.ws_server.emit("news", "first")
    await heard_last(workers, "first")
    client = await Client.connect(workers[0])
    old = await probe.sockets.get()
    old.join("room")
    await kept(old, "room")
    again = await Client.connect(workers[home], pid=client.pid)  # the old one is half-open, say
    assert again.sid == client.sid
    new = await probe.sockets.get()
    assert await probe.ends.get() == (old, 4100, "another connection took this one's place")
    assert not old.connected
    assert await client.websocket.next_close() == (4100, "another connection took this one's place")
    server = workers[1 - home].worker.ws_server
    server.to("room").emit("news", "by the room")
    server.to(new.id).emit("news", "by the id")
    new.session.emit("news", "by the session")
    heard = {(await again.websocket.next_text()).partition(",")[2].split('"')[1] for _ in range(3)}
    assert heard == {"by the room", "by the id", "by the session"}
    assert [len(worker.worker.ws_server.sockets) for worker in workers] == [1 - home, home]
    assert new.session.sockets == (new,)
    await again.lose(probe)


async def test_an_offset_comes_behind_the_attachments_placeholders(workers: Workers, probe: Probe) -> None:
    client = await Client.connect(workers[0])
    (await probe.sockets.get()).emit("bytes", b"\1")
    assert await client.next() == ["bytes", {"_placeholder": True, "num": 0}]
    assert client.offset
    await client.websocket.next()


async def test_without_the_option_there_is_nothing_to_recover_with(worker: RunningWorker, probe: Probe) -> None:
    websocket = await worker.websocket(PATH)
    await websocket.next()
    await websocket.send(frame('40{"pid":"x","offset":"1-1"}'))
    assert set(json.loads((await websocket.next_text())[2:])) == {"sid"}
    socket = await probe.sockets.get()
    assert not socket.recovered
    socket.emit("news", 1)
    assert await websocket.next_text() == '42["news",1]'
