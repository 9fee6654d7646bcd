"""The order of what a client sends: events and requests start as they arrived; serial ones wait for their turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from support.clients.raw import HANDSHAKE, RawWebSocket, event, frame
from support.log import WrittenLog
from support.worker.running import Probe, RunningWorker, StartWorker, until

from socketcluster_worker.api.worker import Worker
from socketcluster_worker.errors import EventError

SOCKET_IO = "/socket.io/?EIO=4&transport=websocket"


class Story:
    """What began and ended, in order; a handler ends when the test lets it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}

    async def handler(self, name: str) -> str:
        self.lines.append(f"{name} begins")
        await self.gates.setdefault(name, asyncio.Event()).wait()
        self.lines.append(f"{name} ends")
        return name

    def let(self, *names: str) -> None:
        for name in names:
            self.gates.setdefault(name, asyncio.Event()).set()

    def run(self, *, serial: bool = False) -> Callable[[Worker], None]:
        """Return a controller whose event ``do`` is handled by ``handler``."""

        def run(worker: Worker) -> None:
            @worker.ws_server.on("connection")
            def connected(socket: Any) -> None:
                socket.on("do", self.handler, serial=serial)
                socket.on("at once", self.lines.append)

        return run


@pytest.fixture
def story() -> Story:
    return Story()


async def socketio(worker: RunningWorker) -> RawWebSocket:
    websocket = await worker.websocket(SOCKET_IO)
    await websocket.next()
    await websocket.send_text("40")
    assert (await websocket.next_text()).startswith("40")
    return websocket


# Events and requests.

REQUESTS = [
    {"event": "#publish", "data": {"channel": "a", "data": 1}, "cid": 2},
    {"event": "#subscribe", "data": {"channel": "b"}, "cid": 2},
    {"event": "#unsubscribe", "data": "a", "cid": 2},
    {"event": "#authenticate", "data": "x", "cid": 2},
    {"event": "#removeAuthToken"},
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda sent: sent["event"])
async def test_no_request_overtakes_an_event_that_waits_for_its_middleware(
    worker: RunningWorker, probe: Probe, request_: dict[str, Any]
) -> None:
    asked, may_go_on = asyncio.Event(), asyncio.Event()

    async def judge(action: Any) -> None:
        if action.event == "note":
            asked.set()
            await may_go_on.wait()

    worker.worker.ws_server.middleware.use("event", judge)
    websocket = await worker.socket()
    socket = await probe.sockets.get()
    gone: list[Any] = []
    socket.on("deauthenticate", gone.append)
    await websocket.call("#subscribe", {"channel": "a"})
    socket.token_accepted({"name": "Ada"})
    await websocket.send_json([{"event": "note", "data": 1}, request_])
    await asked.wait()
    pong = asyncio.Event()
    socket.on("answered", pong.set)
    call = asyncio.create_task(socket.call("ping"))
    asking = await websocket.next_json()
    await websocket.send_json({"rid": asking["cid"], "data": None})
    await call  # the server has read all that was sent before, and answers go through
    assert (socket.channels, gone) == ({"a"}, [])
    assert probe.events.empty()
    may_go_on.set()
    assert await probe.events.get() == 1
    if "cid" in request_:
        while (await websocket.next_json()).get("rid") != 2:
            pass
    else:
        await until(lambda: gone)


async def test_no_request_overtakes_an_event_that_waits_for_the_handlers_of_connection(
    start_worker: StartWorker,
) -> None:
    seen: list[Any] = []

    def run(worker: Worker) -> None:
        @worker.ws_server.on("connection")
        async def connected(socket: Any) -> None:
            socket.on("note", lambda: seen.append(sorted(socket.channels)))

    worker = await start_worker(run)
    websocket = await worker.websocket()
    subscribe = event("#subscribe", {"channel": "a"})
    await websocket.send(*(frame(text) for text in (HANDSHAKE, event("note"), subscribe, event("note"))))
    await until(lambda: len(seen) == 2)
    assert seen == [[], ["a"]]


async def test_no_event_overtakes_a_request_that_came_behind_another_event(worker: RunningWorker, probe: Probe) -> None:
    order: list[str] = []

    async def judge(action: Any) -> None:
        order.append(action.stage)
        await asyncio.sleep(0.01)
        order.append(f"{action.stage} done")

    for stage in ("event", "subscribe"):
        worker.worker.ws_server.middleware.use(stage, judge)
    websocket = await worker.socket()
    await websocket.send_json(
        [{"event": "note", "data": 1}, {"event": "#subscribe", "data": {"channel": "a"}}, {"event": "note", "data": 2}]
    )
    assert [await probe.events.get() for _ in range(2)] == [1, 2]
    assert order == ["event", "event done", "subscribe", "subscribe done", "event", "event done"]


