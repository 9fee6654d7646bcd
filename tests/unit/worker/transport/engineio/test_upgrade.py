"""The end of a connection on its way from polling to WebSocket: what waits, and why it ended, reaches its client."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from support.clients.raw import ENGINE, HANDSHAKE, Polling, RawWebSocket, event
from support.worker.running import Probe, RunningWorker, StartWorker, until

from socketcluster_worker.api.worker import Worker
from socketcluster_worker.errors import EventError
from socketcluster_worker.transport.engineio.engine import EngineSession
from socketcluster_worker.transport.engineio.polling import EngineServer

LAST_POLL = "socketcluster_worker.transport.engineio.engine.LAST_POLL"
SOCKETIO = "/socket.io/?EIO=4&transport="
PLAIN = "/engine.io/?EIO=4&transport="
CODE = 4321
REASON = "enough"
WORDS = {"event": "#disconnect", "data": {"code": CODE, "reason": REASON}}
GOING_AWAY = (1001, "the connection has ended")


def server(worker: RunningWorker, endpoint: str = ENGINE) -> EngineServer:
    return worker.service._router._engines[endpoint.partition("?")[0]]


class Upgrading:
    """A polling client with a WebSocket that may take over."""

    def __init__(self, worker: RunningWorker, polling: Polling, websocket: RawWebSocket) -> None:
        self.worker = worker
        self.polling = polling
        self.websocket = websocket
        self.sessions = server(worker, polling._endpoint)
        self.session: EngineSession = self.sessions._sessions[polling.sid]

    async def probe(self) -> None:
        """Have the probe answered."""
        await self.websocket.send_text("2probe")
        assert await self.websocket.next_text() == "3probe"

    async def gone(self) -> None:
        """See that nothing is kept."""
        await until(lambda: len(self.sessions) == 0)
        assert self.session._probe_timer is None or self.session._probe_timer.cancelled()
        assert (await self.polling.request("GET"))[0] == 400


async def beside(worker: RunningWorker, polling: Polling) -> RawWebSocket:
    """Open a WebSocket beside the polling."""
    return await worker.websocket(f"{polling._endpoint}websocket&sid={polling.sid}")


@pytest.fixture
async def client(worker: RunningWorker) -> Upgrading:
    """One that has made SocketCluster's handshake, and whose WebSocket is open."""
    polling = await worker.engine()
    await polling.handshake()
    return Upgrading(worker, polling, await beside(worker, polling))


async def end(probe: Probe) -> None:
    """Send something, and end the connection."""
    socket = await probe.sockets.get()
    socket.emit("last", 1)
    socket.disconnect(CODE, REASON)
    assert (await probe.ends.get())[1:] == (CODE, REASON)


def texts(packets: list[str]) -> list[Any]:
    """Return what the packets of a poll say, the closing one as it is."""
    return [json.loads(packet[1:]) if packet[0] == "4" else packet for packet in packets]


LAST = {"event": "last", "data": 1}


async def test_before_the_probe_a_waiting_poll_tells(client: Upgrading, probe: Probe) -> None:
    waiting = await client.polling.start_poll()
    await until(lambda: client.session._poll is not None)
    await end(probe)
    assert await client.websocket.next_close() == GOING_AWAY  # its client polls on
    told = bytes((await waiting.answer()).body or b"").decode().split("\x1e")
    if told[-1] != "1":
        told += await client.polling.poll()
    assert texts(told) == [LAST, WORDS, "1"]
    await client.gone()


async def test_before_the_probe_the_next_poll_tells(client: Upgrading, probe: Probe) -> None:
    await end(probe)
    assert await client.websocket.next_close() == GOING_AWAY
    assert texts(await client.polling.poll()) == [LAST, WORDS, "1"]
    await client.gone()


async def test_a_client_whose_last_poll_was_released_is_told_by_its_websocket(client: Upgrading, probe: Probe) -> None:
    waiting = await client.polling.start_poll()
    await until(lambda: client.session._poll is not None)
    await client.probe()
    assert (await waiting.answer()).body == b"6"
    await end(probe)
    await client.websocket.send_text("5")
    assert texts([await client.websocket.next_text()]) == [LAST]  # no words beside the close frame
    assert await client.websocket.next_close() == (CODE, REASON)
    await client.gone()


async def test_a_client_without_a_poll_is_told_by_its_websocket(client: Upgrading, probe: Probe) -> None:
    await client.probe()
    await end(probe)
    await client.websocket.send_text("5")
    assert texts([await client.websocket.next_text()]) == [LAST]
    assert await client.websocket.next_close() == (CODE, REASON)
    await client.gone()


