"""Channels with and without a history as a controller and its clients see them, with a store that is killed between."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.clients.raw import RawWebSocket
from support.worker.running import RunningWorker, StartWorker, until

from socketcluster_store_client.channel_feed import Gap
from socketcluster_store_client.errors import LinkError, TooManyChannelsError
from socketcluster_store_client.messages import Position
from socketcluster_store_client.partitioning import PARTITION_COUNT
from socketcluster_worker.api.channels.channel import Message, Offset
from socketcluster_worker.api.channels.exchange import Exchange
from socketcluster_worker.api.position import MAX_NUMBER
from socketcluster_worker.api.sockets.action import Action
from socketcluster_worker.api.sockets.namespace import BUS
from socketcluster_worker.errors import EventError

SECRET = "a secret of the tests"


class StoreProcess:
    """A store that keeps the histories of channels whose names begin with ``kept``."""

    def __init__(self, folder: Path) -> None:
        self.address = f"unix:{folder}/store"
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "socketcluster_store",
            env={
                **os.environ,
                "SOCKETCLUSTER_LISTEN": self.address,
                "SOCKETCLUSTER_DATA_DIR": str(self._folder / "data"),
                "SOCKETCLUSTER_SECRET": SECRET,
                "SOCKETCLUSTER_CHANNEL_HISTORY": "kept*: 1000, 3600; kept-short*: 2, 3600",
                "SOCKETCLUSTER_MAX_HISTORY_CHANNELS": str(2 * PARTITION_COUNT),
                "LOG_LEVEL": "error",
            },
        )

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()


@pytest.fixture
async def store_process(folder: Path) -> AsyncIterator[StoreProcess]:
    process = StoreProcess(folder)
    await process.start()
    yield process
    await process.kill()


@pytest.fixture
def store(store_process: StoreProcess) -> str:
    return store_process.address


def exchange_of(worker: RunningWorker) -> Exchange:
    return worker.worker.ws_server.exchange


async def messages(websocket: RawWebSocket, count: int) -> list[tuple[Any, str | None]]:
    """Return data and offset of the next publications."""
    got = []
    for _ in range(count):
        message = await websocket.next_json()
        assert message["event"] == "#publish", message
        got.append((message["data"]["data"], message["data"].get("offset")))
    return got


# The controller's.


async def test_publishing_gives_the_offset(worker: RunningWorker) -> None:
    exchange = exchange_of(worker)
    first = await exchange.publish("kept", "a", id="1")
    assert (first, type(first)) == (1, Offset)
    assert await exchange.publish("kept", "b") == 2
    again = await exchange.publish("kept", "c", id="1")
    assert (again, again.epoch) == (first, first.epoch)
    exchange.publish("kept", "forgotten")  # nobody waits
    assert sorted(await asyncio.gather(exchange.publish("kept", 4), exchange.publish("kept", 5))) == [4, 5]


async def test_the_history(worker: RunningWorker) -> None:
    exchange = exchange_of(worker)
    offsets = [await exchange.publish("kept-short", number) for number in range(1, 6)]
    epoch = offsets[0].epoch
    newest = await exchange.history("kept-short")
    assert newest.messages == [Message(offsets[3], 4), Message(offsets[4], 5)]
    assert [message.offset.epoch for message in newest.messages] == [epoch, epoch]
    assert (newest.offset, newest.missing) == (5, range(0))
    for since in (offsets[0], 1, offsets[0].text):
        found = await exchange.history("kept-short", since=since)
        assert ([message.data for message in found.messages], found.missing) == ([4, 5], range(2, 4))
    found = await exchange.history("kept-short", since=offsets[2], limit=1)
    assert ([message.data for message in found.messages], found.missing) == ([4], range(0))
    found = await exchange.history("kept-short", since=Offset(3, epoch - 1))
    assert ([message.data for message in found.messages], found.missing) == ([4, 5], None)
    found = await exchange.history("other", since=0)
    assert (found.messages, found.offset, found.missing) == ([], 0, range(0))
    for malformed in ("x", "1", -1):
        with pytest.raises(EventError, match="offset"):
            await exchange.history("kept-short", since=malformed)
    with pytest.raises(LinkError, match="limit"):
        await exchange.history("kept-short", limit=10_001)


async def test_a_message_without_data_is_kept_without(worker: RunningWorker) -> None:
    exchange = exchange_of(worker)
    websocket = await worker.socket()
    await exchange.publish("kept", 1)
    assert await websocket.call("#publish", {"channel": "kept"}) == {"rid": 7}
    assert await websocket.call("#publish", {"channel": "kept", "data": None}) == {"rid": 7}
    newest = await exchange.history("kept")
    assert [message.data for message in newest.messages] == [1, None, None]
    heard: list[Any] = []
    await exchange.subscribe("kept", heard.append, since=1)
    assert heard == [None, None]
    since = newest.messages[0].offset.text
    await websocket.send_json({"event": "#subscribe", "data": {"channel": "kept", "since": since}, "cid": 8})
    assert (await websocket.next_json())["rid"] == 8
    got = [(await websocket.next_json())["data"] for _ in range(2)]
    offsets = [message.offset.text for message in newest.messages[1:]]
    assert got == [{"channel": "kept", "offset": offsets[0]}, {"channel": "kept", "data": None, "offset": offsets[1]}]


async def test_a_subscription_since_an_offset(worker: RunningWorker) -> None:
    exchange = exchange_of(worker)
    for number in range(1, 4):
        await exchange.publish("kept", number)
    got: list[tuple[Any, int]] = []

    def handle(data: Any, offset: Offset) -> None:
        got.append((data, offset))

    channel = await exchange.subscribe("kept", handle, since=1)
    assert got == [(2, 2), (3, 3)]
    assert channel.gap is None
    bare: asyncio.Queue[Any] = asyncio.Queue()
    await exchange.subscribe("kept", lambda data, put=bare.put_nowait: put(data))
    await exchange.publish("kept", 4)
    assert await bare.get() == 4
    assert got == [(2, 2), (3, 3), (4, 4)]
    await channel.unsubscribe()
    await exchange.publish("kept", 5)
    assert await bare.get() == 5
    assert got[3:] == []


async def test_a_subscription_whose_beginning_is_gone(worker: RunningWorker) -> None:
    exchange = exchange_of(worker)
    for number in range(1, 6):
        await exchange.publish("kept-short", number)
    got: asyncio.Queue[Any] = asyncio.Queue()
    channel = await exchange.subscribe("kept-short", got.put_nowait, since=1)
    assert (await got.get(), await got.get()) == (4, 5)
    assert channel.gap is not None
    assert channel.gap.missing == range(2, 4)
    with pytest.raises(EventError):
        await exchange.subscribe("kept", got.put_nowait, since="5")
    assert list(exchange._channels) == ["kept-short"]


async def test_a_killed_store_costs_a_subscriber_nothing_that_is_kept(
    start_worker: StartWorker, store_process: StoreProcess
) -> None:
    one, two = await start_worker(), await start_worker()
    kept: list[int] = []
    gaps: asyncio.Queue[Gap] = asyncio.Queue()
    await exchange_of(one).subscribe("kept", kept.append)
    await exchange_of(one).subscribe("other", lambda _data: None)
    exchange_of(one).on("gap", gaps.put_nowait)
    published = 0
    stop = asyncio.Event()

    async def publish() -> None:
        nonlocal published
        while not stop.is_set():
            published += 1
            await exchange_of(two).publish("kept", published, id=str(published))

    publishing = asyncio.create_task(publish())
    for _ in range(2):
        before = published
        while published < before + 100:  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.001)
        await store_process.kill()
        await store_process.start()
    stop.set()
    await publishing
    await until(lambda: len(kept) >= published)
    assert kept == list(range(1, published + 1))
    gap = await gaps.get()
    assert (gap.channel, gap.missing) == ("other", None)
    while not gaps.empty():
        assert gaps.get_nowait().channel == "other"


async def test_an_exact_gap_is_told_or_logged(worker: RunningWorker) -> None:
    exchange = exchange_of(worker)
    await exchange.subscribe("other", lambda _data: None)
    await exchange.publish("other", 1)
    gaps: asyncio.Queue[Gap] = asyncio.Queue()
    exchange.on("gap", gaps.put_nowait)
    feed = next(r.channels["other"] for r in worker.service._channel_client._routes if "other" in r.channels)
    feed.take(b"\x01", 5, feed.position.epoch, feed._link)  # 2 to 4 never came
    assert (await gaps.get()).missing == range(2, 5)
    with pytest.raises(ValueError, match="gap"):
        exchange.on("gaps", gaps.put_nowait)  # type: ignore[call-overload]


async def test_a_broadcast_that_this_worker_did_not_hear_ends_the_recovery_of_what_was_before(
    start_worker: StartWorker,
) -> None:
    worker = await start_worker(recovery_window=60)
    server = worker.worker.ws_server
    broadcast_log = server.broadcast_log
    assert broadcast_log is not None
    for number in range(2):
        server.emit("e", number)
    await until(lambda: broadcast_log.latest is not None and broadcast_log.latest.offset == 2)
    epoch, offset = broadcast_log.latest or Position(0, 0)
    assert [entry.position for entry in broadcast_log.since(Position(epoch, offset - 1)) or ()] == [
        Position(epoch, offset)
    ]
    exchange_of(worker).missed(Gap(BUS + "/", Position(epoch, offset), Position(epoch, offset + 3)))
    assert broadcast_log.since(Position(epoch, offset)) is None
    assert broadcast_log.since(Position(epoch, offset + 3)) == []


# A client's.


async def test_a_client_that_follows_offsets(worker: RunningWorker) -> None:
    exchange = exchange_of(worker)
    first = await exchange.publish("kept", 1)
    bare, following = await worker.socket(), await worker.socket()
    assert await bare.call("#subscribe", {"channel": "kept"}) == {"rid": 7}
    answer = await following.call("#subscribe", {"channel": "kept", "since": None})
    assert answer["data"] == {"offset": first.text}
    second = await exchange.publish("kept", 2)
    assert await messages(bare, 1) == [(2, None)]
    assert await messages(following, 1) == [(2, second.text)]
    again = await worker.socket()
    answer = await again.call("#subscribe", {"channel": "kept", "since": first.text})
    assert answer["data"] == {"offset": first.text}
    assert await messages(again, 1) == [(2, second.text)]
    third = await exchange.publish("kept", 3)
    assert await messages(again, 1) == [(3, third.text)]
    assert await messages(following, 1) == [(3, third.text)]
    assert (await again.call("#unsubscribe", "kept"))["rid"]
    await exchange.publish("kept", 4)
    assert await messages(following, 1) == [(4, f"{first.epoch}-4")]
    follower = worker.worker.ws_server._sockets[following.handshake["id"]]
    assert list(exchange._subscribers._followers["kept"]) == [follower]


async def test_a_client_is_told_exactly_what_is_gone(worker: RunningWorker) -> None:
    exchange = exchange_of(worker)
    offsets = [await exchange.publish("kept-short", number) for number in range(1, 6)]
    client = await worker.socket()
    answer = await client.call("#subscribe", {"channel": "kept-short", "since": offsets[0].text})
    assert answer["data"] == {"offset": offsets[2].text, "missing": [2, 3]}
    assert await messages(client, 2) == [(4, offsets[3].text), (5, offsets[4].text)]
    other = await worker.socket()
    answer = await other.call("#subscribe", {"channel": "kept-short", "since": "5-1"})
    assert answer["data"] == {"offset": offsets[2].text, "reset": True}
    assert await messages(other, 2) == [(4, offsets[3].text), (5, offsets[4].text)]
    assert (await other.call("#subscribe", {"channel": "other"}))["rid"]
    assert (await other.call("#unsubscribe", "other"))["rid"]
    plain = await exchange.publish("other", 1)
    answer = await other.call("#subscribe", {"channel": "other", "since": f"{plain.epoch}-0"})
    assert answer["data"] == {"offset": plain.text, "missing": [1, 1]}


async def test_a_client_with_many_messages_to_catch_up_with(worker: RunningWorker) -> None:
    exchange = exchange_of(worker)
    first = await exchange.publish("kept", 1)
    client = await worker.socket()
    publishing = asyncio.gather(*(exchange.publish("kept", number) for number in range(2, 901)))
    await client.send_json({"event": "#subscribe", "data": {"channel": "kept", "since": first.text}, "cid": 7})
    assert (await client.next_json())["data"] == {"offset": first.text}
    await publishing
    assert await messages(client, 899) == [(number, f"{first.epoch}-{number}") for number in range(2, 901)]


@pytest.mark.parametrize("since", [1, "x", "", {}, True, "1", f"1-{2**64}", f"{2**64}-1"])
async def test_a_client_whose_offset_is_none(worker: RunningWorker, since: Any) -> None:
    client = await worker.socket()
    answer = await client.call("#subscribe", {"channel": "kept", "since": since})
    assert answer["error"]["name"] == "InvalidOffset"
    assert "kept" not in exchange_of(worker)._subscribers


async def test_an_offset_has_64_bits(worker: RunningWorker) -> None:
    exchange = exchange_of(worker)
    for since in (2**64, -1):
        with pytest.raises(EventError, match="an offset is 0 to"):
            await exchange.history("kept", since=since)
    assert (await exchange.history("kept", since=MAX_NUMBER)).missing is None
    client = await worker.socket()
    answer = await client.call("#subscribe", {"channel": "kept", "since": f"{MAX_NUMBER}-{MAX_NUMBER}"})
    assert answer["data"]["reset"] is True


async def test_a_client_that_leaves_while_it_catches_up(worker: RunningWorker) -> None:
    exchange = exchange_of(worker)
    first = await exchange.publish("kept", 1)
    client = await worker.socket()
    requests = [
        {"event": "#subscribe", "data": {"channel": "kept", "since": first.text}, "cid": 2},
        {"event": "#unsubscribe", "data": "kept", "cid": 3},
        {"event": "#subscribe", "data": {"channel": "kept", "since": first.text}, "cid": 4},
        {"event": "#subscribe", "data": {"channel": "kept", "since": first.text}, "cid": 5},
    ]
    await client.send_json(requests)
    answers = {answer["rid"]: answer for answer in [await client.next_json() for _ in requests]}
    assert answers[2]["error"]["name"] == answers[4]["error"]["name"] == "BrokerError"
    assert answers[3] == {"rid": 3}
    assert answers[5]["data"] == {"offset": first.text}
    await exchange.publish("kept", 2)
    assert await messages(client, 1) == [(2, f"{first.epoch}-2")]


async def test_publish_out_is_asked_for_what_was_missed_too(worker: RunningWorker) -> None:
    exchange = exchange_of(worker)

    def double(action: Action) -> None:
        action.data *= 2

    worker.worker.ws_server.use("publish_out", double)
    first = await exchange.publish("kept", 1)
    await exchange.publish("kept", 2)
    client = await worker.socket()
    await client.call("#subscribe", {"channel": "kept", "since": first.text})
    assert await messages(client, 1) == [(4, f"{first.epoch}-2")]
    await exchange.publish("kept", 3)
    assert await messages(client, 1) == [(6, f"{first.epoch}-3")]


async def test_a_killed_store_costs_a_client_nothing_that_is_kept(
    worker: RunningWorker, store_process: StoreProcess
) -> None:
    exchange = exchange_of(worker)
    client = await worker.socket()
    answer = await client.call("#subscribe", {"channel": "kept", "since": None})
    assert answer["data"] == {"offset": "0-0"}
    first = await exchange.publish("kept", 1)
    await store_process.kill()
    publishing = asyncio.ensure_future(exchange.publish("kept", 2))
    await store_process.start()
    await publishing
    assert await messages(client, 2) == [(1, first.text), (2, f"{first.epoch}-2")]


async def test_new_channels_with_a_history_are_refused_when_there_are_enough(
    worker: RunningWorker, store_process: StoreProcess
) -> None:
    exchange = exchange_of(worker)
    client = await worker.socket()
    names = [f"kept{number}" for number in range(2 * PARTITION_COUNT + 1)]
    answers = [await client.call("#publish", {"channel": name, "data": 1}) for name in names]
    refused = next(name for name, answer in zip(names, answers, strict=True) if "error" in answer)
    assert {answer["error"]["name"] for answer in answers if "error" in answer} == {"TooManyChannelsError"}
    await store_process.kill()
    await store_process.start()
    with pytest.raises(TooManyChannelsError, match=f"PUBLISH '{refused}'.*max_history_channels"):
        await exchange.publish(refused, 2)
    assert await exchange.publish(names[0], 2) == 2
    assert await exchange.publish("other", 1) == 1
