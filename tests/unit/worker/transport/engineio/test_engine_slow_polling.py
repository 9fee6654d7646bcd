"""What waits for a client that polls slowly, by policy: the option, a channel's own, and what is never dropped."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.worker.running import Probe, StartWorker

from socketcluster_store_client.messages import Position
from socketcluster_worker.connection import Outgoing, SlowConsumer
from socketcluster_worker.transport.engineio.engine import EngineSession
from socketcluster_worker.transport.engineio.options import EngineOptions


class Ends:
    """A receiver that notes how its connection ended."""

    def __init__(self) -> None:
        self.codes: list[int] = []

    def on_message(self, message: str | bytes) -> None:
        raise AssertionError(message)

    def on_close(self, code: int, reason: str) -> None:
        self.codes.append(code)


def session(policy: SlowConsumer) -> tuple[EngineSession, Ends]:
    made = EngineSession("sid", EngineOptions(25, 20, 100_000, 1000, policy), lambda _: None)
    made.receiver = ends = Ends()
    return made, ends


async def polled(made: EngineSession) -> list[str | bytes]:
    future = made.poll()
    assert future is not None
    return [packet.data for packet in await future]


async def test_disconnect_is_the_end_of_a_client_that_does_not_poll() -> None:
    made, ends = session("disconnect")
    for number in range(20):
        made.send_text(b"%d" % number)
    assert ends.codes == [4008]
    assert await polled(made) == [""]  # the close packet


async def test_drop_oldest_keeps_the_newest() -> None:
    made, ends = session("drop_oldest")
    for number in range(20):
        made.send_text(b"%d" % number)
    got = await polled(made)
    assert ends.codes == []
    assert got == [str(number) for number in range(20 - len(got), 20)]
    assert 0 < len(got) < 20
    made.close(1000)


async def test_latest_only_keeps_the_newest_of_each_channel() -> None:
    made, ends = session("disconnect")
    for number in range(20):
        for channel in ("a", "b"):
            made.send_outgoing(Outgoing(f"{channel}{number}".encode()), "latest_only", channel)
    assert await polled(made) == ["a19", "b19"]
    assert ends.codes == []
    made.close(1000)


async def test_what_may_not_be_dropped_is_not() -> None:
    made, ends = session("drop_oldest")
    made.send_text(b"answer", "disconnect")
    for number in range(20):
        made.send_text(b"%d" % number)
    assert (await polled(made))[0] == "answer"
    assert ends.codes == []
    made.close(1000)


async def test_a_channel_s_policy(start_worker: StartWorker, probe: Probe) -> None:
    worker = await start_worker(probe.run)
    exchange = worker.service._ws_server.exchange
    exchange.slow_consumer("stocks.*", "latest_only")
    exchange.slow_consumer("*", "drop_oldest")
    assert [exchange.policy_of(name) for name in ("stocks.x", "news")] == ["latest_only", "drop_oldest"]
    with pytest.raises(ValueError, match="no policy 'drop_newest', only disconnect, drop_oldest, latest_only"):
        exchange.slow_consumer("*", "drop_newest")  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", ["drop_oldest", "latest_only"])
async def test_a_slow_client_is_kept_and_its_answers_with_it(
    start_worker: StartWorker, probe: Probe, policy: SlowConsumer
) -> None:
    worker = await start_worker(probe.run, max_buffered_bytes=100_000)
    worker.service._ws_server.exchange.slow_consumer("news", policy)
    websocket = await worker.socket()
    socket = await probe.sockets.get()
    await websocket.send_text(json.dumps({"event": "#subscribe", "data": {"channel": "news"}, "cid": 2}))
    assert (await websocket.next_json())["rid"] == 2
    websocket.client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    for number in range(1500):
        worker.service._ws_server.exchange.deliver("news", b"\xda\x27\x10" + b"x" * 10_000, Position(1, number))
    await websocket.send_text(json.dumps({"event": "echo", "data": "still here", "cid": 3}))
    websocket.client.writer.transport.resume_reading()  # type: ignore[attr-defined]
    seen: list[Any] = []
    while not seen or "rid" not in seen[-1]:
        seen.append(await websocket.next_json())
    assert seen[-1]["rid"] == 3
    assert len(seen) < 1500
    assert socket.connected