async def test_a_client_that_polls_once_more_is_told_by_that(client: Upgrading, probe: Probe) -> None:
    await client.probe()
    await end(probe)
    assert texts(await client.polling.poll()) == [LAST, WORDS, "1"]
    assert await client.websocket.next_close() == GOING_AWAY
    await client.gone()


async def test_what_fills_several_polls_may_come_by_both(client: Upgrading, probe: Probe) -> None:
    await client.probe()
    socket = await probe.sockets.get()
    for number in range(3):
        socket.emit("long", str(number) * 200_000)
    socket.disconnect(CODE, REASON)
    await probe.ends.get()
    assert [one["data"][0] for one in texts(await client.polling.poll())] == ["0"]
    await client.websocket.send_text("5")
    for number in range(1, 3):
        text = b""
        while not text.endswith(b"}"):
            text += bytes((await client.websocket.next()).data)
        assert text.endswith(b'%d"}' % number)
    assert await client.websocket.next_close() == (CODE, REASON)
    await client.gone()


async def test_going_over_and_the_end_cross_each_other(client: Upgrading, probe: Probe) -> None:
    await client.probe()
    await client.websocket.send_text("5")
    await until(lambda: client.session.websocket is not None)
    await end(probe)
    assert texts([await client.websocket.next_text()]) == [LAST]
    assert await client.websocket.next_close() == (CODE, REASON)
    await client.gone()


async def test_a_websocket_that_dies_leaves_it_to_the_next_poll(client: Upgrading, probe: Probe) -> None:
    await client.probe()
    await end(probe)
    client.websocket.client.abort()
    await until(lambda: client.session._probing is None)
    assert texts(await client.polling.poll()) == [LAST, WORDS, "1"]
    await client.gone()


@pytest.mark.parametrize("sent", ["4message", "2"])
async def test_a_websocket_that_breaks_the_protocol_leaves_it_to_the_next_poll(
    client: Upgrading, probe: Probe, sent: str
) -> None:
    await client.probe()
    await end(probe)
    await client.websocket.send_text(sent)
    assert (await client.websocket.next_close())[0] == 1002
    assert texts(await client.polling.poll()) == [LAST, WORDS, "1"]
    await client.gone()


async def test_a_second_websocket_is_closed_and_takes_nothing(client: Upgrading, probe: Probe) -> None:
    await client.probe()
    await end(probe)
    second = await beside(client.worker, client.polling)
    assert (await second.next_close())[0] == 1002
    client.websocket.client.abort()
    await until(lambda: client.session._probing is None)
    late = await beside(client.worker, client.polling)
    assert (await late.next_close())[0] == 1002
    assert texts(await client.polling.poll()) == [LAST, WORDS, "1"]
    await client.gone()


async def test_a_client_that_comes_by_neither_is_forgotten(
    client: Upgrading, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LAST_POLL, 0.05)
    await client.probe()
    await end(probe)
    assert await client.websocket.next_close() == GOING_AWAY
    await client.gone()


async def test_who_breaks_the_protocol_is_told_too(client: Upgrading, probe: Probe) -> None:
    await client.probe()
    assert (await client.polling.request("POST", b"x"))[0] == 400
    await client.websocket.send_text("5")
    assert (await client.websocket.next_close())[0] == 1002
    assert (await probe.ends.get())[1] == 1002
    await client.gone()


async def test_too_much_for_who_does_not_go_over_is_told(start_worker: StartWorker, probe: Probe) -> None:
    worker = await start_worker(probe.run, max_buffered_bytes=10_000)
    polling = await worker.engine()
    await polling.handshake()
    client = Upgrading(worker, polling, await beside(worker, polling))
    await client.probe()
    socket = await probe.sockets.get()
    for _ in range(200):
        socket.emit("")
    assert (await probe.ends.get())[1] == 4008
    await client.websocket.send_text("5")
    assert (await client.websocket.next_close())[0] == 4008
    await client.gone()


async def test_packets_that_are_sent_while_it_ends_are_not_read(client: Upgrading, probe: Probe) -> None:
    await client.probe()
    await end(probe)
    await client.websocket.send_text("5")
    await client.websocket.send_text("4" + event("note", "late"))
    assert texts([await client.websocket.next_text()]) == [LAST]
    assert await client.websocket.next_close() == (CODE, REASON)
    assert probe.events.empty()


