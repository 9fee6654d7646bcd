"""The end of a connection by its client, in good order: what it had sent before is handled before the end is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.clients.raw import ENGINE, HANDSHAKE, Polling, RawWebSocket, event, frame
from support.worker.running import Probe, RunningWorker, StartWorker, until
from websockets.frames import Opcode

from socketcluster_worker.api.sockets.action import Action
from socketcluster_worker.api.worker import Worker
from socketcluster_worker.errors import EventError, SocketClosedError
from socketcluster_worker.protocols import dispatch
from socketcluster_worker.tasks import BEGIN_AT_ONCE

SOCKETIO = "/socket.io/?EIO=4&transport="
PLAIN = "/engine.io/?EIO=4&transport="
GOING_AWAY = frame(b"\x03\xe9", Opcode.CLOSE)
END_TIMEOUT = "socketcluster_worker.protocols.event_queue.END_TIMEOUT"

Send = Callable[..., Awaitable[None]]
"""Sends messages, and the end behind them, in one piece."""


class Way:
    """A protocol by a transport, and how its client ends.

    Args:
        endpoint: its path, without the transport.
        kind: of the transport.
        entry: messages that make the client connected.
        message: makes a message of a number.
        end: the packet that ends, or the frame.
    """

    def __init__(
        self, endpoint: str, kind: str, entry: list[str], message: Callable[[int], str], end: str | bytes
    ) -> None:
        self.endpoint = endpoint
        self.kind = kind
        self.entry = entry
        self.message = message
        self.end = end

    async def open(self, worker: RunningWorker) -> Polling | RawWebSocket:
        """Open a connection, which no message protocol's handshake has followed."""
        if self.kind == "polling":
            return await worker.engine(self.endpoint)
        return await worker.websocket(self.endpoint + self.kind)

    async def send(self, client: Polling | RawWebSocket, *texts: str, ends: bool = True) -> None:
        """Send messages and the end, in one piece."""
        if isinstance(client, Polling):
            assert isinstance(self.end, str)
            packets = (*texts, self.end) if ends else texts
            if packets:
                await client.post(*packets)
        else:
            end = frame(self.end) if isinstance(self.end, str) else self.end
            await client.send(*map(frame, texts), *([end] if ends else []))

    async def send_all(self, client: Polling | RawWebSocket, count: int, *, ends: bool = True) -> None:
        """Send the handshake, so many messages and the end, in one piece."""
        await self.send(client, *self.entry, *map(self.message, range(count)), ends=ends)


def raw(number: int) -> str:
    return event("save", number)


def engine(number: int) -> str:
    return "4" + event("save", number)


def socketio(number: int) -> str:
    return f'42["save",{number}]'


def plain(number: int) -> str:
    return f"4{number}"


ENTRY = ["4" + HANDSHAKE]
WAYS = {
    "socketcluster by polling": Way(ENGINE, "polling", ENTRY, engine, "1"),
    "socketcluster by WebSocket": Way(ENGINE, "websocket", ENTRY, engine, "1"),
    "socketcluster by WebSocket, close frame": Way(ENGINE, "websocket", ENTRY, engine, GOING_AWAY),
    "socketcluster by raw WebSocket": Way("/socketcluster/?", "websocket", [HANDSHAKE], raw, GOING_AWAY),
    "socket.io by polling": Way(SOCKETIO, "polling", ["40"], socketio, "1"),
    "socket.io by WebSocket": Way(SOCKETIO, "websocket", ["40"], socketio, GOING_AWAY),
    "socket.io, leaving the namespace": Way(SOCKETIO, "websocket", ["40"], socketio, "41"),
    "plain by polling": Way(PLAIN, "polling", [], plain, "1"),
    "plain by WebSocket": Way(PLAIN, "websocket", [], plain, GOING_AWAY),
}
RAW, SOCKET_IO, PLAIN_POLLING = (
    WAYS[name] for name in ("socketcluster by raw WebSocket", "socket.io by WebSocket", "plain by polling")
)
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
every_protocol = pytest.mark.parametrize(
    "way", [RAW, SOCKET_IO, PLAIN_POLLING], ids=["socketcluster", "socket.io", "plain"]
)


