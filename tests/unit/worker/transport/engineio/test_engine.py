"""Engine.IO by long-polling, by WebSocket, and on the way from the one to the other."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from support.clients.raw import ENGINE, HANDSHAKE, Polling, event, frame, upgrade
from support.worker.running import Probe, RunningWorker, StartWorker, until

from socketcluster_wire.close_codes import CloseCode
from socketcluster_worker.api.worker import Worker
from socketcluster_worker.transport.engineio.engine import EngineSession
from socketcluster_worker.transport.engineio.polling import EngineServer

PATH = "/socketcluster/engine/"
COUNT = 300


def server(worker: RunningWorker) -> EngineServer:
    return worker.service._router._engines[PATH]


def session(worker: RunningWorker, sid: str) -> EngineSession:
    return server(worker)._sessions[sid]


@pytest.mark.parametrize(
    ("method", "query", "code"),
    [
        ("GET", "", 0),
        ("GET", "?EIO=4&transport=pigeon", 0),
        ("GET", "?EIO=4&transport=polling&sid=unknown", 1),
        ("POST", "?EIO=4&transport=polling&sid=unknown", 1),
        ("POST", "?EIO=4&transport=polling", 2),
        ("GET", "?EIO=4&transport=websocket", 3),
        ("GET", "?transport=polling", 5),
        ("GET", "?EIO=3&transport=polling", 5),
    ],
)
async def test_errors_are_told_as_json(worker: RunningWorker, method: str, query: str, code: int) -> None:
    client = await worker.connect()
    answer = await client.request(method, PATH + query)
    assert answer.status_code == 400
    told = json.loads(answer.body)
    assert told["code"] == code
    assert told["message"]
    assert len(server(worker)) == 0


@pytest.mark.parametrize("query", ["?EIO=4&transport=websocket&sid=unknown", "?EIO=3&transport=websocket", "?EIO=4"])
async def test_a_websocket_is_told_the_same_errors(worker: RunningWorker, query: str) -> None:
    client = await worker.connect()
    await client.send(upgrade(PATH + query))
    answer = await client.answer()
    assert answer.status_code == 400
    assert json.loads(answer.body)["code"] == {"?EIO=4&": 1, "?EIO=3&": 5, "?EIO=4": 0}[query[:7]]


async def test_the_opening_tells_times_and_sizes(start_worker: StartWorker) -> None:
    worker = await start_worker(heartbeat_interval=2.5, heartbeat_timeout=1.5, max_http_buffer_size=12345)
    client = await worker.engine()
    assert client.opening == {
        "sid": client.sid,
        "upgrades": ["websocket"],
        "pingInterval": 2500,
        "pingTimeout": 1500,
        "maxPayload": 12345,
    }
    assert client.sid.startswith(worker.worker.id)
    websocket = await worker.websocket(ENGINE + "websocket")
    opening = json.loads((await websocket.next_text())[1:])
    assert opening["upgrades"] == []


async def test_packets_are_joined(worker: RunningWorker, probe: Probe) -> None:
    client = await worker.engine()
    await client.handshake()
    socket = await probe.sockets.get()
    socket.emit("one", 1)
    socket.emit("two", 2)
    assert [json.loads(packet[1:])["event"] for packet in await client.poll()] == ["one", "two"]
    await client.post("4" + event("note", 1), "6", "4" + event("note", 2))
    assert [await probe.events.get() for _ in range(2)] == [1, 2]
    await client.post("1")
    assert (await probe.ends.get())[1] == 1000


async def test_two_polls_at_a_time_end_the_connection(worker: RunningWorker, probe: Probe) -> None:
    client = await worker.engine()
    await client.handshake()
    first = await client.start_poll()
    await until(lambda: session(worker, client.sid)._poll is not None)
    status, body = await client.request("GET")
    assert (status, json.loads(body)["code"]) == (400, 3)
    assert (await first.answer()).body.endswith(b"1")
    assert (await probe.ends.get())[1] == 1002
    assert len(server(worker)) == 0


@pytest.mark.parametrize("body", [b"", b"x", b"6\x1e", b"b!", b"4\xff"])
async def test_a_malformed_body_ends_the_connection(worker: RunningWorker, probe: Probe, body: bytes) -> None:
    client = await worker.engine()
    await client.handshake()
    assert (await client.request("POST", body))[0] == 400
    assert (await probe.ends.get())[1] == 1002


async def test_a_body_over_the_limit_is_refused(start_worker: StartWorker) -> None:
    worker = await start_worker(max_http_buffer_size=1000)
    client = await worker.engine()
    assert (await client.request("POST", b"4" * 1001))[0] == 413
    raw = await worker.connect()
    await raw.send(f"POST {client.target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    await raw.send(b"1f4\r\n%s\r\n" % (b"4" * 500) * 3)
    assert (await raw.answer()).status_code == 413
    await raw.closed()


@pytest.mark.parametrize("reset", [False, True])
async def test_a_poll_that_is_broken_off_ends_the_connection(worker: RunningWorker, probe: Probe, reset: bool) -> None:
    client = await worker.engine()
    await client.handshake()
    engine = session(worker, client.sid)
    raw = await client.start_poll()
    await until(lambda: engine._poll is not None)
    if reset:
        raw.abort()
    else:
        raw.close()
    assert (await probe.ends.get())[1:] == (1006, "the client broke off a request")
    assert (await client.request("GET"))[0] == 400
    assert len(server(worker)) == 0


async def test_a_post_that_is_broken_off_ends_the_connection(worker: RunningWorker, probe: Probe) -> None:
    client = await worker.engine()
    await client.handshake()
    raw = await worker.connect()
    body = ("4" + event("note", "whole")).encode()
    head = f"POST {client.target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body) + 1}\r\n\r\n"
    await raw.send(head.encode() + body)
    await until(lambda: session(worker, client.sid)._posting)
    raw.abort()
    assert (await probe.ends.get())[1:] == (1006, "the client broke off a request")
    assert (await client.request("POST", body))[0] == 400
    assert probe.events.empty()


@pytest.mark.parametrize("framing", ["Content-Length: 900000", "Transfer-Encoding: chunked"])
async def test_a_body_that_has_not_come_ends_with_its_connection(
    worker: RunningWorker, probe: Probe, framing: str
) -> None:
    client = await worker.engine()
    await client.handshake()
    engine = session(worker, client.sid)
    raw = await worker.connect()
    begun = b"4" * 100 if "Length" in framing else b"64\r\n" + b"4" * 100 + b"\r\n"
    await raw.send(f"POST {client.target} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n".encode() + begun)
    await until(lambda: engine.cut_off is not None)
    (await probe.sockets.get()).disconnect()
    answer = await raw.answer()
    assert (answer.status_code, json.loads(answer.body)["code"]) == (400, 1)
    assert answer.headers["connection"] == "close"
    await raw.closed()
    assert engine.cut_off is None
    await probe.ends.get()


async def test_a_poll_that_is_broken_off_after_the_upgrade_changes_nothing(worker: RunningWorker) -> None:
    opened = await worker.engine()
    engine = session(worker, opened.sid)
    websocket = await worker.websocket(f"{ENGINE}websocket&sid={opened.sid}")
    await websocket.send_text("2probe")
    assert await websocket.next_text() == "3probe"
    await websocket.send_text("5")
    await until(lambda: engine.websocket is not None)
    engine.break_off()
    assert not engine.closed


async def test_a_connection_may_end_while_a_poll_waits(worker: RunningWorker, probe: Probe) -> None:
    client = await worker.engine()
    await client.handshake()
    raw = await client.start_poll()
    engine = session(worker, client.sid)
    await until(lambda: engine._poll is not None)
    (await probe.sockets.get()).disconnect(4321, "enough")
    packets = (await raw.answer()).body.decode().split("\x1e")
    assert json.loads(packets[0][1:]) == {"event": "#disconnect", "data": {"code": 4321, "reason": "enough"}}
    assert (await probe.ends.get())[1:] == (4321, "enough")
    # Whatever was not in that poll is told to the next one, and then the connection is unknown.
    rest = packets[1:] or await client.poll()
    assert rest == ["1"]
    assert (await client.request("GET"))[0] == 400
    assert len(server(worker)) == 0


async def test_the_end_between_two_polls_is_told_to_the_next_or_forgotten(
    worker: RunningWorker, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socketcluster_worker.transport.engineio.engine.LAST_POLL", 0.02)
    client = await worker.engine()
    await client.handshake()
    (await probe.sockets.get()).disconnect()
    await probe.ends.get()
    await until(lambda: len(server(worker)) == 0)


async def test_a_client_that_does_not_poll_is_disconnected_and_costs_little(
    start_worker: StartWorker, probe: Probe
) -> None:
    worker = await start_worker(probe.run, max_buffered_bytes=10_000)
    client = await worker.engine()
    await client.handshake()
    socket = await probe.sockets.get()
    for _ in range(200):
        socket.emit("")  # small messages cost more than their data
    assert (await probe.ends.get())[1] == CloseCode.TOO_SLOW
    words, closing = await client.poll()
    assert json.loads(words[1:])["data"]["code"] == CloseCode.TOO_SLOW
    assert closing == "1"


@pytest.mark.parametrize("transport", ["polling", "websocket"])
async def test_a_client_that_answers_no_ping_is_disconnected(
    start_worker: StartWorker, probe: Probe, transport: str
) -> None:
    worker = await start_worker(probe.run, heartbeat_interval=0.5, heartbeat_timeout=1)
    if transport == "polling":
        client = await worker.engine()
        await client.handshake()
        for _ in range(2):
            assert await client.poll() == ["2"]
            await client.post("3")
        assert await client.poll() == ["2"]
        assert (await client.poll())[-1] == "1"
    else:
        websocket = await worker.websocket(ENGINE + "websocket")
        await websocket.next()
        await websocket.send_text("4" + HANDSHAKE)
        await websocket.next()
        for _ in range(2):
            assert await websocket.next_text() == "2"
            await websocket.send_text("3")
        assert await websocket.next_text() == "2"
        assert (await websocket.next_close())[0] == 4001
    assert (await probe.ends.get())[1] == 4001
    assert len(server(worker)) == 0


@pytest.mark.parametrize("polls", [True, False])
async def test_a_polling_client_without_a_handshake_is_not_kept(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch, polls: bool
) -> None:
    if not polls:
        monkeypatch.setattr("socketcluster_worker.transport.engineio.engine.LAST_POLL", 0.02)
    worker = await start_worker(handshake_timeout=0.05)
    client = await worker.engine()
    if polls:
        assert '"code":4005' in (await client.poll())[0]
    await until(lambda: len(server(worker)) == 0)


@pytest.mark.parametrize("endpoint", [ENGINE, "/socket.io/?EIO=4&transport="])
@pytest.mark.parametrize(("transport", "limit"), [("polling", 6), ("websocket", 3)])
async def test_a_handshake_by_polling_may_take_twice_as_long(
    start_worker: StartWorker, endpoint: str, transport: str, limit: float
) -> None:
    worker = await start_worker(handshake_timeout=3)
    before = asyncio.get_running_loop().time()
    if transport == "polling":
        sid = (await worker.engine(endpoint)).sid
    else:
        sid = json.loads((await (await worker.websocket(endpoint + "websocket")).next_text())[1:])["sid"]
    receiver: Any = worker.service._router._engines[endpoint.partition("?")[0]]._sessions[sid].receiver
    (when,) = [when for when, those in receiver._deadlines._sets.items() if those is receiver.deadline]
    assert before + limit <= when < before + limit + 3


async def upgrade_of(worker: RunningWorker, client: Polling) -> Any:
    websocket = await worker.websocket(f"{ENGINE}websocket&sid={client.sid}")
    await websocket.send_text("2probe")
    assert await websocket.next_text() == "3probe"
    return websocket


async def test_an_upgrade_loses_doubles_and_reorders_nothing(start_worker: StartWorker, probe: Probe) -> None:
    sent = asyncio.Event()

    def run(worker: Worker) -> None:
        probe.run(worker)

        @worker.ws_server.on("connection")
        async def connected(socket: Any) -> None:
            for number in range(COUNT):
                socket.emit("number", number)
                await asyncio.sleep(0.001)
            sent.set()

    worker = await start_worker(run)
    client = await worker.engine()
    await client.post("4" + HANDSHAKE)
    got: list[str] = []
    posted = 0

    async def post() -> None:
        nonlocal posted
        await client.post(*("4" + event("note", number) for number in range(posted, posted + 10)))
        posted += 10

    async def poll() -> None:
        got.extend(packet for packet in await client.poll() if packet != "6")

    for _ in range(5):
        await asyncio.gather(poll(), post())
    waiting = asyncio.create_task(poll())
    websocket = await upgrade_of(worker, client)
    await post()
    await waiting  # the server lets the last poll return
    await websocket.send_text("5")
    for number in range(posted, COUNT):
        await websocket.send_text("4" + event("note", number))
    await sent.wait()
    while not got or json.loads(got[-1][1:]).get("data") != COUNT - 1:
        packet = await websocket.next_text()
        if packet != "6":
            got.append(packet)
    numbers = [json.loads(packet[1:]) for packet in got if packet[0] == "4"]
    assert [message["data"] for message in numbers if message.get("event") == "number"] == list(range(COUNT))
    assert [await probe.events.get() for _ in range(COUNT)] == list(range(COUNT))
    assert (await client.request("GET"))[0] == 400  # polling is over
    await websocket.send_text("1")
    assert (await websocket.next_close())[0] == 1000
    assert (await probe.ends.get())[1] == 1000
    assert len(server(worker)) == 0


async def test_polling_goes_on_if_the_upgrade_does_not_come(worker: RunningWorker, probe: Probe) -> None:
    client = await worker.engine()
    await client.handshake()
    websocket = await upgrade_of(worker, client)
    second = await worker.websocket(f"{ENGINE}websocket&sid={client.sid}")
    assert (await second.next_close())[0] == 1002
    assert await client.poll() == ["6"]
    websocket.client.abort()
    socket = await probe.sockets.get()
    engine = session(worker, client.sid)
    await until(lambda: engine._probing is None)
    socket.emit("still here")
    assert "still here" in (await client.poll())[0]
    again = await upgrade_of(worker, client)
    await again.send_text("5")
    await again.send_text("1")
    assert (await again.next_close())[0] == 1000
    assert (await probe.ends.get())[1] == 1000


async def test_a_websocket_that_never_asks_is_closed_and_delays_no_poll(
    worker: RunningWorker, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socketcluster_worker.transport.engineio.engine.PROBE_TIMEOUT", 0.1)
    client = await worker.engine()
    await client.handshake()
    websocket = await worker.websocket(f"{ENGINE}websocket&sid={client.sid}")
    raw = await client.start_poll()
    engine = session(worker, client.sid)
    await until(lambda: engine._poll is not None)
    assert (await websocket.next_close())[0] == 1008
    assert engine._poll is not None  # it still waits
    (await probe.sockets.get()).emit("late")
    assert b"late" in (await raw.answer()).body
    await client.post("1")
    await probe.ends.get()


@pytest.mark.parametrize("sent", ["4message", "x", "2", "5"])
async def test_a_probe_that_breaks_the_protocol_is_closed(worker: RunningWorker, probe: Probe, sent: str) -> None:
    client = await worker.engine()
    await client.handshake()
    websocket = await worker.websocket(f"{ENGINE}websocket&sid={client.sid}")
    await websocket.send_text(sent)
    if sent == "5":  # without asking first: allowed, the client takes the risk
        await websocket.send_text("1")
        assert (await websocket.next_close())[0] == 1000
    else:
        assert (await websocket.next_close())[0] == 1002
        await client.post("1")
    assert (await probe.ends.get())[1] == 1000


async def test_a_probe_ends_with_its_connection(worker: RunningWorker, probe: Probe) -> None:
    client = await worker.engine()
    await client.handshake()
    websocket = await upgrade_of(worker, client)
    await client.post("1")
    assert (await websocket.next_close())[0] == 1001
    await probe.ends.get()


@pytest.mark.parametrize("sent", [frame("x"), frame(""), frame("2probe"), frame("2")])
async def test_what_engine_io_does_not_know_ends_a_websocket(worker: RunningWorker, sent: bytes) -> None:
    websocket = await worker.websocket(ENGINE + "websocket")
    await websocket.next()
    await websocket.send(sent)
    assert (await websocket.next_close())[0] == 1002
    assert len(server(worker)) == 0