async def test_many_requests_that_waited_are_taken_one_after_the_other(worker: RunningWorker, probe: Probe) -> None:
    may_go_on = asyncio.Event()

    async def judge(action: Any) -> None:
        if action.data == 0:
            await may_go_on.wait()

    worker.worker.ws_server.middleware.use("publish_in", judge)
    websocket = await worker.socket()
    requests = [{"event": "#publish", "data": {"channel": "a", "data": n}, "cid": n + 2} for n in range(1000)]
    await websocket.send_json(requests)
    may_go_on.set()
    assert [(await websocket.next_json())["rid"] for _ in range(1000)] == list(range(2, 1002))
    assert worker.errors.empty()


@pytest.mark.parametrize("judged", [False, True])
async def test_a_plain_handler_does_not_overtake_an_async_one(
    start_worker: StartWorker, story: Story, judged: bool
) -> None:
    worker = await start_worker(story.run())
    worker.worker.ws_server.middleware.use("publish_in", lambda action: story.lines.append(action.data))
    if judged:
        worker.worker.ws_server.middleware.use("event", lambda action: None)
    story.let("one", "two")
    websocket = await worker.socket()
    publish = {"event": "#publish", "data": {"channel": "a", "data": "published"}}
    await websocket.send_json([{"event": "do", "data": "one"}, {"event": "at once", "data": "now"}, publish])
    await websocket.send_json([{"event": "do", "data": "two"}, publish])
    await until(lambda: len(story.lines) == 7)
    begun = [line for line in story.lines if not line.endswith("ends")]
    assert begun == ["one begins", "now", "published", "two begins", "published"]


async def test_a_refused_event_lets_the_next_one_through(worker: RunningWorker, probe: Probe) -> None:
    async def judge(action: Any) -> None:
        await asyncio.sleep(0)
        if action.args == ("bad",):
            raise EventError("no")

    worker.worker.ws_server.middleware.use("event", judge)
    websocket = await worker.socket()
    assert (await websocket.call("echo", "bad"))["error"]["message"] == "no"
    assert (await websocket.call("echo", "good"))["data"] == "good"


# Serial.


async def test_async_handlers_of_one_socket_run_at_the_same_time(start_worker: StartWorker, story: Story) -> None:
    worker = await start_worker(story.run())
    websocket = await worker.socket()
    await websocket.send_json([{"event": "do", "data": "one"}, {"event": "do", "data": "two"}])
    await until(lambda: story.lines == ["one begins", "two begins"])
    story.let("one", "two")


@pytest.mark.parametrize("protocol", ["socketcluster", "socket.io"])
async def test_with_the_option_serial_each_event_waits_for_the_one_before(
    start_worker: StartWorker, story: Story, protocol: str
) -> None:
    worker = await start_worker(story.run(), serial=True)
    if protocol == "socketcluster":
        websocket = await worker.socket()
        await websocket.send_json([{"event": "do", "data": "one", "cid": 2}, {"event": "do", "data": "two"}])
        await websocket.send_text(event("at once", "three"))
    else:
        websocket = await socketio(worker)
        await websocket.send(*(frame(text) for text in ('421["do","one"]', '42["do","two"]', '42["at once","three"]')))
    await until(lambda: story.lines == ["one begins"])
    story.let("one")
    answer = await websocket.next_text()
    assert answer == ('{"rid":2,"data":"one"}' if protocol == "socketcluster" else '431["one"]')
    await until(lambda: story.lines[-1] == "two begins")
    story.let("two")
    await until(lambda: len(story.lines) == 5)
    assert story.lines == ["one begins", "one ends", "two begins", "two ends", "three"]


async def test_with_the_option_serial_sockets_do_not_wait_for_each_other(
    start_worker: StartWorker, story: Story
) -> None:
    worker = await start_worker(story.run(), serial=True)
    one, other = await worker.socket(), await worker.socket()
    await one.send_text(event("do", "one"))
    await until(lambda: story.lines)
    await other.send_text(event("do", "other"))
    await until(lambda: story.lines == ["one begins", "other begins"])
    story.let("one", "other")


