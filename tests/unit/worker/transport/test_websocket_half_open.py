"""Clients that vanish without a word: their heartbeats stay away, and their connections end."""

from __future__ import annotations

from support.worker.running import Probe, StartWorker

from socketcluster_wire.close_codes import CloseCode


async def test_a_silent_socketcluster_client_is_disconnected(start_worker: StartWorker, probe: Probe) -> None:
    worker = await start_worker(probe.run, heartbeat_interval=0.1, heartbeat_timeout=0.1)
    await worker.socket()  # and from now on it neither reads nor answers
    socket, code, _ = await probe.ends.get()
    assert code == CloseCode.PING_TIMEOUT
    assert not socket.connected


async def test_a_silent_engine_io_client_is_disconnected(start_worker: StartWorker, probe: Probe) -> None:
    worker = await start_worker(probe.run, heartbeat_interval=0.1, heartbeat_timeout=0.1)
    websocket = await worker.websocket("/engine.io/?EIO=4&transport=websocket")
    assert (await websocket.next_text()).startswith("0")
    _, code, _ = await probe.ends.get()
    assert code == CloseCode.PING_TIMEOUT


async def test_a_client_that_stopped_reading_before_it_vanished_is_disconnected_too(
    start_worker: StartWorker, probe: Probe
) -> None:
    worker = await start_worker(
        probe.run, heartbeat_interval=0.1, heartbeat_timeout=0.1, slow_consumer="drop_oldest", max_buffered_bytes=50_000
    )
    await worker.socket()
    socket = await probe.sockets.get()
    socket.emit("much", "x" * 900_000)
    for _ in range(100):
        socket.emit("more", "x" * 100_000)
    _, code, _ = await probe.ends.get()
    assert code == CloseCode.PING_TIMEOUT
