"""Emits to many, on two workers: rooms, with and without the sender, by socket id, in every namespace and protocol."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from support.clients.raw import RawWebSocket
from support.worker.running import Probe, RunningWorker, StartWorker, until

from socketcluster_worker.api.worker import Worker
from socketcluster_worker.errors import NotSerializableError

PATH = "/socket.io/?EIO=4&transport=websocket"


async def socketio(worker: RunningWorker, probe: Probe) -> tuple[RawWebSocket, Any]:
    websocket = await worker.websocket(PATH)
    await websocket.next()
    await websocket.send_text("40")
    await websocket.next()
    return websocket, await probe.sockets.get()


class Two:
    """Two workers with a Socket.IO client each."""

    def __init__(self, workers: list[RunningWorker], pairs: list[tuple[RawWebSocket, Any]]) -> None:
        self.servers = [worker.worker.ws_server for worker in workers]
        self.workers = workers
        self.clients = [client for client, _ in pairs]
        self.sockets = [socket for _, socket in pairs]

    async def join(self, client: int, *rooms: str) -> None:
        """Have a client's socket join rooms, and wait until the other worker knows."""
        self.sockets[client].join(*rooms)
        other = self.servers[1 - client]
        await until(lambda: all(other._mesh.find("/", [room]) for room in rooms))

    async def heard(self, worker: int = 0) -> list[list[str]]:
        """Return the events that each client got of those that a worker has sent."""
        self.servers[worker].emit("end")
        heard: list[list[str]] = []
        for client in self.clients:
            events: list[str] = []
            while not events or events[-1] != "end":
                events.append(json.loads((await client.next_text())[2:])[0])
            heard.append(events[:-1])
        return heard


@pytest.fixture
async def two(start_worker: StartWorker, probe: Probe) -> Two:
    workers = [await start_worker(probe.run) for _ in range(2)]
    return Two(workers, [await socketio(worker, probe) for worker in workers])


async def test_an_emit_of_the_server_reaches_every_socket_on_every_worker(two: Two) -> None:
    for worker in range(2):
        two.servers[worker].emit("all")
        assert await two.heard(worker) == [["all"], ["all"]]


async def test_an_emit_to_a_room_reaches_its_members_on_every_worker_once(two: Two) -> None:
    one, _other = two.sockets
    await two.join(0, "a", "b")
    await two.join(1, "b")
    server = two.servers[0]
    server.to("a").emit("to a")
    server.to("a", "b").emit("to a or b")
    server.to(["a", "b"]).except_("a").emit("to b without a")
    server.except_("a").emit("to all without a")
    server.to("nobody").emit("to nobody")
    assert await two.heard() == [["to a", "to a or b"], ["to a or b", "to b without a", "to all without a"]]
    one.leave("a")
    server.to("a").emit("to a")
    assert await two.heard() == [[], []]


async def test_a_socket_s_broadcast_leaves_the_socket_out(two: Two) -> None:
    one, _other = two.sockets
    await two.join(0, "a")
    await two.join(1, "a")
    one.broadcast.emit("else")
    one.to("a").emit("else in a")
    one.broadcast.except_("a").emit("else without a")
    two.servers[0].to("a").emit("all in a")
    assert await two.heard() == [["all in a"], ["else", "else in a", "all in a"]]


async def test_a_socket_is_reached_by_its_id_from_every_worker(two: Two) -> None:
    one, other = two.sockets
    two.servers[0].to(other.id).emit("other")
    two.servers[0].to(one.id).emit("one")
    assert await two.heard() == [["one"], ["other"]]


async def test_binary_data_reach_the_other_worker(two: Two) -> None:
    two.servers[0].emit("bytes", {"a": b"\1\2"})
    for client in two.clients:
        assert await client.next_text() == '451-["bytes",{"a":{"_placeholder":true,"num":0}}]'
        assert bytes((await client.next()).data) == b"\1\2"