async def test_with_the_option_serial_a_handler_may_call_its_client(start_worker: StartWorker) -> None:
    def run(worker: Worker) -> None:
        @worker.ws_server.on("connection")
        def connected(socket: Any) -> None:
            async def ask(data: Any) -> Any:
                return await socket.call("question", data)

            socket.on("ask", ask)
            socket.on("*", lambda name, *_: socket.data.setdefault("all", []).append(name))
            socket.on("all", lambda: socket.data["all"])
            socket.on("fail", lambda: 1 / 0)

    worker = await start_worker(run, serial=True)
    websocket = await worker.socket()
    await websocket.send_text(event("ask", "really", 2))
    question = await websocket.next_json()
    await websocket.send_json({"rid": question["cid"], "data": "yes"})
    assert await websocket.next_json() == {"rid": 2, "data": "yes"}
    assert (await websocket.call("fail"))["error"]["name"] == "InternalServerError"
    assert (await websocket.call("nobody"))["error"]["name"] == "NoHandlerError"
    assert (await websocket.call("all"))["data"] == ["ask", "fail", "nobody", "all"]


async def test_a_serial_handler_waits_for_its_call_before_and_for_no_other(
    start_worker: StartWorker, story: Story
) -> None:
    worker = await start_worker(story.run(serial=True))
    websocket = await worker.socket()
    await websocket.send_json([{"event": "do", "data": "one", "cid": 2}, {"event": "do", "data": "two", "cid": 3}])
    await websocket.send_text(event("at once", "three"))
    await until(lambda: story.lines == ["one begins", "three"])
    story.let("one", "two")
    assert [await websocket.next_json() for _ in range(2)] == [{"rid": 2, "data": "one"}, {"rid": 3, "data": "two"}]
    assert story.lines[2:] == ["one ends", "two begins", "two ends"]


async def test_a_serial_handler_is_forgotten_like_any_other(worker: RunningWorker, probe: Probe) -> None:
    websocket = await worker.socket()
    socket = await probe.sockets.get()

    def plain(one: Any, two: Any = None) -> Any:
        if one == "fail":
            raise EventError("no")
        return [one, two]

    socket.on("plain", plain, serial=True)
    assert (await websocket.call("plain", 1))["data"] == [1, None]
    assert (await websocket.call("plain", "fail"))["error"]["message"] == "no"
    assert (await websocket.call("plain", 2))["data"] == [2, None]
    socket.off("plain", plain)
    assert (await websocket.call("plain", 1))["error"]["name"] == "NoHandlerError"


async def test_an_annotated_argument_that_is_missing_is_told_to_the_caller(worker: RunningWorker, probe: Probe) -> None:
    websocket = await worker.socket()
    socket = await probe.sockets.get()
    heard: list[Any] = []

    @socket.on("join")  # type: ignore[untyped-decorator]
    def join(room: str, since: int = 0) -> str:
        return f"{room} {since}"

    @socket.on("loose")
    def loose(room, since):  # type: ignore[no-untyped-def]
        return [room, since]

    socket.on("told", heard.append)  # a builtin, which says nothing of its arguments
    refused = {"name": "ValidationError", "message": "room: it is missing"}
    await websocket.send_text('{"event":"join","cid":7}')
    assert await websocket.next_json() == {"rid": 7, "error": refused}
    assert (await websocket.call("join", "a"))["data"] == "a 0"
    await websocket.send_text('{"event":"loose","cid":7}')
    assert (await websocket.next_json())["data"] == [None, None]
    assert (await websocket.call("told", 1))["rid"] == 7
    assert heard == [1]


@pytest.mark.parametrize("serial", [False, True])
async def test_events_without_an_annotated_argument_are_left_out_and_counted(
    start_worker: StartWorker, service_log: WrittenLog, serial: bool
) -> None:
    heard: list[Any] = []

    def run(worker: Worker) -> None:
        @worker.ws_server.on("connection")
        def connected(socket: Any) -> None:
            @socket.on("join")  # type: ignore[untyped-decorator]
            def join(room: str) -> None:
                heard.append(room)

            @socket.on("*")  # type: ignore[untyped-decorator]
            def every(name: str, room: str) -> None:
                heard.append((name, room))

    worker = await start_worker(run, serial=serial)
    websocket = await worker.socket()
    for _ in range(20):
        await websocket.send_text('{"event":"join"}')
    assert (await websocket.call("join", "a"))["rid"] == 7
    assert heard == [("join", None)] * 20 + [("join", "a"), "a"]
    assert worker.errors.empty()
    lines = [line for line in service_log.lines if "room: it is missing" in line]
    assert len(lines) == 1
    assert "events did not have what their handlers want" in lines[0]
