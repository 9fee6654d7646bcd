"""What is different for the browser client: events whose names it keeps for itself are not sent to it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.clients.raw import ENGINE, HANDSHAKE
from support.log import WrittenLog
from support.worker.running import Probe, RunningWorker, StartWorker

from socketcluster_worker.errors import ReservedEventError
from socketcluster_worker.protocols.socketcluster.browser import OWN_EVENTS

ORDINARY = sorted(OWN_EVENTS - {"connect", "disconnect"})  # which no protocol reserves


@pytest.mark.parametrize("interval", [0, 0.05])
@pytest.mark.parametrize("transport", ["polling", "websocket"])
async def test_an_event_of_the_client_s_own_name_is_kept_from_it(
    start_worker: StartWorker, probe: Probe, service_log: WrittenLog, transport: str, interval: float
) -> None:
    worker = await start_worker(probe.run, batch_interval=interval)
    got = await connected(worker, transport)
    socket = await probe.sockets.get()
    socket.emit("first")
    for name in ORDINARY:
        for _ in range(3):
            socket.emit(name, "x")
    worker.worker.ws_server.emit("upgrade", 1)
    worker.worker.ws_server.to(socket.id).emit("error", 1)
    socket.session.emit("gap", 1)
    socket.volatile.emit("kickOut", 1)
    with pytest.raises(ReservedEventError, match="'error' is an event of the browser client's own"):
        await socket.call("error", 1)
    socket.emit("last")
    assert [message["event"] for message in await got(2)] == ["first", "last"]
    assert socket.connected
    service_log.handler.settle()
    for name in ORDINARY:
        assert any("choose another name" in line and f"name={name}" in line for line in service_log.lines), name
    assert len([line for line in service_log.lines if "choose another name" in line]) < 3 * len(ORDINARY)


async def connected(worker: RunningWorker, transport: str) -> Any:
    """Connect as the browser client does; return what waits for so many messages."""
    if transport == "polling":
        client = await worker.engine()
        await client.handshake()

        async def poll(count: int) -> list[Any]:
            got: list[Any] = []
            while len(got) < count:
                got += messages("\x1e".join(await client.poll()))
            return got

        return poll
    websocket = await worker.websocket(ENGINE + "websocket")
    await websocket.next()
    await websocket.send_text("4" + HANDSHAKE)
    await websocket.next()

    async def read(count: int) -> list[Any]:
        got: list[Any] = []
        while len(got) < count:
            got += messages(await websocket.next_text())
        return got

    return read


def messages(payload: str) -> list[Any]:
    found: list[Any] = []
    for packet in payload.split("\x1e"):
        said = json.loads(packet[1:])
        found += said if isinstance(said, list) else [said]
    return found


async def test_others_are_sent_it(worker: RunningWorker, probe: Probe) -> None:
    raw = await worker.socket()
    browser = await connected(worker, "websocket")
    socketio = await worker.websocket("/socket.io/?EIO=4&transport=websocket")
    await socketio.next()
    await socketio.send_text("40")
    await socketio.next()
    for name in ORDINARY:
        worker.worker.ws_server.emit(name, 1)
    worker.worker.ws_server.emit("last", 1)
    assert [(await raw.next_json())["event"] for _ in ORDINARY] == ORDINARY
    assert [json.loads((await socketio.next_text())[2:])[0] for _ in ORDINARY] == ORDINARY
    assert [message["event"] for message in await browser(1)] == ["last"]
