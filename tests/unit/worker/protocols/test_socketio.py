"""What the Socket.IO protocol document (revision 5) asks of a server, packet by packet over a WebSocket."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import pytest
from support.clients.raw import RawWebSocket, frame
from support.worker.running import Probe, RunningWorker, StartWorker, until
from websockets.frames import Opcode

from socketcluster_worker.api.worker import Worker
from socketcluster_worker.errors import CallTimeoutError, EventError, ReservedEventError, SocketClosedError

PATH = "/socket.io/?EIO=4&transport=websocket"
SLOT = '{"_placeholder":true,"num":%d}'


class Echo(Probe):
    """A controller that answers what it is asked, in the namespaces ``/`` and ``/custom``."""

    def run(self, worker: Worker) -> None:
        super().run(worker)
        for namespace in (worker.ws_server, worker.ws_server.of("/custom")):

            @namespace.on("connection")
            def connected(socket: Any) -> None:
                socket.emit("auth", socket.handshake.auth or {})
                socket.on("message", lambda *args: socket.emit("message-back", *args))
                socket.on("message-with-ack", lambda *args: args)
                socket.on("nothing", lambda: None)

        @worker.ws_server.of("/custom").on("connection")
        def in_custom(socket: Any) -> None:
            self.sockets.put_nowait(socket)

        @worker.ws_server.of("/custom").on("disconnect")
        def left_custom(socket: Any, code: int, reason: str) -> None:
            self.ends.put_nowait((socket, code, reason))


@pytest.fixture
def probe() -> Any:
    with Echo() as made:
        yield made


async def opened(worker: RunningWorker) -> RawWebSocket:
    """Open an Engine.IO connection."""
    websocket = await worker.websocket(PATH)
    assert (await websocket.next_text())[0] == "0"
    return websocket


async def connect(websocket: RawWebSocket, namespace: str = "") -> dict[str, Any]:
    """Connect to a namespace, and return what the server says to it."""
    prefix = f"{namespace}," if namespace else ""
    await websocket.send_text(f"40{prefix}")
    answer = await websocket.next_text()
    assert answer.startswith(f"40{prefix}{{"), answer
    assert await websocket.next_text() == f'42{prefix}["auth",{{}}]'
    told: dict[str, Any] = json.loads(answer[2 + len(prefix) :])
    return told


async def client(worker: RunningWorker) -> RawWebSocket:
    """Return a client that is connected to the main namespace."""
    websocket = await opened(worker)
    await connect(websocket)
    return websocket


async def ask(websocket: RawWebSocket, *sent: str | bytes) -> str:
    """Send messages, and return the next text."""
    await websocket.send(*(frame(one) for one in sent))
    return await websocket.next_text()


# Connection to a namespace.


@pytest.mark.parametrize("prefix", ["", "/custom,"])
@pytest.mark.parametrize("payload", ["", '{"token":"123"}'])
async def test_a_connect_is_answered_with_the_session_id(
    worker: RunningWorker, probe: Probe, prefix: str, payload: str
) -> None:
    websocket = await opened(worker)
    answer = await ask(websocket, f"40{prefix}{payload}")
    assert answer.startswith(f"40{prefix}")
    told = json.loads(answer[2 + len(prefix) :])
    socket = await probe.sockets.get()
    assert told == {"sid": socket.id}
    assert await websocket.next_text() == f'42{prefix}["auth",{payload or "{}"}]'


async def test_a_connect_may_leave_out_the_comma(worker: RunningWorker, probe: Probe) -> None:
    websocket = await opened(worker)
    assert (await ask(websocket, "40/custom")).startswith("40/custom,{")


async def test_an_unknown_namespace_is_a_connect_error(worker: RunningWorker, probe: Probe) -> None:
    websocket = await opened(worker)
    assert await ask(websocket, "40/random,") == '44/random,{"message":"Invalid namespace"}'
    await connect(websocket)  # the connection goes on


async def test_a_refused_connect_is_a_connect_error_with_data(worker: RunningWorker, probe: Probe) -> None:
    def refuse(action: Any) -> None:
        if action.socket.handshake.auth != {"token": "123"}:
            raise EventError("Not authorized", data={"hint": "say please"})

    worker.worker.ws_server.of("/custom").middleware.use("handshake", refuse)
    websocket = await opened(worker)
    refused = '44/custom,{"message":"Not authorized","data":{"hint":"say please"}}'
    assert await ask(websocket, "40/custom,") == refused
    assert await ask(websocket, '40/custom,{"token":1}') == refused
    assert (await ask(websocket, '40/custom,{"token":"123"}')).startswith("40/custom,{")
    assert (await probe.sockets.get()).namespace.name == "/custom"


async def test_a_failure_in_the_middleware_tells_no_secret(worker: RunningWorker, probe: Probe) -> None:
    worker.worker.ws_server.middleware.use("handshake", lambda action: 1 / 0)
    websocket = await opened(worker)
    assert await ask(websocket, "40") == '44{"message":"the middleware failed"}'


@pytest.mark.parametrize("first", ['2["message"]', "1", "30[]", '2/custom,["message"]'])
async def test_a_packet_before_connect_ends_the_connection(worker: RunningWorker, probe: Probe, first: str) -> None:
    websocket = await opened(worker)
    await websocket.send_text(f"4{first}")
    assert (await websocket.next_close())[0] == 4009


async def test_no_connect_in_time_ends_the_connection(start_worker: StartWorker, probe: Probe) -> None:
    worker = await start_worker(probe.run, handshake_timeout=0.05)
    websocket = await opened(worker)
    assert (await websocket.next_close())[0] == 4005


async def test_one_connection_has_a_socket_in_each_namespace(worker: RunningWorker, probe: Probe) -> None:
    websocket = await opened(worker)
    main = await connect(websocket)
    custom = await connect(websocket, "/custom")
    assert main["sid"] != custom["sid"]
    assert await ask(websocket, '42/custom,7["message-with-ack",1]') == "43/custom,7[1]"
    assert await ask(websocket, '427["message-with-ack",2]') == "437[2]"
    first, second = await probe.sockets.get(), await probe.sockets.get()
    second.data["a"] = 1
    assert (first.data, first.session is second.session) == ({}, True)


async def test_a_second_connect_to_the_same_namespace_changes_nothing(worker: RunningWorker, probe: Probe) -> None:
    websocket = await client(worker)
    assert await ask(websocket, "40", '421["message-with-ack"]') == "431[]"
    assert len(worker.worker.ws_server.sockets) == 1


# Disconnection from a namespace.


async def test_a_disconnect_of_the_main_namespace_has_no_answer_and_leaves_the_connection(
    worker: RunningWorker, probe: Probe
) -> None:
    websocket = await client(worker)
    await websocket.send_text("41")
    assert (await probe.ends.get())[1] == 1000
    await connect(websocket)


async def test_a_disconnect_of_one_namespace_leaves_the_others(worker: RunningWorker, probe: Probe) -> None:
    websocket = await client(worker)
    await connect(websocket, "/custom")
    late = '42/custom,["message","late"]'
    assert await ask(websocket, "41/custom,", late, '42["message","main"]') == '42["message-back","main"]'
    assert (await probe.ends.get())[0].namespace.name == "/custom"


async def test_the_server_disconnects_from_one_namespace(worker: RunningWorker, probe: Probe) -> None:
    websocket = await client(worker)
    await connect(websocket, "/custom")
    await probe.sockets.get()
    (await probe.sockets.get()).disconnect(4321, "enough")
    assert await websocket.next_text() == "41/custom,"
    assert (await probe.ends.get())[1:] == (4321, "enough")
    late = '42/custom,["message","it crossed the disconnect"]'
    assert await ask(websocket, late, '42["message","main"]') == '42["message-back","main"]'


async def test_the_end_of_the_connection_is_the_end_in_every_namespace(worker: RunningWorker, probe: Probe) -> None:
    websocket = await client(worker)
    await connect(websocket, "/custom")
    await websocket.end()
    assert {(await probe.ends.get())[0].namespace.name for _ in range(2)} == {"/", "/custom"}


# Events.


async def test_an_event_is_a_name_and_arguments(worker: RunningWorker, probe: Probe) -> None:
    websocket = await client(worker)
    assert await ask(websocket, '42["message",1,"2",{"3":[true]}]') == '42["message-back",1,"2",{"3":[true]}]'
    await connect(websocket, "/custom")
    assert await ask(websocket, '42/custom,["message","€"]') == '42/custom,["message-back","€"]'


async def test_an_event_carries_attachments_both_ways(worker: RunningWorker, probe: Probe) -> None:
    websocket = await client(worker)
    slots = f"{SLOT % 0},{SLOT % 1}"
    assert await ask(websocket, f'452-["message",{slots}]', b"\1\2\3", b"\4") == f'452-["message-back",{slots}]'
    got = [await websocket.next() for _ in range(2)]
    assert [(one.opcode, bytes(one.data)) for one in got] == [(Opcode.BINARY, b"\1\2\3"), (Opcode.BINARY, b"\4")]


async def test_attachments_are_not_torn_from_their_event(worker: RunningWorker, probe: Probe) -> None:
    websocket = await client(worker)
    socket = await probe.sockets.get()
    for number in range(3):
        socket.emit("n", b"%d" % number)
        worker.worker.ws_server.emit("all", b"%d" % number)
    kinds = [(await websocket.next()).opcode for _ in range(12)]
    assert kinds == [Opcode.TEXT, Opcode.BINARY] * 6


@pytest.mark.parametrize(
    "sent",
    ["2{}", "2[]", "2[null]", "3{}", "31{}", "abc", "7", '2abc["message"]', "4{}", '4"x"'],
)
async def test_an_invalid_packet_ends_the_connection(worker: RunningWorker, probe: Probe, sent: str) -> None:
    websocket = await client(worker)
    await websocket.send_text(f"4{sent}")
    assert (await websocket.next_close())[0] == 1007
    assert (await probe.ends.get())[1] == 1007


async def test_a_catch_all_handler_gets_every_event_with_its_name(worker: RunningWorker, probe: Probe) -> None:
    websocket = await client(worker)
    socket = await probe.sockets.get()
    got: asyncio.Queue[Any] = asyncio.Queue()
    socket.on("*", lambda name, *args: got.put_nowait((name, args)))
    await websocket.send(frame('42["anything",1,2]'), frame('421["nothing"]'), frame('42["*","x"]'))
    assert await websocket.next_text() == "431[]"
    assert [await got.get() for _ in range(3)] == [("anything", (1, 2)), ("nothing", ()), ("*", ("x",))]


async def test_a_volatile_event_is_left_out_while_something_waits(worker: RunningWorker, probe: Probe) -> None:
    websocket = await client(worker)
    socket = await probe.sockets.get()
    websocket.client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    while socket.writable:
        socket.emit("filling", "x" * 100_000)
    socket.volatile.emit("lost")
    worker.worker.ws_server.volatile.emit("lost too")
    socket.emit("last")
    websocket.client.writer.transport.resume_reading()  # type: ignore[attr-defined]
    while (text := await websocket.next_text()).startswith('42["filling'):
        pass
    assert text == '42["last"]'


# Acknowledgements.


async def test_an_acknowledgement_has_the_id_of_its_event(worker: RunningWorker, probe: Probe) -> None:
    websocket = await client(worker)
    assert await ask(websocket, '42456["message-with-ack",1,"2",{"3":[false]}]') == '43456[1,"2",{"3":[false]}]'
    assert await ask(websocket, '420["message-with-ack","zero"]') == '430["zero"]'
    assert await ask(websocket, '429007199254740991["nothing"]') == "439007199254740991[]"


async def test_an_acknowledgement_carries_attachments(worker: RunningWorker, probe: Probe) -> None:
    websocket = await client(worker)
    await connect(websocket, "/custom")
    sent = f'451-/custom,1["message-with-ack",{SLOT % 0}]'
    assert await ask(websocket, sent, b"\1\2") == f"461-/custom,1[{SLOT % 0}]"
    assert bytes((await websocket.next()).data) == b"\1\2"
    slots = f"{SLOT % 0},{SLOT % 1}"
    assert await ask(websocket, f'452-789["message-with-ack",{slots}]', b"\1", b"\2") == f"462-789[{slots}]"
    assert [bytes((await websocket.next()).data) for _ in range(2)] == [b"\1", b"\2"]


async def test_an_event_whose_handler_fails_is_acknowledged(worker: RunningWorker, probe: Probe) -> None:
    websocket = await client(worker)
    socket = await probe.sockets.get()
    socket.on("fail", lambda: 1 / 0)
    assert '"InternalServerError"' in await ask(websocket, '422["fail"]')


@pytest.mark.parametrize("serial", [False, True])
async def test_an_event_that_nobody_handles_is_not_acknowledged(
    start_worker: StartWorker, probe: Probe, serial: bool
) -> None:
    websocket = await client(await start_worker(probe.run, serial=serial))
    socket = await probe.sockets.get()
    socket.on("*", lambda *args: args)  # hears it, and does not answer
    assert await ask(websocket, '421["nobody"]', '422["message-with-ack",1]') == "432[1]"


@pytest.mark.parametrize("name", ["authenticate", "deauthenticate"])
async def test_events_that_other_protocols_have_reach_their_handlers(
    worker: RunningWorker, probe: Probe, name: Literal["authenticate", "deauthenticate"]
) -> None:
    claimed: list[Any] = []
    worker.worker.ws_server.on(name, lambda socket, claims: claimed.append(claims))
    websocket = await client(worker)
    (await probe.sockets.get()).on(name, lambda data: ["got", data])
    assert await ask(websocket, f'421["{name}",{{"name":"root"}}]') == '431[["got",{"name":"root"}]]'
    assert not claimed  # nor is it mistaken for what the server says of a token


@pytest.mark.parametrize(
    "name", ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener", "#publish"]
)
async def test_a_reserved_name_raises_where_it_is_emitted(worker: RunningWorker, probe: Probe, name: str) -> None:
    websocket = await client(worker)
    socket = await probe.sockets.get()
    server = worker.worker.ws_server
    socket.join("lobby")
    for emitter in (socket, socket.volatile, socket.session, socket.broadcast, server, server.to("lobby")):
        with pytest.raises(ReservedEventError, match=name):
            emitter.emit(name, 1)
    with pytest.raises(ReservedEventError, match=name):
        await socket.call(name)
    assert await ask(websocket, '421["message-with-ack",1]') == "431[1]"


@pytest.mark.parametrize(
    "sent",
    [
        ['43["no id"]'],
        ['43999["nobody asked"]'],
        ["43" + "9" * 30 + "[]"],
        ["431"],
        ["42"],
        ["427"],
        [f"461-[{SLOT % 0}]", b"x"],
        ['461-1["without a place"]', b"x"],
        ["41/custom,", "41/custom,", '42/custom,["message"]', "43/custom,1[]"],
        ["40"],
        ['42/nowhere,["message"]', "41/nowhere,"],
    ],
)
async def test_what_is_for_nobody_changes_nothing(worker: RunningWorker, probe: Probe, sent: list[str | bytes]) -> None:
    websocket = await client(worker)
    assert await ask(websocket, *sent, '421["message-with-ack",1]') == "431[1]"


async def test_a_text_event_s_placeholder_is_plain_data(worker: RunningWorker, probe: Probe) -> None:
    websocket = await client(worker)
    for data in ('{"_placeholder":true}', SLOT % 0, SLOT % 99):
        assert await ask(websocket, f'421["message-with-ack",{data}]') == f"431[{data}]"


async def test_what_looks_like_a_placeholder_does_not_travel_beside_attachments(
    worker: RunningWorker, probe: Probe
) -> None:
    websocket = await client(worker)
    (await probe.sockets.get()).on("both", lambda data: (data, b"bytes"))
    assert '"InternalServerError"' in await ask(websocket, f'421["both",{SLOT % 99}]')


async def test_a_namespace_s_name_has_its_query(worker: RunningWorker, probe: Probe) -> None:
    websocket = await client(worker)
    assert await ask(websocket, "40/custom?x=1,") == '44/custom?x=1,{"message":"Invalid namespace"}'


async def test_a_client_acknowledges_the_server_s_call(worker: RunningWorker, probe: Probe) -> None:
    websocket = await client(worker)
    socket = await probe.sockets.get()

    async def call(*answer: str | bytes, args: tuple[Any, ...] = (1,)) -> Any:
        calling = asyncio.create_task(socket.call("question", *args, timeout=30))
        asked = await websocket.next_text()
        number = asked[asked.index("2") + 1 : asked.index("[")]
        await websocket.send(*(frame(one.replace("ID", number) if isinstance(one, str) else one) for one in answer))
        return await calling

    assert await call('43ID["yes"]') == "yes"
    assert await call("43ID[]") is None
    assert await call("43ID[1,2]") == [1, 2]
    assert await call(f"461-ID[{SLOT % 0}]", b"\1\2") == b"\1\2"
    assert await call("4399[5]", '43ID["an unknown id is no harm"]') == "an unknown id is no harm"


async def test_the_server_s_call_may_carry_attachments(worker: RunningWorker, probe: Probe) -> None:
    websocket = await client(worker)
    socket = await probe.sockets.get()
    calling = asyncio.create_task(socket.call("question", b"\1"))
    assert await websocket.next_text() == f'451-0["question",{SLOT % 0}]'
    assert bytes((await websocket.next()).data) == b"\1"
    await websocket.send_text("430[true]")
    assert await calling is True


async def test_the_server_s_call_ends_in_time_or_with_its_client(worker: RunningWorker, probe: Probe) -> None:
    websocket = await client(worker)
    socket = await probe.sockets.get()
    with pytest.raises(CallTimeoutError):
        await socket.call("question", timeout=0.01)
    assert await websocket.next_text() == '420["question"]'
    assert await ask(websocket, '430["late"]', '421["nothing"]') == "431[]"
    calling = asyncio.create_task(socket.call("question"))
    assert await websocket.next_text() == '421["question"]'
    await websocket.end()
    with pytest.raises(SocketClosedError):
        await calling
    await probe.ends.get()


# Over polling, and the document's sample session.


async def test_the_sample_session_from_polling_to_websocket(worker: RunningWorker, probe: Probe) -> None:
    polling = await worker.engine("/socket.io/?EIO=4&transport=")
    await polling.post("40")
    (connected,) = [packet for packet in await polling.poll() if packet.startswith("40")]
    socket = await probe.sockets.get()
    assert json.loads(connected[2:]) == {"sid": socket.id}
    socket.on("tellme", lambda: b"\1\2")
    await polling.post('42["message","hello"]', '42["message","world"]')
    got: list[str] = []
    while len(got) < 2:
        got += [packet for packet in await polling.poll() if "message-back" in packet]
    assert got == ['42["message-back","hello"]', '42["message-back","world"]']
    await polling.post('421["tellme"]')
    assert await polling.poll() == [f"461-1[{SLOT % 0}]", "bAQI="]
    websocket = await worker.websocket(f"{PATH}&sid={polling.sid}")
    assert await ask(websocket, "2probe") == "3probe"
    await websocket.send(frame("5"), frame("40/custom,"))
    assert (await websocket.next_text()).startswith('40/custom,{"sid":')
    assert await websocket.next_text() == '42/custom,["auth",{}]'
    assert await ask(websocket, '421["tellme"]') == f"461-1[{SLOT % 0}]"
    assert bytes((await websocket.next()).data) == b"\1\2"
    await websocket.send_text("1")
    assert (await websocket.next_close())[0] == 1000
    for _ in range(2):
        await probe.ends.get()


async def test_a_session_without_a_namespace_ends(start_worker: StartWorker, probe: Probe) -> None:
    worker = await start_worker(probe.run, handshake_timeout=1)
    websocket = await client(worker)
    await websocket.send_text("41")
    assert (await websocket.next_close())[0] == 4005
    await probe.ends.get()
    await until(lambda: len(worker.service._router._engines["/socket.io/"]) == 0)