@pytest.mark.parametrize("interval", [0, 0.05])
async def test_a_refused_handshake(start_worker: StartWorker, interval: float) -> None:
    """Its answer and the end, while the WebSocket is probed."""
    asked, decided = asyncio.Event(), asyncio.Event()

    def run(worker: Worker) -> None:
        @worker.ws_server.use("handshake")
        async def refuse(_action: Any) -> None:
            asked.set()
            await decided.wait()
            raise EventError("not for you", close_code=4500, data={"hint": "say please"})

    worker = await start_worker(run, batch_interval=interval)
    polling = await worker.engine()
    await polling.post("4" + HANDSHAKE)
    await asked.wait()
    client = Upgrading(worker, polling, await beside(worker, polling))
    await client.probe()
    decided.set()
    await until(lambda: client.session.closed)
    await client.websocket.send_text("5")
    (answer,) = texts([await client.websocket.next_text()])
    assert (answer["rid"], answer["error"]["message"]) == (1, "not for you")
    assert (await client.websocket.next_close())[0] == 4500
    await client.gone()


@pytest.mark.parametrize("by_websocket", [True, False])
async def test_socket_io(worker: RunningWorker, probe: Probe, by_websocket: bool) -> None:
    """Its own DISCONNECT goes either way, the close packet by polling alone."""
    polling = await worker.engine(SOCKETIO)
    await polling.post("40")
    assert (await polling.poll())[0].startswith("40{")
    client = Upgrading(worker, polling, await beside(worker, polling))
    await client.probe()
    socket = await probe.sockets.get()
    socket.emit("last", 1)
    socket.disconnect()
    await probe.ends.get()
    client.session.close(CODE, REASON)
    if by_websocket:
        await client.websocket.send_text("5")
        assert [await client.websocket.next_text() for _ in range(2)] == ['42["last",1]', "41"]
        assert await client.websocket.next_close() == (CODE, REASON)
    else:
        assert await client.polling.poll() == ['42["last",1]', "41", "1"]
        assert await client.websocket.next_close() == GOING_AWAY
    await client.gone()


@pytest.mark.parametrize("by_websocket", [True, False])
async def test_plain_messages(worker: RunningWorker, probe: Probe, by_websocket: bool) -> None:
    polling = await worker.engine(PLAIN)
    client = Upgrading(worker, polling, await beside(worker, polling))
    await client.probe()
    socket = await probe.sockets.get()
    socket.send("last")
    socket.send(b"bytes")
    socket.disconnect(CODE, REASON)
    await probe.ends.get()
    if by_websocket:
        await client.websocket.send_text("5")
        assert bytes((await client.websocket.next()).data) == b"4last"
        assert bytes((await client.websocket.next()).data) == b"bytes"
        assert await client.websocket.next_close() == (CODE, REASON)
    else:
        assert await client.polling.poll() == ["4last", "bYnl0ZXM=", "1"]
        assert await client.websocket.next_close() == GOING_AWAY
    await client.gone()


async def test_a_numbered_client_reads_it_again_by_polling(worker: RunningWorker, probe: Probe) -> None:
    polling = Polling(worker.connect, ENGINE.replace("EIO=4", "EIO=4&seq=0"))
    await polling.open()
    polling._endpoint = ENGINE
    ask = polling.target
    raw = await worker.connect()
    assert (await raw.request("POST", ask + "&seq=1", b"4" + HANDSHAKE.encode())).status_code == 200
    assert (await raw.request("GET", ask + "&seq=1")).status_code == 200
    client = Upgrading(worker, polling, await beside(worker, polling))
    await client.probe()
    await end(probe)
    for _ in range(2):
        answer = await raw.request("GET", ask + "&seq=2")
        assert texts(bytes(answer.body or b"").decode().split("\x1e")) == [LAST, WORDS, "1"]
    assert await client.websocket.next_close() == GOING_AWAY


async def test_a_numbered_client_has_proof_that_its_websocket_brings_something(
    worker: RunningWorker, probe: Probe
) -> None:
    polling = Polling(worker.connect, ENGINE.replace("EIO=4", "EIO=4&seq=0"))
    await polling.open()
    polling._endpoint = ENGINE
    raw = await worker.connect()
    assert (await raw.request("POST", polling.target + "&seq=1", b"4" + HANDSHAKE.encode())).status_code == 200
    client = Upgrading(worker, polling, await beside(worker, polling))
    await client.probe()
    await client.websocket.send_text("5")
    assert bytes((await client.websocket.next()).data) == b"6"


async def test_who_polls_on_after_the_probe_waits_for_its_answer(
    client: Upgrading, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.probe()
    assert await client.polling.poll() == ["6"]  # a moment later
    monkeypatch.setattr("socketcluster_worker.transport.engineio.engine.RELEASE_PAUSE", 3600.0)
    polling = asyncio.create_task(client.polling.poll())
    await until(lambda: client.session._poll is not None)
    (await probe.sockets.get()).emit("one", 1)
    assert texts(await polling) == [{"event": "one", "data": 1}]
