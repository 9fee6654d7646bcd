"""What the Engine.IO protocol document (revision 4) asks of a server, on the endpoint that carries plain messages."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from support.clients.raw import Polling, RawWebSocket, frame, upgrade
from support.worker.running import Probe, RunningWorker, StartWorker, until
from websockets.frames import Opcode

from socketcluster_worker.api.worker import Worker
from socketcluster_worker.transport.engineio.engine import EngineSession

ENDPOINT = "/engine.io/?EIO=4&transport="


class Echo(Probe):
    """A controller that sends every message back."""

    def run(self, worker: Worker) -> None:
        super().run(worker)

        @worker.ws_server.on("connection")
        def connected(socket: Any) -> None:
            socket.on("message", socket.send)


@pytest.fixture
def probe() -> Any:
    with Echo() as made:
        yield made


def session(worker: RunningWorker, sid: str) -> EngineSession:
    return worker.service._router._engines["/engine.io/"]._sessions[sid]


async def websocket(worker: RunningWorker, sid: str = "") -> RawWebSocket:
    opened = await worker.websocket(ENDPOINT + "websocket" + (f"&sid={sid}" if sid else ""))
    if not sid:
        assert (await opened.next_text())[0] == "0"
    return opened


async def assert_closed(worker: RunningWorker, sid: str) -> None:
    """Open one more WebSocket for a session, and see it closed."""
    opened = await worker.websocket(f"{ENDPOINT}websocket&sid={sid}")
    assert (await opened.next_close())[0] == 1002


async def assert_gone(client: Polling) -> None:
    for method, body in (("GET", None), ("POST", b"4late")):
        status, text = await client.request(method, body)
        assert (status, json.loads(text)["code"]) == (400, 1)


# Handshake.


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_a_handshake_is_a_get_request(worker: RunningWorker, method: str) -> None:
    client = await worker.connect()
    answer = await client.request(method, ENDPOINT + "polling")
    assert (answer.status_code, json.loads(answer.body)["code"]) == (400, 2)


@pytest.mark.parametrize(
    "query", ["?EIO=4", "?EIO=4&transport=abc", "?transport=websocket", "?EIO=abc&transport=websocket"]
)
async def test_a_websocket_without_a_mandatory_parameter_is_refused(worker: RunningWorker, query: str) -> None:
    client = await worker.connect()
    await client.send(upgrade("/engine.io/" + query))
    assert (await client.answer()).status_code == 400
    assert await client.closed() == b""


@pytest.mark.parametrize("query", ["", "?EIO=4", "?transport=polling", "?EIO=abc&transport=polling"])
async def test_a_polling_request_without_a_mandatory_parameter_is_refused(worker: RunningWorker, query: str) -> None:
    client = await worker.connect()
    assert (await client.request("GET", "/engine.io/" + query)).status_code == 400


async def test_the_open_packet_has_the_five_keys(worker: RunningWorker, probe: Probe) -> None:
    client = await worker.engine(ENDPOINT)
    assert set(client.opening) == {"sid", "upgrades", "pingInterval", "pingTimeout", "maxPayload"}
    opened = await worker.websocket(ENDPOINT + "websocket")
    opening = json.loads((await opened.next_text())[1:])
    assert (client.opening["upgrades"], opening["upgrades"]) == (["websocket"], [])
    assert opening["sid"] != client.sid


async def test_answers_are_no_jsonp(worker: RunningWorker, probe: Probe) -> None:
    client = await worker.connect()
    answer = await client.request("GET", ENDPOINT + "polling&j=0")
    assert bytes(answer.body or b"")[:2] == b"0{"
    assert answer.headers["content-type"] == "text/plain; charset=UTF-8"


# Sending and receiving.


async def test_a_post_is_answered_with_ok(worker: RunningWorker, probe: Probe) -> None:
    client = await worker.engine(ENDPOINT)
    assert await client.request("POST", b"4hello") == (200, "ok")
    assert await client.poll() == ["4hello"]


@pytest.mark.parametrize("payload", ["4hello", "4test1\x1e4test2\x1e4test3", "4hello\x1ebAQIDBA==", "4€\x1e4\x1f"])
async def test_a_payload_carries_text_and_base64_both_ways(worker: RunningWorker, probe: Probe, payload: str) -> None:
    client = await worker.engine(ENDPOINT)
    await client.post(*payload.split("\x1e"))
    packets: list[str] = []
    while len(packets) < len(payload.split("\x1e")):
        packets += await client.poll()
    assert "\x1e".join(packets) == payload


async def test_a_websocket_carries_text_and_binary_as_they_are(worker: RunningWorker, probe: Probe) -> None:
    opened = await websocket(worker)
    await opened.send(frame("4hello"), frame(b"\1\2\3\4"), frame("bAQIDBA=="))
    got = [await opened.next() for _ in range(3)]
    assert [(one.opcode, bytes(one.data)) for one in got] == [
        (Opcode.TEXT, b"4hello"),
        (Opcode.BINARY, b"\1\2\3\4"),
        (Opcode.BINARY, b"\1\2\3\4"),
    ]


async def test_each_packet_has_a_websocket_frame_of_its_own(worker: RunningWorker, probe: Probe) -> None:
    opened = await websocket(worker)
    socket = await probe.sockets.get()
    for number in range(3):
        socket.send(str(number))
    got = [await opened.next() for _ in range(3)]
    assert [(bytes(one.data), one.fin) for one in got] == [(b"40", True), (b"41", True), (b"42", True)]


async def test_a_second_post_at_a_time_ends_the_session(worker: RunningWorker, probe: Probe) -> None:
    client = await worker.engine(ENDPOINT)
    engine = session(worker, client.sid)
    first = await worker.connect()
    await first.send(f"POST {client.target} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n4on".encode())
    await until(lambda: engine._posting)
    status, body = await client.request("POST", b"4two")
    assert (status, json.loads(body)["code"]) == (400, 3)
    assert (await probe.ends.get())[1] == 1002
    await first.send(b"e")
    answer = await first.answer()
    assert (answer.status_code, json.loads(answer.body)["code"]) == (400, 1)
    await assert_gone(client)


async def test_posts_may_follow_each_other(worker: RunningWorker, probe: Probe) -> None:
    client = await worker.engine(ENDPOINT)
    for number in range(3):
        await client.post(f"4{number}")
    got: list[str] = []
    while len(got) < 3:
        got += await client.poll()
    assert got == ["40", "41", "42"]


async def test_a_second_poll_at_a_time_ends_the_session(worker: RunningWorker, probe: Probe) -> None:
    client = await worker.engine(ENDPOINT)
    engine = session(worker, client.sid)
    first = await client.start_poll()
    await until(lambda: engine._poll is not None)
    assert (await client.request("GET"))[0] == 400
    answer = await first.answer()
    assert (answer.status_code, answer.body) == (200, b"1")
    assert (await probe.ends.get())[1] == 1002
    await assert_gone(client)


@pytest.mark.parametrize("body", [b"abc", b"2"])
async def test_what_breaks_the_protocol_ends_a_polling_session(
    worker: RunningWorker, probe: Probe, body: bytes
) -> None:
    client = await worker.engine(ENDPOINT)
    await client.request("POST", body)
    assert (await probe.ends.get())[1] == 1002
    await assert_gone(client)


async def test_packets_that_mean_nothing_here_are_ignored(worker: RunningWorker) -> None:
    client = await worker.engine(ENDPOINT)
    assert (await client.request("POST", b"0{}\x1e5\x1e6\x1e4by polling"))[0] == 200
    assert await client.poll() == ["4by polling"]
    opened = await websocket(worker)
    for text in ("0", "5", "6", "4by WebSocket"):
        await opened.send_text(text)
    assert await opened.next_text() == "4by WebSocket"


async def test_what_breaks_the_protocol_ends_a_websocket_session(worker: RunningWorker, probe: Probe) -> None:
    opened = await websocket(worker)
    await opened.send_text("abc")
    assert (await opened.next_close())[0] == 1002
    assert (await probe.ends.get())[1] == 1002


async def test_a_message_is_no_longer_than_max_payload(start_worker: StartWorker, probe: Probe) -> None:
    worker = await start_worker(probe.run, max_http_buffer_size=1000)
    opened = await websocket(worker)
    await opened.send_text("4" + "x" * 999)
    assert await opened.next_text() == "4" + "x" * 999
    await opened.send_text("4" + "x" * 1000)
    assert (await opened.next_close())[0] == 1009
    client = await worker.engine(ENDPOINT)
    assert client.opening["maxPayload"] == 1000
    assert (await client.request("POST", b"4" + b"x" * 1000))[0] == 413
    await client.post("4short")  # the session goes on
    assert await client.poll() == ["4short"]
    await probe.ends.get()


# Heartbeat.


async def test_the_server_pings_and_a_pong_keeps_the_session(start_worker: StartWorker, probe: Probe) -> None:
    worker = await start_worker(probe.run, heartbeat_interval=0.05, heartbeat_timeout=5)
    opened = await websocket(worker)
    client = await worker.engine(ENDPOINT)
    for _ in range(3):
        assert await opened.next_text() == "2"
        await opened.send_text("3")
        assert await client.poll() == ["2"]
        await client.post("3")
    assert probe.ends.empty()


async def test_a_polling_session_whose_ping_is_not_answered_is_gone(start_worker: StartWorker, probe: Probe) -> None:
    worker = await start_worker(probe.run, heartbeat_interval=0.05, heartbeat_timeout=0.05)
    client = await worker.engine(ENDPOINT)
    assert (await probe.ends.get())[1] == 4001
    await assert_gone(client)


# Upgrade.


async def test_a_probe_is_answered_and_the_pending_poll_gets_noop(worker: RunningWorker, probe: Probe) -> None:
    client = await worker.engine(ENDPOINT)
    engine = session(worker, client.sid)
    pending = await client.start_poll()
    await until(lambda: engine._poll is not None)
    opened = await websocket(worker, client.sid)
    await opened.send_text("2probe")
    assert await opened.next_text() == "3probe"
    assert (await pending.answer()).body == b"6"
    assert await client.poll() == ["6"]  # a poll that was on its way
    await opened.send(frame("5"), frame("4hello"))
    assert await opened.next_text() == "4hello"


@pytest.mark.parametrize("probes", [True, False])
async def test_after_the_upgrade_requests_with_that_sid_are_refused_and_change_nothing(
    worker: RunningWorker, probe: Probe, probes: bool
) -> None:
    client = await worker.engine(ENDPOINT)
    opened = await websocket(worker, client.sid)
    if probes:
        await opened.send_text("2probe")
        assert await opened.next_text() == "3probe"
    await opened.send(frame("5"), frame("4first"))
    assert await opened.next_text() == "4first"
    assert (await client.request("GET"))[0] == 400
    assert (await client.request("POST", b"4x"))[0] == 400
    await assert_closed(worker, client.sid)
    await opened.send_text("4hello")
    assert await opened.next_text() == "4hello"


async def test_a_session_has_one_websocket(worker: RunningWorker, probe: Probe) -> None:
    first = await worker.websocket(ENDPOINT + "websocket")
    sid = json.loads((await first.next_text())[1:])["sid"]
    await assert_closed(worker, sid)
    await first.send_text("4hello")
    assert await first.next_text() == "4hello"


# Closing, in each state.


async def test_the_pending_poll_of_a_client_that_closes_is_answered_with_noop(
    worker: RunningWorker, probe: Probe
) -> None:
    client = await worker.engine(ENDPOINT)
    engine = session(worker, client.sid)
    pending = await client.start_poll()
    await until(lambda: engine._poll is not None)
    await client.post("1")
    assert (await pending.answer()).body == b"6"
    assert (await probe.ends.get())[1] == 1000
    await assert_gone(client)


async def test_a_client_that_closes_its_websocket_session_is_closed(worker: RunningWorker, probe: Probe) -> None:
    opened = await websocket(worker)
    await opened.send_text("1")
    assert (await opened.next_close())[0] == 1000
    assert (await probe.ends.get())[1] == 1000


async def test_a_session_that_the_server_closes_tells_the_next_poll_and_takes_no_more(
    worker: RunningWorker, probe: Probe
) -> None:
    client = await worker.engine(ENDPOINT)
    (await probe.sockets.get()).disconnect(4321, "enough")
    assert (await probe.ends.get())[1] == 4321
    assert (await client.request("POST", b"4late"))[0] == 400
    assert await client.poll() == ["1"]
    await assert_gone(client)


async def test_a_session_that_ends_while_a_post_is_read_refuses_it(worker: RunningWorker, probe: Probe) -> None:
    client = await worker.engine(ENDPOINT)
    engine = session(worker, client.sid)
    raw = await worker.connect()
    await raw.send(f"POST {client.target} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n4la".encode())
    await until(lambda: engine._posting)
    (await probe.sockets.get()).disconnect()
    await probe.ends.get()
    await raw.send(b"te")
    assert (await raw.answer()).status_code == 400


async def test_the_message_event_carries_text_and_bytes(worker: RunningWorker, probe: Probe) -> None:
    opened = await websocket(worker)
    socket = await probe.sockets.get()
    got: asyncio.Queue[Any] = asyncio.Queue()
    socket.off("message")
    socket.on("message", got.put_nowait)
    await opened.send(frame("4text"), frame("4"), frame(b"bytes"))
    assert [await got.get() for _ in range(3)] == ["text", "", b"bytes"]
