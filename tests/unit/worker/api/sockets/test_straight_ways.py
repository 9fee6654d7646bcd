"""What many get alike goes a straight way to those that had the like before: in order, and to each in its own form."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.clients.raw import RawWebSocket, frame
from support.worker.running import Probe, RunningWorker, StartWorker, until

from socketcluster_worker.api.worker import Worker

COUNT = 5


FORMS: dict[Callable[[RunningWorker], Awaitable[RawWebSocket]], str] = {
    RunningWorker.socket: '{"event":"message","data":"%s"}',
    RunningWorker.browser_socket: '4{"event":"message","data":"%s"}',
    RunningWorker.socketio: '42["message","%s"]',
    RunningWorker.engineio: "4%s",
}


async def test_every_kind_of_client_gets_every_broadcast_in_its_own_form(
    start_worker: StartWorker, probe: Probe
) -> None:
    worker = await start_worker(probe.run)
    polling = await worker.engine()
    await polling.handshake()
    clients = [(await connect(worker), form) for connect, form in FORMS.items() for _ in range(2)]
    for number in range(COUNT):
        worker.worker.ws_server.emit("message", str(number))
        for client, form in clients:
            assert await client.next_text() == form % number
        assert json.loads((await polling.poll())[0][1:]) == {"event": "message", "data": str(number)}


async def test_a_browser_s_own_event_is_kept_from_it_when_it_had_others_straight(
    start_worker: StartWorker, probe: Probe
) -> None:
    worker = await start_worker(probe.run)
    clients = [await worker.socket(), await worker.browser_socket(), await worker.browser_socket()]
    for name in ("first", "error", "error", "last"):
        worker.worker.ws_server.emit(name, 1)
    heard: list[list[str]] = [[] for _ in clients]
    for client, events in zip(clients, heard, strict=True):
        while "last" not in events:
            events.append(json.loads((await client.next_text()).removeprefix("4"))["event"])
    assert heard == [["first", "error", "error", "last"], ["first", "last"], ["first", "last"]]


async def test_each_namespace_of_a_connection_has_its_own_frames(start_worker: StartWorker, probe: Probe) -> None:
    def run(worker: Worker) -> None:
        probe.run(worker)
        worker.ws_server.of("/custom")

    worker = await start_worker(run)
    clients = [await worker.socketio() for _ in range(2)]
    for client in clients:
        await client.send_text("40/custom,")
        assert (await client.next_text()).startswith("40/custom,")
    server = worker.worker.ws_server
    for number in range(COUNT):
        server.emit("n", number)
        server.of("/custom").emit("n", number)
    for client in clients:
        for number in range(COUNT):
            assert await client.next_text() == f'42["n",{number}]'
            assert await client.next_text() == f'42/custom,["n",{number}]'


async def test_broadcasts_keep_their_place_among_what_is_for_one_client(
    start_worker: StartWorker, probe: Probe
) -> None:
    worker = await start_worker(probe.run)
    client, _other = await worker.socketio(), await worker.socketio()
    socket = await probe.sockets.get()
    server = worker.worker.ws_server
    for number in range(COUNT):
        server.emit("all", number)
        socket.emit("one", number)
        server.volatile.emit("volatile", number)
        server.emit("bytes", b"x")
        server.emit("all", number)
    for number in range(COUNT):
        assert await client.next_text() == f'42["all",{number}]'
        assert await client.next_text() == f'42["one",{number}]'
        assert await client.next_text() == f'42["volatile",{number}]'
        assert await client.next_text() == '451-["bytes",{"_placeholder":true,"num":0}]'
        assert bytes((await client.next()).data) == b"x"
        assert await client.next_text() == f'42["all",{number}]'


async def test_an_answer_comes_behind_the_broadcasts_that_its_handler_made(
    start_worker: StartWorker, probe: Probe
) -> None:
    def run(worker: Worker) -> None:
        probe.run(worker)

        @worker.ws_server.handler("say")
        def say(_socket: Any, text: str) -> str:
            worker.ws_server.emit("said", text)
            worker.ws_server.emit("said", text + "!")
            return "done"

    worker = await start_worker(run)
    client, other = await worker.socketio(), await worker.socketio()
    for number in range(COUNT):
        await client.send_text(f'42{number}["say","hi"]')
        assert [await client.next_text() for _ in range(3)] == [
            '42["said","hi"]',
            '42["said","hi!"]',
            f'43{number}["done"]',
        ]
        assert [await other.next_text() for _ in range(2)] == ['42["said","hi"]', '42["said","hi!"]']


@pytest.mark.parametrize("connect", [RunningWorker.socket, RunningWorker.browser_socket])
async def test_every_subscriber_gets_every_message_of_a_channel(
    start_worker: StartWorker, probe: Probe, connect: Callable[[RunningWorker], Awaitable[RawWebSocket]]
) -> None:
    worker = await start_worker(probe.run)
    clients = [await connect(worker), await connect(worker), await worker.socket()]
    for client in clients:
        prefix = "4" if client is not clients[2] and connect is RunningWorker.browser_socket else ""
        await client.send_text(prefix + '{"event":"#subscribe","data":{"channel":"news"},"cid":9}')
        assert json.loads((await client.next_text()).removeprefix("4"))["rid"] == 9
    for number in range(COUNT):
        await worker.worker.ws_server.exchange.publish("news", number)
    for client in clients:
        for number in range(COUNT):
            message = json.loads((await client.next_text()).removeprefix("4"))
            assert message == {"event": "#publish", "data": {"channel": "news", "data": number}}


async def test_a_client_that_has_left_the_namespace_gets_nothing_more_there(
    start_worker: StartWorker, probe: Probe
) -> None:
    def run(worker: Worker) -> None:
        probe.run(worker)
        worker.ws_server.of("/custom")

    worker = await start_worker(run)
    clients = [await worker.socketio() for _ in range(2)]
    server = worker.worker.ws_server
    server.emit("n", 0)
    await clients[0].send_text("40/custom,")
    for client in clients:
        assert await client.next_text() == '42["n",0]'
    assert (await clients[0].next_text()).startswith("40/custom,")
    await clients[0].send_text("41")
    assert (await probe.ends.get())[0].connected is False
    server.emit("n", 1)
    server.of("/custom").emit("n", 2)
    assert await clients[0].next_text() == '42/custom,["n",2]'
    assert await clients[1].next_text() == '42["n",1]'


async def test_nor_one_whose_end_is_told_behind_what_it_sent_before(start_worker: StartWorker, probe: Probe) -> None:
    going_on = asyncio.Event()

    def run(worker: Worker) -> None:
        probe.run(worker)
        worker.ws_server.of("/custom")

        @worker.ws_server.handler("wait")
        async def wait(_socket: Any) -> None:
            await going_on.wait()

    worker = await start_worker(run, serial=True)
    other, leaving = await worker.socketio(), await worker.socketio()  # who is first never goes the straight way
    _, socket = await probe.sockets.get(), await probe.sockets.get()
    server = worker.worker.ws_server
    await leaving.send_text("40/custom,")
    assert (await leaving.next_text()).startswith("40/custom,")
    for number in range(2):
        server.emit("n", number)
        for client in (other, leaving):
            assert await client.next_text() == f'42["n",{number}]'
    await leaving.send(frame('42["wait"]'), frame("41"))
    await until(lambda: not socket.connected)
    assert socket in server.sockets
    server.emit("n", 2)
    server.of("/custom").emit("n", 3)
    assert await leaving.next_text() == '42/custom,["n",3]'
    assert await other.next_text() == '42["n",2]'
    going_on.set()
    await probe.ends.get()
