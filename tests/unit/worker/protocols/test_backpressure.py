"""A client that sends plenty: it is held back, not thrown out, others have their turn, what it holds is bounded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.clients.raw import Polling, RawWebSocket, event, frame
from support.worker.running import Probe, RunningWorker, StartWorker, until
from websockets.frames import Opcode

from socketcluster_wire.close_codes import CloseCode
from socketcluster_worker.api.worker import Worker
from socketcluster_worker.protocols import backpressure
from socketcluster_worker.protocols.dispatch import MAX_RUNNING
from socketcluster_worker.protocols.socketcluster.requests import MAX_OPERATIONS
from socketcluster_worker.transport.websocket import WebSocket

SOCKET_IO = "/socket.io/?EIO=4&transport="
MANY = 3000


class Turnstile:
    """Async handlers of the event ``go`` that end when the test lets them, in order."""

    def __init__(self) -> None:
        self.begun: list[Any] = []
        self.most = 0
        self._running = 0
        self._open = asyncio.Event()
        self.sockets: list[Any] = []

    def open(self) -> None:
        self._open.set()

    async def go(self, number: Any) -> Any:
        self.begun.append(number)
        self._running += 1
        self.most = max(self.most, self._running)
        await self._open.wait()
        self._running -= 1
        return number

    def run(self, *, middleware: bool = False, serial: bool = False) -> Callable[[Worker], None]:
        def run(worker: Worker) -> None:
            @worker.ws_server.on("connection")
            def connected(socket: Any) -> None:
                self.sockets.append(socket)
                socket.on("go", self.go, serial=serial)
                socket.on("message", self.go)
                socket.on("echo", lambda data: data)

            if middleware:

                @worker.ws_server.use("event")
                async def judge(_action: Any) -> None:
                    await asyncio.sleep(0)

        return run


@pytest.fixture
def turnstile() -> Turnstile:
    return Turnstile()


async def socketcluster(worker: RunningWorker) -> tuple[RawWebSocket, Callable[[int], str]]:
    return await worker.socket(), lambda number: event("go", number)


async def socketio(worker: RunningWorker) -> tuple[RawWebSocket, Callable[[int], str]]:
    websocket = await worker.websocket(SOCKET_IO + "websocket")
    await websocket.next()
    await websocket.send_text("40")
    assert (await websocket.next_text()).startswith("40")
    return websocket, lambda number: f'42["go",{number}]'


async def plain(worker: RunningWorker) -> tuple[RawWebSocket, Callable[[int], str]]:
    websocket = await worker.websocket("/engine.io/?EIO=4&transport=websocket")
    await websocket.next()
    return websocket, lambda number: f"4{number}"


Open = Callable[[RunningWorker], Awaitable[tuple[RawWebSocket, Callable[[int], str]]]]
PROTOCOLS = [socketcluster, socketio, plain]


def only_websocket(worker: RunningWorker) -> WebSocket:
    (websocket,) = worker.service._router.open_websockets
    return websocket


@pytest.mark.parametrize("open_", PROTOCOLS, ids=lambda open_: open_.__name__)
@pytest.mark.parametrize(
    "how", [{}, {"middleware": True}, {"serial": True}], ids=["", "behind a middleware", "in serial handlers"]
)
async def test_a_client_that_was_away_sends_all_it_has_at_once(
    start_worker: StartWorker, turnstile: Turnstile, open_: Open, how: dict[str, Any]
) -> None:
    worker = await start_worker(turnstile.run(**how))
    websocket, event_of = await open_(worker)
    sending = asyncio.ensure_future(websocket.send(*(frame(event_of(number)) for number in range(MANY))))
    await until(lambda: turnstile.begun)
    turnstile.open()
    await sending
    await until(lambda: len(turnstile.begun) == MANY)
    assert [int(number) for number in turnstile.begun] == list(range(MANY))
    assert turnstile.most <= MAX_RUNNING
    assert turnstile.sockets[0].connected


@pytest.mark.parametrize("open_", PROTOCOLS, ids=lambda open_: open_.__name__)
async def test_handlers_that_do_not_end_hold_their_client_up(
    start_worker: StartWorker, turnstile: Turnstile, open_: Open
) -> None:
    worker = await start_worker(turnstile.run())
    websocket, event_of = await open_(worker)
    await websocket.send(*(frame(event_of(number)) for number in range(MANY)))
    await until(lambda: only_websocket(worker)._holds and len(turnstile.begun) == MAX_RUNNING)
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(turnstile.begun) == MAX_RUNNING
    turnstile.open()
    await until(lambda: len(turnstile.begun) == MANY)
    await until(lambda: not only_websocket(worker).held)


async def test_answers_get_through_to_handlers_that_wait_for_them(start_worker: StartWorker) -> None:
    asked = 0

    def run(worker: Worker) -> None:
        @worker.ws_server.on("connection")
        def connected(socket: Any) -> None:
            async def go(number: int) -> int:
                nonlocal asked
                asked += 1
                assert await socket.call("confirm", number) == number
                return number

            socket.on("go", go)

    worker = await start_worker(run)
    websocket = await worker.socket()
    await websocket.send_json([{"event": "go", "data": number, "cid": number + 2} for number in range(1000)])
    await websocket.send_json([{"event": "go", "data": number, "cid": number + 2} for number in range(1000, 1500)])
    answered = 0
    while answered < 1500:
        got = await websocket.next_json()
        if "rid" in got:
            assert got["data"] == got["rid"] - 2
            answered += 1
        else:
            await websocket.send_json({"rid": got["cid"], "data": got["data"]})
    assert asked == 1500


async def test_large_events_hold_their_client_up_by_their_bytes(
    start_worker: StartWorker, turnstile: Turnstile
) -> None:
    worker = await start_worker(turnstile.run())
    websocket, _ = await socketcluster(worker)
    size = backpressure.MAX_BYTES // 4
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(websocket.send(*(frame(event("go", "x" * size)) for _ in range(20))))
        await until(lambda: only_websocket(worker)._holds)
        assert len(turnstile.begun) <= 4
        turnstile.open()
    await until(lambda: len(turnstile.begun) == 20)


async def test_a_polling_request_is_answered_once_its_packets_are_taken(
    start_worker: StartWorker, turnstile: Turnstile
) -> None:
    worker = await start_worker(turnstile.run(), heartbeat_interval=0.5, heartbeat_timeout=1)
    polling = await worker.engine(SOCKET_IO)
    await polling.post("40")
    await polling.poll()
    pings = 0

    async def poll() -> None:
        nonlocal pings
        while True:
            pings += (await polling.poll()).count("2")

    polls = asyncio.ensure_future(poll())
    posting = asyncio.ensure_future(polling.post(*(f'42["go",{number}]' for number in range(MANY))))
    await until(lambda: len(turnstile.begun) == MAX_RUNNING)
    before = pings
    await until(lambda: pings > before + 2)  # a client that waits for its answer cannot send a pong: it is not gone
    assert not posting.done()
    turnstile.open()
    await posting
    await polling.post("3")
    await until(lambda: len(turnstile.begun) == MANY)
    assert turnstile.begun == list(range(MANY))
    assert turnstile.sockets[0].connected
    polls.cancel()


@pytest.mark.parametrize("packet", ["3", "6", '42["nobody"]', '421["nobody"]', "40/nowhere,"])
async def test_a_request_of_tiny_packets_leaves_others_their_turn(
    start_worker: StartWorker, turnstile: Turnstile, packet: str
) -> None:
    worker = await start_worker(turnstile.run(), max_buffered_bytes=100_000_000)
    flooder, other = await worker.engine(SOCKET_IO), await worker.socket()
    await flooder.post("40")
    await flooder.poll()
    await others_have_turns(other, flooder.post(*[packet] * (300_000 // (len(packet) + 1))))


@pytest.mark.parametrize(
    "flood",
    [
        frame(b"", Opcode.PING),
        frame(b"", Opcode.PONG),
        frame(event("nobody")),
        frame(event("nobody", 1, 5)),
        frame(""),
        frame("[" + ",".join([event("nobody")] * 1000) + "]"),
        frame(b"", Opcode.TEXT, fin=False) + frame(b"", Opcode.CONT, fin=False) * 100_000 + frame(b"", Opcode.CONT),
    ],
    ids=["pings", "pongs", "events", "calls", "heartbeats", "batches", "fragments"],
)
async def test_a_flood_by_websocket_leaves_others_their_turn(
    start_worker: StartWorker, turnstile: Turnstile, flood: bytes
) -> None:
    worker = await start_worker(turnstile.run(), max_buffered_bytes=100_000_000)
    flooder, other = await worker.socket(), await worker.socket()

    async def send_and_read() -> None:
        sending = asyncio.ensure_future(flooder.send(flood * (300_000 // len(flood) + 1), frame(event("echo", 1, 77))))
        while b'"rid":77' not in (await flooder.next()).data:
            pass
        await sending

    await others_have_turns(other, send_and_read())


async def others_have_turns(other: RawWebSocket, flood: Awaitable[None]) -> None:
    """See that a client is answered again and again before a flood is over that is all there."""
    flooding = asyncio.ensure_future(flood)
    answers = 0
    while not flooding.done():
        assert (await other.call("echo", answers))["data"] == answers
        answers += 1
    await flooding
    assert answers > 2


async def test_a_client_has_few_operations_on_the_store_at_a_time(
    worker: RunningWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    websocket = await worker.socket()
    under_way: list[asyncio.Future[bytes]] = []

    def publish(*_: object) -> asyncio.Future[bytes]:
        under_way.append(asyncio.get_running_loop().create_future())
        return under_way[-1]

    monkeypatch.setattr(worker.worker.ws_server.exchange, "publish_for_client", publish)  # a store that takes its time
    publications = [{"event": "#publish", "data": {"channel": "a", "data": n}, "cid": n + 2} for n in range(1000)]
    await websocket.send_json(publications)
    await websocket.send_text(event("echo", "behind them", 5000))
    await until(lambda: len(under_way) == MAX_OPERATIONS)
    answers: list[int] = []
    for number in range(1000):
        assert len(under_way) <= number + MAX_OPERATIONS
        under_way[number].set_result(b"")
        answers.append((await websocket.next_json())["rid"])
    answers.append((await websocket.next_json())["rid"])
    behind = answers.index(5000)
    assert behind >= 1000 - MAX_OPERATIONS
    assert answers[:behind] + answers[behind + 1 :] == list(range(2, 1002))


async def test_an_event_has_a_limit_with_its_attachments(start_worker: StartWorker, probe: Probe) -> None:
    worker = await start_worker(probe.run, max_http_buffer_size=1000)
    websocket, _ = await socketio(worker)
    placeholders = ",".join(json.dumps({"_placeholder": True, "num": number}) for number in range(3))
    await websocket.send_text(f'453-["note",{placeholders}]')
    await websocket.send(*[frame(b"x" * 500, Opcode.BINARY)] * 2)
    assert (await websocket.next_close())[0] == CloseCode.TOO_BIG
    assert (await probe.ends.get())[1] == CloseCode.TOO_BIG


async def test_a_held_client_is_closed_like_any_other(start_worker: StartWorker, turnstile: Turnstile) -> None:
    worker = await start_worker(turnstile.run())
    websocket, event_of = await socketcluster(worker)
    await websocket.send(*(frame(event_of(number)) for number in range(MANY)))
    await until(lambda: only_websocket(worker)._holds)
    turnstile.sockets[0].disconnect(4500, "enough")
    assert await websocket.next_close() == (4500, "enough")
    turnstile.open()
    await until(lambda: not worker.service._router.open_websockets)


async def test_a_large_answer_to_a_poll_comes_in_parts(start_worker: StartWorker, probe: Probe) -> None:
    worker = await start_worker(probe.run)
    polling: Polling = await worker.engine(SOCKET_IO)
    await polling.post("40")
    await polling.poll()
    socket = await probe.sockets.get()
    for number in range(10):
        socket.emit("much", str(number) * 50_000)
    socket.disconnect()
    got: list[str] = []
    while len(got) < 11:
        packets = await polling.poll()
        assert len(packets) <= 3
        got += packets
    assert [packet[:11] for packet in got] == [*(f'42["much","{number}'[:11] for number in range(10)), "41"]
    await probe.ends.get()


# What is no event counts too.


async def test_coming_and_going_again_and_again_is_held_back(start_worker: StartWorker) -> None:
    going = asyncio.Event()
    came = 0

    def run(worker: Worker) -> None:
        @worker.ws_server.on("connection")
        async def connected(_socket: Any) -> None:
            nonlocal came
            came += 1
            await going.wait()

    worker = await start_worker(run)
    websocket, _ = await socketio(worker)
    sending = asyncio.ensure_future(websocket.send(*([frame("41"), frame("40")] * 10_000)))
    await until(lambda: only_websocket(worker)._holds)
    for _ in range(10):
        await asyncio.sleep(0)
    assert came <= backpressure.MAX_BYTES // backpressure.OVERHEAD + 1
    going.set()
    await sending
    await until(lambda: came == 10_001)
    websocket.client.abort()


async def test_a_client_that_comes_anew_starts_no_more_handlers(
    start_worker: StartWorker, turnstile: Turnstile
) -> None:
    worker = await start_worker(turnstile.run())
    websocket, event_of = await socketio(worker)
    again = [frame(event_of(number)) for number in range(990)] + [frame("41"), frame("40")]
    sending = asyncio.ensure_future(websocket.send(*again * 10))
    await until(lambda: only_websocket(worker)._holds)
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(turnstile.begun) <= backpressure.MAX_BYTES // backpressure.OVERHEAD + 1
    turnstile.open()
    await sending
    await until(lambda: len(turnstile.begun) == 9900)
    websocket.client.abort()


async def test_an_event_counts_with_all_its_attachments(start_worker: StartWorker, turnstile: Turnstile) -> None:
    worker = await start_worker(turnstile.run())
    websocket, _ = await socketio(worker)
    text = frame('452-["go",[{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]]')
    await websocket.send(text, frame(b"x" * 600_000), frame(b"y"), text, frame(b"x" * 600_000), frame(b"y"))
    await until(lambda: only_websocket(worker)._holds and len(turnstile.begun) == 2)
    turnstile.open()
    await until(lambda: not only_websocket(worker).held)


async def test_a_publication_counts_with_its_own_size_whatever_comes_behind_it(start_worker: StartWorker) -> None:
    asked, may = asyncio.Event(), asyncio.Event()
    published: list[asyncio.Future[bytes]] = []

    def run(worker: Worker) -> None:
        @worker.ws_server.use("publish_in")
        async def judge(_action: Any) -> None:
            asked.set()
            await may.wait()

        def publish(_channel: str, _data: Any) -> asyncio.Future[bytes]:
            published.append(asyncio.get_running_loop().create_future())
            return published[-1]

        worker.ws_server.exchange.publish_for_client = publish  # type: ignore[method-assign, assignment]

    worker = await start_worker(run)
    websocket = await worker.socket()
    heavy = frame(event("#publish", {"channel": "a", "data": "x" * 900_000}))
    await websocket.send(heavy)
    await asked.wait()
    (peer,) = {socket._peer for socket in worker.worker.ws_server.sockets}
    await websocket.send(frame(event("light")))
    await until(lambda: len(peer._queue))  # type: ignore[attr-defined]
    may.set()
    await until(lambda: published)
    await websocket.send(heavy)
    await until(lambda: len(published) == 2)
    assert only_websocket(worker)._holds
    for one in published:
        one.set_result(b"")
    await until(lambda: not only_websocket(worker).held)


async def test_events_go_on_behind_a_middleware_whose_work_was_cancelled(start_worker: StartWorker) -> None:
    handled: list[int] = []

    def run(worker: Worker) -> None:
        @worker.ws_server.on("connection")
        def connected(socket: Any) -> None:
            socket.on("go", handled.append)

        @worker.ws_server.use("event")
        async def judge(action: Any) -> None:
            if action.args[0] == 1:
                work = asyncio.ensure_future(asyncio.sleep(0))
                work.cancel()
                await work

    worker = await start_worker(run)
    websocket = await worker.socket()
    await websocket.send(*(frame(event("go", number, number)) for number in range(1, 5)))
    assert (await websocket.next_json())["error"]["name"] == "InternalServerError"
    await until(lambda: handled == [2, 3, 4])


async def test_events_go_on_behind_a_serial_handler_that_was_cancelled(start_worker: StartWorker) -> None:
    handled: list[int] = []

    def run(worker: Worker) -> None:
        @worker.ws_server.on("connection")
        def connected(socket: Any) -> None:
            async def go(number: int) -> None:
                handled.append(number)
                if number == 1:
                    work = asyncio.ensure_future(asyncio.sleep(0))
                    work.cancel()
                    await work

            socket.on("go", go)

    worker = await start_worker(run, serial=True)
    websocket = await worker.socket()
    await websocket.send(*(frame(event("go", number)) for number in range(1, 5)))
    await until(lambda: handled == [1, 2, 3, 4])