async def test_namespaces_do_not_hear_each_other(start_worker: StartWorker, probe: Probe) -> None:
    def run(worker: Worker) -> None:
        probe.run(worker)
        worker.ws_server.of("/custom")

    workers = [await start_worker(run) for _ in range(2)]
    client, _ = await socketio(workers[1], probe)
    await client.send_text("40/custom,")
    assert (await client.next_text()).startswith("40/custom,")
    server = workers[0].worker.ws_server
    server.of("/custom").emit("custom")
    assert await client.next_text() == '42/custom,["custom"]'
    server.emit("main")
    assert await client.next_text() == '42["main"]'


async def test_what_goes_by_the_store_is_in_one_order_for_all_namespaces(
    start_worker: StartWorker, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each worker numbers what it sends to another one; what came in another order would be taken for old."""

    def run(worker: Worker) -> None:
        probe.run(worker)
        worker.ws_server.of("/custom")

    workers = [await start_worker(run) for _ in range(2)]
    client, _ = await socketio(workers[1], probe)
    await client.send_text("40/custom,")
    assert (await client.next_text()).startswith("40/custom,")
    server = workers[0].worker.ws_server
    publish, channels = server.exchange.publish_inside, []

    def noted(channel: str, packed: bytes) -> Any:
        channels.append(channel)
        return publish(channel, packed)

    monkeypatch.setattr(server.exchange, "publish_inside", noted)
    there = server._mesh.neighbours[workers[1].worker.id]
    monkeypatch.setattr(there, "stream", None)
    monkeypatch.setattr(there, "by_store", True)
    for _ in range(3):
        server.of("/custom").emit("custom")
        server.emit("main")
        assert await client.next_text() == '42/custom,["custom"]'
        assert await client.next_text() == '42["main"]'
    assert channels == 6 * ["\0namespace\0/"]


async def test_an_emit_reaches_clients_of_every_protocol(start_worker: StartWorker, probe: Probe) -> None:
    worker = await start_worker(probe.run)
    plain = await worker.websocket("/engine.io/?EIO=4&transport=websocket")
    await plain.next()
    raw = await worker.socket()
    client, _ = await socketio(worker, probe)
    worker.worker.ws_server.emit("message", "hello")
    assert await client.next_text() == '42["message","hello"]'
    assert await raw.next_json() == {"event": "message", "data": "hello"}
    assert await plain.next_text() == "4hello"


async def test_a_choice_of_no_rooms_reaches_nobody(two: Two) -> None:
    one, _other = two.sockets
    await two.join(1, "a")
    server = two.servers[0]
    server.to([]).emit("to no room")
    server.to().emit("to nothing")
    server.to(set()).volatile.except_("b").emit("to an empty set")
    one.to([]).emit("by a socket")
    one.broadcast.to(()).emit("by a socket's broadcast")
    server.to([]).to("a").emit("to a")
    server.except_([]).emit("to all but nobody")
    assert await two.heard() == [["to all but nobody"], ["to a", "to all but nobody"]]


async def test_who_cannot_be_sent_an_event_keeps_it_from_nobody_else(
    start_worker: StartWorker, probe: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    workers = [await start_worker(probe.run) for _ in range(2)]
    clients = []
    for worker in workers:
        for stranger in (True, False):  # so that somebody comes after each of those who cannot be sent it
            websocket = await worker.websocket("/engine.io/?EIO=4&transport=websocket") if stranger else None
            if websocket is not None:
                await websocket.next()
                await probe.sockets.get()
                clients.append((websocket, "4last"))
            else:
                client, _ = await socketio(worker, probe)
                clients.append((client, '42["message","last"]'))
    server = workers[0].worker.ws_server
    server.emit("message", {"a": 1})
    server.emit("message", "partly", {"a": 1})
    server.emit("message", "last")
    for websocket, last in clients:
        heard = [await websocket.next_text()]
        while heard[-1] != last:
            heard.append(await websocket.next_text())
        expected = ['42["message",{"a":1}]', '42["message","partly",{"a":1}]', last]
        assert heard == (expected if last.startswith("42") else [last])
    assert capsys.readouterr().out.count("clients could not be sent an event") <= 4


async def test_a_tab_that_cannot_be_sent_an_event_keeps_it_from_no_other(
    start_worker: StartWorker, probe: Probe
) -> None:
    worker = await start_worker(probe.run)
    plain = await worker.websocket("/engine.io/?EIO=4&transport=websocket")
    await plain.next()
    cookie = plain.response.headers["set-cookie"].partition(";")[0]
    tab = await worker.websocket(PATH, Cookie=cookie)
    await tab.next()
    await tab.send_text("40")
    await tab.next()
    socket = await probe.sockets.get()
    assert len(socket.session.sockets) == 2
    socket.session.emit("message", {"a": 1})
    assert await tab.next_text() == '42["message",{"a":1}]'
    with pytest.raises(NotSerializableError):  # who is meant alone is told
        socket.session.sockets[0].emit("message", {"a": 1})


async def test_integers_of_more_than_64_bits_and_deep_values_reach_every_worker(two: Two) -> None:
    huge, deep = 10**20, json.loads("[" * 127 + "]" * 127)
    two.servers[0].emit("all", huge, {"n": [-huge]}, deep)
    for client in two.clients:
        assert json.loads((await client.next_text())[2:]) == ["all", huge, {"n": [-huge]}, deep]
    with pytest.raises(NotSerializableError, match="nested deeper"):
        two.servers[0].emit("all", [[[[[[deep]]]]]])
    assert await two.heard() == [[], []]


async def test_a_session_s_emit_carries_integers_of_more_than_64_bits(two: Two) -> None:
    session = two.sockets[0].session
    await two.workers[1].worker.ws_server.sessions.get(session.id).set("k", 10**20)
    assert await session.get("k") == 10**20
    session.emit("mine", 10**20)
    assert json.loads((await two.clients[0].next_text())[2:]) == ["mine", 10**20]


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("text",),
        (1, [2, {"three": None}]),
        ({"é": 1.5},),
        (2**70,),
        ({1: "one"},),
        (float("nan"),),
        ("x" * 300, ["["] * 200),
    ],
)
async def test_arguments_are_the_same_for_clients_of_all_workers(two: Two, args: tuple[Any, ...]) -> None:
    two.servers[0].emit("news", *args)
    near, far = [await client.next_text() for client in two.clients]
    assert near == far
    assert near == "42" + msgspec.json.encode(["news", *args]).decode()


async def test_bytes_are_attachments_on_all_workers(two: Two) -> None:
    two.servers[0].emit("news", {"file": b"\x00\xff"})
    for client in two.clients:
        assert await client.next_text() == '451-["news",{"file":{"_placeholder":true,"num":0}}]'
        assert (await client.next()).data == b"\x00\xff"


async def test_what_is_nested_too_deeply_is_refused_where_it_is_sent(two: Two) -> None:
    deep: Any = "x" * 300
    for _ in range(200):
        deep = [deep]
    with pytest.raises(NotSerializableError):
        two.servers[0].emit("news", deep)


async def test_what_is_too_long_for_a_store_as_json_only_reaches_every_worker(two: Two) -> None:
    two.servers[0].emit("flags", [True] * 400_000)
    for client in two.clients:
        assert len(await client.next_text()) == len('42["flags",[]]') + len("true,") * 400_000 - 1


async def test_a_socketcluster_client_of_another_worker_gets_one_several_or_no_arguments(
    start_worker: StartWorker, probe: Probe
) -> None:
    near, far = [await start_worker(probe.run) for _ in range(2)]
    client = await far.websocket()
    await client.call("#handshake", {"authToken": None}, 0)
    await probe.sockets.get()
    for args, data in (((), ""), (({"a": 1},), ',"data":{"a":1}'), ((1, "b"), ',"data":[1,"b"]')):
        near.worker.ws_server.emit("news", *args)
        assert await client.next_text() == f'{{"event":"news"{data}}}'
