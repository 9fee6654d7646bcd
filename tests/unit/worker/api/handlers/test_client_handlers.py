"""Handlers that are added once for all clients, to a namespace or as a class's methods."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
from support.clients.raw import RawWebSocket
from support.log import WrittenLog
from support.worker.running import RunningWorker, StartWorker

from socketcluster_worker import EventError, Handlers, Socket, Worker
from socketcluster_worker.api.sockets.ws_server import WSServer


class Credentials(msgspec.Struct):
    user: str
    password: str


class Result(msgspec.Struct):
    ok: bool
    user: str


class Broken(msgspec.Struct):
    key: str

    def __post_init__(self) -> None:
        raise KeyError(self.key)


class Chat(Handlers, namespace="/chat"):
    def __init__(self) -> None:
        self.gone: asyncio.Queue[tuple[str, int]] = asyncio.Queue()

    async def on_connection(self, socket: Socket) -> None:
        socket.emit("welcome", socket.namespace.name)

    def on_disconnect(self, socket: Socket, code: int) -> None:
        self.gone.put_nowait((socket.id, code))

    async def on_join(self, socket: Socket, room: str) -> list[str]:
        socket.join(room)
        return sorted(socket.rooms - {socket.id})

    def helper(self) -> None: ...

    on_nothing = None


def run(worker: Worker) -> None:
    @worker.ws_server.handler("login")
    async def login(socket: Socket, credentials: Credentials) -> Result:
        await asyncio.sleep(0)
        if credentials.password != "open sesame":
            raise EventError("no", name="LoginError")
        socket.data["user"] = credentials.user
        return Result(ok=True, user=credentials.user)

    @worker.ws_server.handler("who")
    def who(socket: Socket) -> Any:
        return socket.data.get("user")


async def socketio(worker: RunningWorker, namespace: str = "") -> RawWebSocket:
    websocket = await worker.websocket("/socket.io/?EIO=4&transport=websocket")
    await websocket.next()
    await websocket.send_text(f"40{namespace}")
    await websocket.next()
    return websocket


@pytest.mark.parametrize("serial", [False, True])
async def test_a_handler_of_all_clients_gets_the_socket_and_what_it_wants(
    start_worker: StartWorker, serial: bool
) -> None:
    worker = await start_worker(run, serial=serial)
    first, second = await worker.socket(), await worker.socket()
    answer = await first.call("login", {"user": "ann", "password": "open sesame"})
    assert answer["data"] == {"ok": True, "user": "ann"}
    answer = await second.call("login", {"user": "bob", "password": "open"})
    assert answer["error"] == {"name": "LoginError", "message": "no"}
    assert (await first.call("who"))["data"] == "ann"
    assert "data" not in await second.call("who")
    answer = await first.call("login", {"user": "ann"})
    told = "credentials: Object missing required field `password`"
    assert answer["error"] == {"name": "ValidationError", "message": told}
    answer = await first.call("unknown")
    assert answer["error"]["name"] == "NoHandlerError"
    assert worker.errors.empty()


async def test_a_socket_io_client_is_answered_the_same(start_worker: StartWorker) -> None:
    worker = await start_worker(run)
    client = await socketio(worker)
    await client.send_text('420["login",{"user":"ann","password":"open sesame"}]')
    assert await client.next_text() == '430[{"ok":true,"user":"ann"}]'
    await client.send_text('421["login"]')
    told = json.loads((await client.next_text()).removeprefix("431"))
    assert told == [{"error": {"name": "ValidationError", "message": "credentials: it is missing"}}]


@pytest.mark.parametrize("serial", [False, True])
async def test_all_handlers_of_an_event_are_called_and_the_first_answers(
    start_worker: StartWorker, serial: bool
) -> None:
    called: asyncio.Queue[Any] = asyncio.Queue()

    def call(who: str, n: int) -> str:
        called.put_nowait((who, n))
        return who

    def add(worker: Worker) -> None:
        worker.ws_server.handler("n")(lambda _socket, n: call("first", n))
        worker.ws_server.handler("n")(lambda _socket, n: call("second", n))

        @worker.ws_server.on("connection")
        def connected(socket: Socket) -> None:
            socket.on("*", call)
            socket.on("n", lambda n: call("own", n))

    worker = await start_worker(add, serial=serial)
    client = await worker.socket()
    assert (await client.call("n", 1))["data"] == "first"
    await client.send_json({"event": "n", "data": 2})
    got = [await called.get() for _ in range(8)]
    assert got == [(who, n) for n in (1, 2) for who in ("n", "first", "second", "own")]


@pytest.mark.parametrize("serial", [False, True])
async def test_an_event_that_does_not_fit_is_left_out_and_counted(
    start_worker: StartWorker, service_log: WrittenLog, serial: bool
) -> None:
    worker = await start_worker(run, serial=serial)
    client = await worker.socket()
    for _ in range(20):
        await client.send_json({"event": "login", "data": 1})
    assert "data" not in await client.call("who")
    lines = [line for line in service_log.lines if "login" in line]
    assert len(lines) == 1
    assert "events did not have what their handlers want" in lines[0]
    assert worker.errors.empty()


@pytest.mark.parametrize("serial", [False, True])
async def test_what_a_type_of_the_application_raises_ends_no_connection(
    start_worker: StartWorker, serial: bool
) -> None:
    def add(worker: Worker) -> None:
        @worker.ws_server.handler("broken")
        def broken(socket: Socket, value: Broken) -> None: ...

        worker.ws_server.handler("fine")(lambda _socket: "fine")

    worker = await start_worker(add, serial=serial)
    client = await worker.socket()
    await client.send_json({"event": "broken", "data": {"key": "secret"}})
    assert (await client.call("broken", {"key": "secret"}))["error"] == {
        "name": "InternalServerError",
        "message": "the handler of 'broken' failed",
    }
    assert (await client.call("fine"))["data"] == "fine"
    told = [worker.errors.get_nowait() for _ in range(2)]
    assert [(type(error), where) for error, where in told] == [(KeyError, "a handler of 'broken'")] * 2


async def test_a_class_s_methods_are_handlers(start_worker: StartWorker) -> None:
    chat = Chat()
    worker = await start_worker(lambda worker: worker.ws_server.register(chat))
    client = await socketio(worker, "/chat,")
    assert await client.next_text() == '42/chat,["welcome","/chat"]'
    await client.send_text('42/chat,0["join","blue"]')
    assert await client.next_text() == '43/chat,0[["blue"]]'
    await client.send_text('42/chat,1["join",1]')
    assert "room: Expected `str`, got `int`" in await client.next_text()
    await client.send_text("41/chat,")
    _, code = await chat.gone.get()
    assert code == 1000


def test_the_namespace_of_handlers_is_the_root_unless_they_say() -> None:
    class Plain(Handlers): ...

    class More(Chat): ...

    assert (Plain.namespace, Chat.namespace, More.namespace) == ("/", "/chat", "/chat")
    assert {event for event, _ in Chat().by_event()} == {"connection", "disconnect", "join"}


async def test_wrong_handlers_are_told_when_they_are_added(worker: RunningWorker) -> None:
    server: WSServer = worker.worker.ws_server
    for event in ("connection", "connect", "disconnect", "#publish", "*"):
        with pytest.raises(ValueError, match="no event that clients send"):
            server.handler(event)
    with pytest.raises(TypeError, match=r'@ws_server\.handler\("name"\)'):
        server.handler(print)  # type: ignore[arg-type]  # without its brackets it would decorate nothing
    with pytest.raises(TypeError, match="a handler is a function"):
        server.handler("x")("no function")  # type: ignore[type-var]
    with pytest.raises(TypeError, match="the socket is the first"):
        server.handler("x")(lambda: None)
    assert server.client_handlers == {}


class Wrong(Handlers):
    def join(self, socket: Socket) -> None: ...


class WrongDisconnect(Handlers):
    def on_disconnect(self, socket: Socket, code: int, reason: str, more: int) -> None: ...


async def test_what_holds_no_handlers_cannot_be_registered(worker: RunningWorker) -> None:
    server: WSServer = worker.worker.ws_server
    for wrong in (Chat, object(), print):
        with pytest.raises(TypeError, match="an object of a class that derives from Handlers"):
            server.register(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Wrong has no method whose name begins with 'on_'"):
        server.register(Wrong())
    with pytest.raises(TypeError, match="is called with 3 argument"):
        server.register(WrongDisconnect())
    with pytest.raises(TypeError, match="a plain function"):
        server.choose_subprotocol(_choose)  # type: ignore[type-var]


async def _choose(handshake: Any, offered: Any) -> None: ...
