"""WebSocket connections: the opening handshake, frames, limits, and every way to end."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Sequence
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from support.clients.raw import ENGINE, HANDSHAKE, RawWebSocket, event, frame, upgrade
from support.worker.running import Probe, RunningWorker, StartWorker, until
from websockets.frames import Opcode

from socketcluster_wire.close_codes import CloseCode
from socketcluster_worker.api.worker import Worker
from socketcluster_worker.connection import Handshake


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec_WebSocket_Version": "8"}, 426),
        ({"Sec_WebSocket_Version": ""}, 400),
        ({"Sec_WebSocket_Key": ""}, 400),
        ({"Sec_WebSocket_Key": "short"}, 400),
    ],
)
@pytest.mark.parametrize("path", ["/socketcluster/", "/socketcluster/engine/?EIO=4&transport=websocket"])
async def test_a_malformed_handshake_is_refused_and_leaves_nothing_behind(
    start_worker: StartWorker, caplog: pytest.LogCaptureFixture, path: str, headers: dict[str, str], status: int
) -> None:
    worker = await start_worker(heartbeat_interval=0.02, heartbeat_timeout=0.02, handshake_timeout=0.02)
    client = await worker.connect()
    await client.send(upgrade(path, **headers))
    assert (await client.answer()).status_code in (status, 400)
    await client.closed()
    await asyncio.sleep(0.1)  # whatever timers there are would have fired
    assert not caplog.records


async def test_an_ordinary_request_is_told_what_the_path_is_for(worker: RunningWorker) -> None:
    client = await worker.connect()
    answer = await client.request("GET", "/socketcluster/")
    assert answer.status_code == 426
    assert answer.headers["upgrade"] == "websocket"


async def test_an_unknown_path_is_refused(worker: RunningWorker) -> None:
    client = await worker.connect()
    await client.send(upgrade("/elsewhere"))
    assert (await client.answer()).status_code == 403


async def test_a_mounted_app_s_own_websocket_works_even_if_frames_come_with_its_handshake(
    start_worker: StartWorker,
) -> None:
    app = FastAPI()

    @app.websocket("/app/echo")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(f"{websocket.session.id[:8]} {await websocket.receive_text()}")  # type: ignore[attr-defined]
        await websocket.close(4321, "done")

    worker = await start_worker(lambda worker: worker.http_server.mount(app))
    client = await worker.connect()
    await client.send(upgrade("/app/echo") + frame("hello"))
    assert (await client.answer()).status_code == 101
    websocket = RawWebSocket(client, None)  # type: ignore[arg-type]
    assert await websocket.next_text() == f"{worker.worker.id} hello"
    closing = await websocket.next()
    assert bytes(closing.data) == (4321).to_bytes(2) + b"done"


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\xf1\x80\x00\x00\x00\x00", 1002),  # reserved bits
        (b"\x81\x02hi", 1002),  # no mask
        (b"\x83\x80\x00\x00\x00\x00", 1002),  # unknown opcode
        (frame(b"\xff\xfe", Opcode.TEXT), 1007),
        (frame("x" * 1001), 1009),
        (frame("x" * 600, fin=False) + frame(b"x" * 600, Opcode.CONT), 1009),
        (frame(b"binary"), 1007),  # no JSON
        (frame("{"), 1007),
        (frame("[1]"), 1007),
        (frame("[" * 900), 1007),
        (frame('{"neither":1}'), 1007),
        (frame(event("hello")), 4009),
        (frame(event("hello", None, 1)), 4009),
        (frame(b"\x03\xe8bye", Opcode.CLOSE), 1000),
        (frame(b"\x0f\xa1", Opcode.CLOSE), 4001),
        (frame(b"\x03\xed", Opcode.CLOSE), 1002),  # 1005 may not be sent
        (frame(b"\x03", Opcode.CLOSE), 1002),
    ],
)
async def test_what_may_not_be_sent_ends_the_connection_with_a_telling_code(
    start_worker: StartWorker, sent: bytes, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    worker = await start_worker(max_http_buffer_size=1000)
    websocket = await worker.websocket()
    await websocket.send(sent)
    assert (await websocket.next_close())[0] == code
    await until(lambda: not worker.service._router.open_websockets)
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_close_without_a_code_is_answered_without_one(worker: RunningWorker, probe: Probe) -> None:
    websocket = await worker.socket()
    await websocket.send(frame(b"", Opcode.CLOSE))
    assert await websocket.next_close() == (0, "")
    assert (await probe.ends.get())[1] == 1005


async def test_both_sides_learn_code_and_reason(worker: RunningWorker, probe: Probe) -> None:
    websocket = await worker.socket()
    await websocket.send(frame((4711).to_bytes(2) + "geht nicht ü".encode(), Opcode.CLOSE))
    await websocket.next_close()
    socket, code, reason = await probe.ends.get()
    assert (code, reason) == (4711, "geht nicht ü")
    assert not socket.connected
    websocket = await worker.socket()
    (await probe.sockets.get()).disconnect()
    await probe.sockets.get()
    for socket in tuple(worker.worker.ws_server.sockets):
        socket.disconnect(4712, "enough")
    got = await websocket.next()
    assert bytes(got.data) == (4712).to_bytes(2) + b"enough"
    assert (await probe.ends.get())[1:] == (4712, "enough")  # at once, not when the client answers
    await websocket.send(frame(event("note", "too late")), frame(bytes(got.data), Opcode.CLOSE))
    assert await websocket.client.closed() == b""
    assert probe.events.empty()


async def test_pings_are_answered_in_their_order(worker: RunningWorker, probe: Probe) -> None:
    websocket = await worker.socket()
    await websocket.send(frame(b"one", Opcode.PING), frame(b"", Opcode.PONG), frame(b"two", Opcode.PING))
    assert [bytes((await websocket.next()).data) for _ in range(2)] == [b"one", b"two"]
    await websocket.end()
    assert (await probe.ends.get())[1] == 1000


async def test_a_connection_that_breaks_ends_once_with_1006(worker: RunningWorker, probe: Probe) -> None:
    websocket = await worker.socket()
    websocket.client.abort()
    assert (await probe.ends.get())[1] == 1006
    websocket = await worker.socket()
    websocket.client.writer.write_eof()
    assert (await probe.ends.get())[1] == 1006
    await until(lambda: not worker.service._router.open_websockets)


async def flood(worker: RunningWorker, probe: Probe, send: Any) -> int:
    """Send much to a client that does not read, until it is disconnected; return the most memory that it took."""
    websocket = await worker.socket()
    websocket.client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    socket = await probe.sockets.get()
    tracemalloc.start()
    await send(websocket, socket)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (await probe.ends.get())[1] == CloseCode.TOO_SLOW
    return peak


async def test_a_client_that_does_not_read_is_disconnected(start_worker: StartWorker, probe: Probe) -> None:
    async def emit(_: Any, socket: Any) -> None:
        while probe.ends.empty():
            for _turn in range(10):
                socket.emit("data", "x" * 10_000)
            await asyncio.sleep(0)

    worker = await start_worker(probe.run, max_buffered_bytes=100_000)
    assert await flood(worker, probe, emit) < 2_000_000


async def test_a_client_that_pings_and_does_not_read_gets_only_the_newest_pongs(
    start_worker: StartWorker, probe: Probe
) -> None:
    """RFC 6455, section 5.5.3: of several pings only the most recent need be answered."""
    worker = await start_worker(probe.run, max_buffered_bytes=10_000)
    websocket = await worker.socket()
    writer = websocket.client.writer
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    socket = await probe.sockets.get()
    (open_websocket,) = worker.service._router.open_websockets
    while not open_websocket.dropped:
        writer.write(frame(b"x" * 125, Opcode.PING) * 2000)
        await writer.drain()
    assert socket.connected
    assert open_websocket._waiting is not None
    assert open_websocket._waiting.bytes < 10_000


async def test_a_client_that_closes_and_does_not_read_is_not_waited_for(
    start_worker: StartWorker, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socketcluster_worker.transport.websocket.CLOSE_TIMEOUT", 0.05)
    worker = await start_worker(probe.run, max_buffered_bytes=100_000_000)
    websocket = await worker.socket()
    websocket.client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    socket = await probe.sockets.get()
    socket.emit("data", "x" * 50_000_000)
    await websocket.send(frame(b"\x03\xe8", Opcode.CLOSE))
    assert (await probe.ends.get())[1] == 1000
    await until(lambda: not worker.service._router.open_websockets)


async def test_a_client_without_a_handshake_is_not_kept(start_worker: StartWorker) -> None:
    worker = await start_worker(handshake_timeout=0.02)
    websocket = await worker.websocket()
    assert (await websocket.next_close())[0] == 4005


async def test_pings_of_the_protocol_and_a_client_that_leaves_them_unanswered(
    start_worker: StartWorker, probe: Probe
) -> None:
    worker = await start_worker(probe.run, heartbeat_interval=0.05, heartbeat_timeout=0.95)
    websocket = await worker.socket()
    assert websocket.handshake["pingTimeout"] == 1000
    for _ in range(2):
        assert await websocket.next_text() == ""
        await websocket.send_text("")
    assert await websocket.next_text() == ""
    assert (await websocket.next_close())[0] == 4001
    assert (await probe.ends.get())[1] == 4001


async def test_a_worker_that_stops_says_so(worker: RunningWorker, probe: Probe) -> None:
    websocket = await worker.socket()
    silent = await worker.websocket()
    stopping = asyncio.create_task(worker.stop())
    for one in (websocket, silent):
        assert bytes((await one.next()).data)[:2] == (1012).to_bytes(2)
        await one.end()
    await stopping
    assert (await probe.ends.get())[1] == 1012


async def test_a_batch_ends_with_the_connection(start_worker: StartWorker) -> None:
    seen: list[Any] = []

    def run(worker: Worker) -> None:
        @worker.ws_server.on("connection")
        def connected(socket: Any) -> None:
            @socket.on("bye")  # type: ignore[untyped-decorator]
            def bye() -> None:
                socket.disconnect(4000, "bye")

            socket.on("seen", seen.append)

    worker = await start_worker(run)
    websocket = await worker.socket()
    await websocket.send_text(f"[{event('seen', 1)},{event('bye')},{event('seen', 2)}]")
    await websocket.next()
    assert seen == [1]


async def test_a_second_handshake_is_refused(worker: RunningWorker, probe: Probe) -> None:
    websocket = await worker.socket()
    await websocket.send_text(HANDSHAKE)
    assert (await websocket.next_json())["error"]["name"] == "InvalidActionError"
    await websocket.end()
    await probe.ends.get()


async def test_the_first_subprotocol_that_is_offered_is_chosen(worker: RunningWorker) -> None:
    for path in ("/socketcluster/", ENGINE + "websocket", "/socket.io/?EIO=4&transport=websocket"):
        websocket = await worker.websocket(path, Sec_WebSocket_Protocol="second-best, first")
        assert websocket.response.headers["sec-websocket-protocol"] == "second-best"
        assert "sec-websocket-protocol" not in (await worker.websocket(path)).response.headers


async def test_a_controller_chooses_the_subprotocol(start_worker: StartWorker) -> None:
    def run(worker: Worker) -> None:
        @worker.ws_server.choose_subprotocol
        def choose(handshake: Handshake, offered: Sequence[str]) -> str | None:
            if "none" in handshake.query:
                return None
            return offered[-1] if "wrong" not in offered else "another"

    worker = await start_worker(run)
    for path, offered, chosen in (
        ("/socketcluster/", "one, two", "two"),
        ("/socketcluster/?none", "one, two", None),
    ):
        websocket = await worker.websocket(path, Sec_WebSocket_Protocol=offered)
        assert websocket.response.headers.get("sec-websocket-protocol") == chosen
    client = await worker.connect()
    await client.send(upgrade(Sec_WebSocket_Protocol="one, wrong"))
    assert (await client.answer()).status_code == 500
    error, where = await worker.errors.get()
    assert "'another'" in str(error)
    assert "subprotocol" in where