class Story:
    """What began, in order: the numbers of the messages, ``connection`` and ``disconnect``."""

    def __init__(self) -> None:
        self.lines: list[Any] = []
        self.ended: list[int] = []
        self.sockets: list[Any] = []
        self.may_end = asyncio.Event()
        self.may_pass = asyncio.Event()
        self.asked: list[Any] = []

    def run(self, handler: Callable[[Any], Any] | None = None, *, serial: bool = False) -> Callable[[Worker], None]:
        """Return a controller."""

        def run(worker: Worker) -> None:
            @worker.ws_server.on("connection")
            async def connected(socket: Any) -> None:
                self.sockets.append(socket)
                self.lines.append("connection")
                for name in ("save", "message"):
                    socket.on(name, handler or self.save, serial=serial)
                socket.on("disconnect", lambda: self.lines.append("disconnect"))

            @worker.ws_server.on("disconnect")
            def disconnected(socket: Any) -> None:
                assert self.lines[-1] == "disconnect"

        return run

    async def save(self, number: Any) -> None:
        self.lines.append(int(number))
        await self.may_end.wait()
        self.ended.append(int(number))

    async def judge(self, action: Any) -> None:
        self.asked.append(action.args)
        await self.may_pass.wait()

    async def told(self, *before: Any) -> None:
        """See that this was told and nothing after it."""
        await until(lambda: "disconnect" in self.lines)
        for _ in range(10):
            await asyncio.sleep(0)
        assert self.lines == ["connection", *before, "disconnect"]


@pytest.fixture
def story() -> Story:
    return Story()


@every_way
async def test_async_handlers_begin_before_the_end_is_told(start_worker: StartWorker, story: Story, way: Way) -> None:
    worker = await start_worker(story.run())
    await way.send_all(await way.open(worker), 20)
    await story.told(*range(20))
    assert not story.ended
    story.may_end.set()
    assert worker.errors.empty()


@every_way
async def test_what_middleware_holds_comes_before_the_end(start_worker: StartWorker, story: Story, way: Way) -> None:
    worker = await start_worker(story.run())
    worker.worker.ws_server.use("event", story.judge)
    await way.send_all(await way.open(worker), 5)
    await until(lambda: story.asked)
    await until(lambda: not story.sockets[0].connected)
    socket = story.sockets[0]
    assert socket in worker.worker.ws_server.sockets
    socket.emit("news")  # does nothing
    with pytest.raises(SocketClosedError):
        await socket.call("news")
    story.may_pass.set()
    story.may_end.set()
    await story.told(*range(5))
    assert socket not in worker.worker.ws_server.sockets
    assert worker.errors.empty()


@every_way
async def test_what_the_handshake_holds_comes_before_the_end(start_worker: StartWorker, story: Story, way: Way) -> None:
    worker = await start_worker(story.run())
    worker.worker.ws_server.use("handshake", story.judge)
    client = await way.open(worker)
    await way.send(client, *way.entry, ends=False)
    await until(lambda: story.asked)
    await way.send(client, *map(way.message, range(5)))
    story.may_end.set()
    story.may_pass.set()
    await story.told(*range(5))
    assert worker.errors.empty()


@every_protocol
async def test_who_is_refused_is_never_told_of(start_worker: StartWorker, story: Story, way: Way) -> None:
    def refuse(action: Any) -> None:
        raise EventError("no")

    worker = await start_worker(story.run())
    sockets: list[Any] = []

    async def judge(action: Any) -> None:
        sockets.append(action.socket)
        await story.judge(action)
        refuse(action)

    worker.worker.ws_server.use("handshake", judge)
    client = await way.open(worker)
    await way.send(client, *way.entry, ends=False)
    await until(lambda: story.asked)
    await way.send(client, *map(way.message, range(5)))
    await until(lambda: not sockets[0].connected)
    assert sockets[0].end_now is not None
    story.may_pass.set()
    await until(lambda: sockets[0].end_now is None)
    assert story.lines == []


