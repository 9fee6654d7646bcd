"""SocketCluster's protocol: calls, their errors, channels, and whatever JSON a client can think of."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from support.clients.raw import HANDSHAKE, RawWebSocket, event, frame
from support.worker.running import Probe, RunningWorker, StartWorker, until

from socketcluster_worker.api.worker import Worker
from socketcluster_worker.errors import CallTimeoutError, EventError, RemoteError, SocketClosedError


def handlers(**named: Any) -> Any:
    """Return a controller that gives every socket these handlers."""

    def run(worker: Worker) -> None:
        @worker.ws_server.on("connection")
        def connected(socket: Any) -> None:
            for name, handler in named.items():
                socket.on(name, handler)

    return run


async def cancelled() -> None:
    raise asyncio.CancelledError


async def later() -> str:
    return "later"


def refuse(name: Any, message: Any) -> Any:
    def handler() -> None:
        raise EventError(message, name=name)

    return handler


@pytest.mark.parametrize(
    ("handler", "answer"),
    [
        (lambda data: data, {"data": 5}),
        (lambda: None, {}),
        (lambda a, b: [a, b], {"data": [5, None]}),
        (later, {"data": "later"}),
        (lambda: asyncio.ensure_future(later()), {"data": "later"}),
        (refuse("NoError", "no"), {"error": {"name": "NoError", "message": "no"}}),
        (refuse("NoError", "\ud800"), "InternalServerError"),
        (refuse(object(), "no"), "InternalServerError"),
        (lambda: 1 / 0, "InternalServerError"),
        (lambda: object(), "InternalServerError"),
        (lambda: "\ud800", "InternalServerError"),
        (cancelled, "InternalServerError"),
    ],
)
async def test_a_call_is_answered_whatever_its_handler_does(
    start_worker: StartWorker, handler: Any, answer: Any
) -> None:
    worker = await start_worker(handlers(ask=handler))
    websocket = await worker.socket()
    got = await websocket.call("ask", 5)
    got.pop("rid")
    if isinstance(answer, str):
        assert got["error"]["name"] == answer
    else:
        assert got == answer
    assert "error" in await websocket.call("nobody", 1)  # the connection goes on


async def test_a_client_cannot_pretend_to_be_gone(start_worker: StartWorker) -> None:
    seen: list[Any] = []
    worker = await start_worker(handlers(disconnect=lambda code, reason: seen.append((code, reason))))
    websocket = await worker.socket()
    assert (await websocket.call("disconnect", 5))["error"]["name"] == "NoHandlerError"
    await websocket.end()
    await until(lambda: seen)
    assert seen == [(1000, "")]


async def test_events_that_come_with_the_handshake_reach_the_handlers_of_an_async_function(
    start_worker: StartWorker,
) -> None:
    seen: asyncio.Queue[Any] = asyncio.Queue()

    def run(worker: Worker) -> None:
        @worker.ws_server.on("connection")
        async def connected(socket: Any) -> None:
            socket.on("note", seen.put_nowait)

    worker = await start_worker(run)
    websocket = await worker.websocket()
    await websocket.send(*(frame(text) for text in (HANDSHAKE, *(event("note", n) for n in range(50)))))
    assert [await seen.get() for _ in range(50)] == list(range(50))


async def test_the_server_s_calls(worker: RunningWorker, probe: Probe) -> None:
    websocket = await worker.socket()
    socket = await probe.sockets.get()

    async def ask(answer: dict[str, Any] | None, timeout: float | None = None) -> Any:
        call = asyncio.create_task(socket.call("question", 1, 2, timeout=timeout))
        asked = await websocket.next_json()
        assert (asked["event"], asked["data"]) == ("question", [1, 2])
        if answer is not None:
            await websocket.send_json({"rid": asked["cid"], **answer})
        return await call

    assert await ask({"data": {"a": 1}}) == {"a": 1}
    assert await ask({}) is None
    with pytest.raises(RemoteError, match="bad") as failed:
        await ask({"error": {"name": "BadError", "message": "bad"}})
    assert failed.value.name == "BadError"
    with pytest.raises(RemoteError, match="just text"):
        await ask({"error": "just text"})
    with pytest.raises(CallTimeoutError):
        await ask(None, timeout=0.01)
    await websocket.send_json({"rid": 5, "data": "late"})
    await websocket.send_json({"rid": 4711, "data": "nobody asked"})
    call = asyncio.create_task(socket.call("question"))
    await websocket.next_json()
    calls = socket._peer._calls
    await websocket.end()
    with pytest.raises(SocketClosedError):
        await call
    with pytest.raises(SocketClosedError):
        await socket.call("question")
    assert not calls
    await probe.ends.get()


@pytest.mark.parametrize(
    "data", [str(2**70), str(-(2**70)), "1e400", '"\\ud800"', "[" * 400 + "]" * 400, "[" * 5000 + "]" * 5000, "NaN"]
)
async def test_strange_json_is_answered_or_ends_the_connection_but_logs_no_failure(
    worker: RunningWorker, probe: Probe, data: str, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("echo", "#publish", "#subscribe", "#unsubscribe", "nobody"):
        websocket = await worker.socket()
        for text in (f'{{"channel":"c","data":{data}}}', data):
            await websocket.send_text(f'{{"event":"{name}","data":{text},"cid":7}}')
            try:
                got = await websocket.next()
            except asyncio.IncompleteReadError:
                raise AssertionError(f"{name} broke the connection without a word") from None
            if bytes(got.data)[:2] == (1007).to_bytes(2):
                break
            assert json.loads(bytes(got.data))["rid"] == 7
        await websocket.send(frame(b"\x03\xe8", opcode=8))  # type: ignore[arg-type]
        await websocket.client.closed()
        await probe.ends.get()
    assert worker.errors.empty()
    assert not [record for record in caplog.records if record.exc_info]


async def test_channels(start_worker: StartWorker) -> None:
    worker = await start_worker(max_channels_per_socket=2)
    websocket = await worker.socket()
    other = await worker.socket()
    for name in ("a", "a", "b"):
        assert await websocket.call("#subscribe", {"channel": name}) == {"rid": 7}
    assert (await websocket.call("#subscribe", {"channel": "c"}))["error"]["name"] == "LimitError"
    assert await other.call("#subscribe", "a") == {"rid": 7}
    for number in range(20):
        await websocket.send_text(event("#publish", {"channel": "a", "data": number}))
    for one in (websocket, other):
        assert [(await one.next_json())["data"] for _ in range(20)] == [{"channel": "a", "data": n} for n in range(20)]
    assert await websocket.call("#unsubscribe", "a") == {"rid": 7}
    assert (await websocket.call("#unsubscribe", "a"))["error"]["name"] == "BrokerError"
    assert await websocket.call("#subscribe", {"channel": "c"}) == {"rid": 7}
    await other.call("#publish", {"channel": "a", "data": "not for one"})
    await other.call("#publish", {"channel": "c", "data": "last"})
    assert (await websocket.next_json())["data"] == {"channel": "c", "data": "last"}


@pytest.mark.parametrize("name", [None, "", 5, [], {}, "x" * 201, "\0inside"])
async def test_a_channel_s_name_is_checked(worker: RunningWorker, probe: Probe, name: Any) -> None:
    websocket = await worker.socket()
    for kind in ("#subscribe", "#publish"):
        assert (await websocket.call(kind, {"channel": name, "data": 1}))["error"]["name"] == "InvalidChannel"
    assert worker.errors.empty()
    await websocket.end()
    await probe.ends.get()


async def test_a_client_that_subscribes_and_leaves_at_once_is_forgotten(worker: RunningWorker, probe: Probe) -> None:
    websocket = await worker.socket()
    await websocket.send(frame(event("#subscribe", {"channel": "left"})), frame(b"\x03\xe8", opcode=8))  # type: ignore[arg-type]
    await probe.ends.get()
    witness = await worker.socket()
    assert await witness.call("#subscribe", {"channel": "other"}) == {"rid": 7}  # behind it in the store's order
    assert list(worker.worker.ws_server.exchange._subscribers._sockets) == ["other"]
    await witness.end()
    await probe.ends.get()
    assert not worker.worker.ws_server.exchange._subscribers._sockets


async def test_the_worker_s_own_subscriptions(worker: RunningWorker) -> None:
    got: asyncio.Queue[Any] = asyncio.Queue()
    exchange = worker.worker.ws_server.exchange
    channel = await exchange.subscribe("news", got.put_nowait)
    await channel.publish({"a": [1, None, "ü"]})
    assert await got.get() == {"a": [1, None, "ü"]}
    await channel.unsubscribe()
    await channel.publish("gone")
    assert got.empty()
    assert not exchange._channels


async def test_errors_of_handlers_reach_the_server_s_own(start_worker: StartWorker) -> None:
    reported: asyncio.Queue[Any] = asyncio.Queue()
    ticks: asyncio.Queue[int] = asyncio.Queue()

    def run(worker: Worker) -> None:
        @worker.ws_server.on("error")
        async def failed(error: Exception, where: str) -> None:
            await asyncio.sleep(0)
            reported.put_nowait((str(error), where))
            raise RuntimeError("an error handler fails too")

        @worker.every(0.005)
        def tick() -> None:
            ticks.put_nowait(1)
            raise ValueError("tick")

        @worker.ws_server.on("connection")
        async def connected(_: Any) -> None:
            raise ValueError("connection")

    worker = await start_worker(run)
    for _ in range(3):
        await ticks.get()
    assert (await reported.get())[0] == "tick"
    await worker.socket()
    while (found := await reported.get())[0] == "tick":
        continue
    assert found == ("connection", "a handler of 'connection'")


async def test_nothing_is_kept_of_clients_that_are_gone(worker: RunningWorker, probe: Probe) -> None:
    for kind in range(30):
        websocket: RawWebSocket = await worker.socket()
        await websocket.call("#subscribe", {"channel": f"c{kind}"})
        websocket.client.abort() if kind % 2 else await websocket.end()
        await probe.ends.get()
    service = worker.service
    assert not service._router.open_websockets
    assert not worker.worker.ws_server.sockets
    assert not worker.worker.ws_server.exchange._subscribers._sockets
    while not probe.sockets.empty():
        probe.sockets.get_nowait()
    await until(lambda: len(service._tasks) == 0)