@every_protocol
async def test_who_leaves_while_it_is_judged_and_has_sent_nothing_is_never_told_of(
    start_worker: StartWorker, story: Story, way: Way
) -> None:
    worker = await start_worker(story.run())
    worker.worker.ws_server.use("handshake", story.judge)
    sockets: list[Any] = []
    worker.worker.ws_server.use("handshake", lambda action: sockets.append(action.socket))
    client = await way.open(worker)
    await way.send(client, *way.entry)
    await until(lambda: story.asked)
    if isinstance(client, RawWebSocket):
        await client.client.closed()
    story.may_pass.set()
    await until(lambda: sockets)
    assert not sockets[0].connected
    assert sockets[0].end_now is None
    assert story.lines == []


@every_way
async def test_in_serial_mode_the_end_waits_for_the_handlers(start_worker: StartWorker, story: Story, way: Way) -> None:
    worker = await start_worker(story.run(), serial=True)
    await way.send_all(await way.open(worker), 3)
    await until(lambda: story.sockets and not story.sockets[0].connected)
    await until(lambda: story.lines == ["connection", 0])
    story.may_end.set()
    await story.told(0, 1, 2)
    assert story.ended == [0, 1, 2]


@every_way
async def test_the_calls_of_a_serial_handler_begin_before_the_end_is_told(
    start_worker: StartWorker, story: Story, way: Way
) -> None:
    may_go_on = asyncio.Semaphore(0)

    async def save(number: Any) -> None:
        story.lines.append(int(number))
        await may_go_on.acquire()

    worker = await start_worker(story.run(save, serial=True))
    await way.send_all(await way.open(worker), 3)
    await until(lambda: story.sockets and not story.sockets[0].connected)
    may_go_on.release()
    await until(lambda: story.lines[-1] == 1)
    assert story.lines == ["connection", 0, 1]
    may_go_on.release()
    await story.told(0, 1, 2)  # though the last one has not ended
    may_go_on.release()


@every_protocol
async def test_no_more_handlers_run_than_before(
    start_worker: StartWorker, story: Story, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "MAX_RUNNING", 3)
    worker = await start_worker(story.run())
    await way.send_all(await way.open(worker), 5)
    await until(lambda: story.sockets and not story.sockets[0].connected)
    for _ in range(10):
        await asyncio.sleep(0)
    assert story.lines == ["connection", 0, 1, 2]
    story.may_end.set()
    await story.told(*range(5))


@every_protocol
async def test_handlers_under_way_alone_do_not_hold_the_end_up(
    start_worker: StartWorker, story: Story, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "MAX_RUNNING", 3)
    worker = await start_worker(story.run())
    await way.send_all(await way.open(worker), 3)
    await story.told(0, 1, 2)
    story.may_end.set()


@every_way
async def test_what_waits_for_too_long_is_dropped(
    start_worker: StartWorker, story: Story, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(END_TIMEOUT, 0.05)
    worker = await start_worker(story.run())
    worker.worker.ws_server.use("event", story.judge)
    await way.send_all(await way.open(worker), 5)
    await story.told()
    story.may_pass.set()
    await story.told()
    assert len(story.asked) == 1


@every_protocol
async def test_a_handler_may_end_it_at_once(start_worker: StartWorker, story: Story, way: Way) -> None:
    async def save(number: Any) -> None:
        story.lines.append(int(number))
        if int(number) == 1:
            assert not story.sockets[0].connected
            story.sockets[0].disconnect()

    worker = await start_worker(story.run(save))
    worker.worker.ws_server.use("event", story.judge)
    await way.send_all(await way.open(worker), 5)
    await until(lambda: story.sockets and not story.sockets[0].connected)
    story.may_pass.set()
    await story.told(0, 1)


@every_protocol
async def test_what_waits_at_another_end_is_dropped(start_worker: StartWorker, story: Story, way: Way) -> None:
    worker = await start_worker(story.run())
    worker.worker.ws_server.use("event", story.judge)
    client = await way.open(worker)
    await way.send_all(client, 5, ends=False)
    await until(lambda: story.asked)
    if isinstance(client, RawWebSocket):
        client.client.abort()
    else:
        assert (await client.request("POST", b"x"))[0] == 400
    await story.told()
    story.may_pass.set()
    await story.told()
    assert len(story.asked) == 1


@every_protocol
async def test_what_waits_when_the_server_ends_is_dropped(start_worker: StartWorker, story: Story, way: Way) -> None:
    async def save(number: Any) -> None:
        story.lines.append(int(number))
        story.sockets[0].disconnect()

    worker = await start_worker(story.run(save))
    await way.send_all(await way.open(worker), 5, ends=False)
    await story.told(0)


@every_protocol
async def test_a_worker_stops_all_the_same(start_worker: StartWorker, story: Story, way: Way) -> None:
    worker = await start_worker(story.run(), drain_timeout=0.05)
    worker.worker.ws_server.use("event", story.judge)
    await way.send_all(await way.open(worker), 5)
    await until(lambda: story.asked and not story.sockets[0].connected)
    await worker.stop()
    assert story.lines[-1] == "disconnect"
    assert story.sockets[0].end_now is None


# One protocol's own.


async def test_requests_that_waited_are_carried_out(start_worker: StartWorker, story: Story) -> None:
    published: list[Any] = []

    async def judge(action: Any) -> None:
        await story.judge(action)
        published.append(action.data)

    worker = await start_worker(story.run())
    worker.worker.ws_server.use("publish_in", judge)
    client = await worker.socket()
    publish = event("#publish", {"channel": "a", "data": "news"})
    await client.send(*map(frame, (publish, publish, raw(0), raw(1))), GOING_AWAY)
    await until(lambda: story.asked and not story.sockets[0].connected)
    assert story.lines == ["connection"]
    story.may_pass.set()
    await story.told(0, 1)
    assert published == ["news", "news"]
    story.may_end.set()


async def test_the_reason_that_a_client_told_is_not_kept_up(start_worker: StartWorker, story: Story) -> None:
    worker = await start_worker(story.run())
    told: list[Any] = []
    worker.worker.ws_server.on("disconnect", lambda socket, code, reason: told.append((code, reason)))
    client = await worker.socket()
    await client.send(frame(raw(0)), frame(event("#disconnect", {"code": 1001, "data": "bye"})), GOING_AWAY)
    await story.told(0)
    assert told == [(1001, "bye")]
    story.may_end.set()


async def test_who_left_a_namespace_may_come_back_before_its_end_is_told(
    start_worker: StartWorker, story: Story
) -> None:
    worker = await start_worker(story.run())
    worker.worker.ws_server.use("event", story.judge)
    client = await SOCKET_IO.open(worker)
    await SOCKET_IO.send(client, "40", socketio(0), "41", "40", socketio(1), ends=False)
    await until(lambda: len(story.sockets) == 2)
    assert [socket.connected for socket in story.sockets] == [False, True]
    story.may_pass.set()
    await until(lambda: len(story.lines) == 5)
    assert sorted(map(str, story.lines)) == ["0", "1", "connection", "connection", "disconnect"]
    assert story.lines.index("disconnect") > story.lines.index(0)
    story.may_end.set()


async def test_the_middleware_is_not_asked_about_a_client_that_has_gone(worker: RunningWorker, probe: Probe) -> None:
    asked: list[str] = []

    def note(action: Action) -> None:
        asked.append(action.event)

    await worker.socket()
    socket = await probe.sockets.get()
    worker.worker.ws_server.use("event", note)
    socket._peer._dispatch.event("late", (), None)
    socket.disconnect()
    await probe.ends.get()
    await until(lambda: not worker.worker.ws_server.running)
    assert asked == (["late"] if BEGIN_AT_ONCE else [])
