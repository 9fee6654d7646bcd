"""Clients that subscribe to a channel again, and what they are told when a subscription fails."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support.clients.raw import RawWebSocket
from support.worker.running import Probe, Running, RunningWorker, StartWorker, until

from socketcluster_store.service import serve as serve_store
from socketcluster_store.settings import StoreSettings
from socketcluster_store_client.errors import (
    InvalidOperationError,
    LinkError,
    OperationError,
    PartitionUnavailableError,
    ResultLostError,
    StoreUnavailableError,
)
from socketcluster_worker.api.channels.exchange import Exchange
from socketcluster_worker.api.channels.publish_out import PublishOut
from socketcluster_worker.api.sockets.action import Action
from socketcluster_worker.errors import EventError

AGAIN = {"TimeoutError", "StoreUnavailableError", "PartitionUnavailableError", "ResultLostError", "BrokerError"}
AGAIN.add("InternalServerError")
"""Names of errors after which the browser client subscribes again."""


@pytest.fixture
async def store(folder: Path) -> Any:
    """A store that keeps the history of some channels."""
    settings = StoreSettings(
        listen=f"unix:{folder}/store",
        data_dir=folder / "data",
        engine="memory",
        secret="a secret of the tests",
        channel_history="kept*: 1000, 3600",
    )
    running = Running(lambda lifecycle: serve_store(settings, lifecycle))
    await running.ready()
    yield settings.listen
    await running.stop()


def exchange_of(worker: RunningWorker) -> Exchange:
    return worker.worker.ws_server.exchange


def subscribe(since: str | None, cid: int, channel: str = "kept") -> dict[str, Any]:
    return {"event": "#subscribe", "data": {"channel": channel, "since": since}, "cid": cid}


async def until_number(client: RawWebSocket, last: int) -> list[Any]:
    """Return answers, and the numbers of messages, up to that number behind the last answer."""
    got: list[Any] = []
    while not got or got[-1] != last:
        message = await client.next_json()
        got.append(message["data"]["data"] if message.get("event") == "#publish" else message)
    return got


def behind(got: list[Any], cid: int) -> list[int]:
    """Return the numbers that came behind an answer."""
    return got[next(at for at, one in enumerate(got) if isinstance(one, dict) and one["rid"] == cid) + 1 :]


@pytest.mark.parametrize("times", [2, 5])
async def test_who_follows_again_from_before_gets_all_of_it_once(worker: RunningWorker, times: int) -> None:
    exchange = exchange_of(worker)
    first = await exchange.publish("kept", 1)
    client = await worker.socket()
    for number in range(2, 601):
        exchange.publish("kept", number)
    await client.send_json([subscribe(first.text, cid) for cid in range(10, 10 + times)])
    for number in range(601, 901):
        exchange.publish("kept", number)
        if number % 50 == 0:
            await asyncio.sleep(0)
    got = await until_number(client, 900)
    assert behind(got, 9 + times) == list(range(2, 901))


async def test_who_follows_again_while_messages_arrive_gets_all_of_it_once(worker: RunningWorker) -> None:
    exchange = exchange_of(worker)
    first = await exchange.publish("kept", 1)
    client = await worker.socket()
    await client.send_json(subscribe(first.text, 10))
    published = 1
    for cid in range(11, 31):
        for _ in range(20):
            published += 1
            exchange.publish("kept", published)
        await asyncio.sleep(0)
        await client.send_json(subscribe(first.text, cid))
    got: list[Any] = []
    while not got or got[-1] != published or not any(isinstance(one, dict) and one["rid"] == 30 for one in got):
        got += await until_number(client, published)
    assert behind(got, 30) == list(range(2, published + 1))


async def test_what_waits_for_middleware_is_not_sent_behind_a_new_subscription(worker: RunningWorker) -> None:
    exchange = exchange_of(worker)
    go_on = asyncio.Event()

    async def wait(_action: Action) -> None:
        await go_on.wait()

    worker.worker.ws_server.use("publish_out", wait)
    client = await worker.socket()
    answer = await client.call("#subscribe", {"channel": "kept", "since": None})
    for number in range(1, 4):
        offset = await exchange.publish("kept", number)
    publish_out = exchange._subscribers.filter
    assert isinstance(publish_out, PublishOut)
    await until(lambda: [len(waiting) for waiting in publish_out._waiting.values()] == [3])
    answer = await client.call("#subscribe", {"channel": "kept", "since": f"{offset.epoch}-0"})
    assert answer["data"] == {"offset": f"{offset.epoch}-0", "skips": True}
    go_on.set()
    assert await until_number(client, 3) == [1, 2, 3]
    await exchange.publish("kept", 4)
    assert await until_number(client, 4) == [4]


async def test_what_waits_for_middleware_ends_with_the_subscription(worker: RunningWorker) -> None:
    exchange = exchange_of(worker)
    go_on = asyncio.Event()

    async def wait(_action: Action) -> None:
        await go_on.wait()

    worker.worker.ws_server.use("publish_out", wait)
    client = await worker.socket()
    for channel in ("kept", "other"):
        await client.call("#subscribe", {"channel": channel})
        await exchange.publish(channel, 1)
    await client.call("#unsubscribe", "kept")
    go_on.set()
    assert (await client.next_json())["data"] == {"channel": "other", "data": 1}


async def test_a_channel_that_had_no_message_yet_begins_with_the_first(worker: RunningWorker) -> None:
    exchange = exchange_of(worker)
    client = await worker.socket()
    assert (await client.call("#subscribe", {"channel": "kept", "since": None}))["data"] == {"offset": "0-0"}
    first = await exchange.publish("kept", 1)
    assert (await client.next_json())["data"] == {"channel": "kept", "data": 1, "offset": f"{first.epoch}-1"}
    await exchange.publish("kept", 2)
    assert await until_number(client, 2) == [2]
    assert (await client.call("#subscribe", {"channel": "kept", "since": "0-0"}))["data"] == {"offset": "0-0"}
    assert await until_number(client, 2) == [1, 2]


# What is left out on purpose.


async def test_a_client_is_told_where_messages_are_left_out_on_purpose(worker: RunningWorker) -> None:
    exchange = exchange_of(worker)
    exchange.slow_consumer("latest", "latest_only")
    exchange.slow_consumer("newest", "drop_oldest")
    exchange.slow_consumer("all", "disconnect")
    client = await worker.socket()

    async def skips(channel: str) -> bool:
        answer = await client.call("#subscribe", {"channel": channel, "since": None})
        return "skips" in answer["data"]

    assert [await skips(name) for name in ("latest", "newest", "all", "other")] == [True, True, False, False]
    worker.worker.ws_server.use("publish_out", lambda _: None)
    assert await skips("all")


async def test_the_option_s_policy_counts_where_no_other_does(start_worker: StartWorker) -> None:
    worker = await start_worker(slow_consumer="drop_oldest")
    exchange_of(worker).slow_consumer("all", "disconnect")
    client = await worker.socket()
    for channel, skips in (("other", True), ("all", False)):
        answer = await client.call("#subscribe", {"channel": channel, "since": None})
        assert ("skips" in answer["data"]) is skips


# What fails.


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (StoreUnavailableError("x"), "StoreUnavailableError"),
        (PartitionUnavailableError("x"), "PartitionUnavailableError"),
        (ResultLostError("x"), "ResultLostError"),
        (OperationError("no epoch is left"), "InternalServerError"),
        (InvalidOperationError("x"), "InvalidOperationError"),
    ],
)
@pytest.mark.parametrize("data", [{"channel": "kept"}, {"channel": "kept", "since": None}])
async def test_a_store_that_fails_for_the_moment_is_told_by_names_for_that(
    worker: RunningWorker, monkeypatch: pytest.MonkeyPatch, error: LinkError, name: str, data: Any
) -> None:
    def failing(*_: Any) -> asyncio.Future[bytes]:
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        future.set_exception(error)
        return future

    client = await worker.socket()
    with monkeypatch.context() as patched:
        patched.setattr(worker.service._channel_client, "subscribe", failing)
        assert (await client.call("#subscribe", data))["error"]["name"] == name
    assert (name in AGAIN) is not isinstance(error, InvalidOperationError)
    assert "error" not in await client.call("#subscribe", data)  # and another time it may go well


async def test_refusals_have_other_names(start_worker: StartWorker, probe: Probe) -> None:
    worker = await start_worker(probe.run, max_channels_per_socket=1)

    def refuse(action: Action) -> None:
        if action.channel == "secret":
            raise EventError("no")
        if action.channel == "broken":
            raise RuntimeError("a fault of the middleware's own")

    worker.worker.ws_server.use("subscribe", refuse)
    client = await worker.socket()
    await client.call("#subscribe", {"channel": "one", "since": None})
    asked = (
        {"channel": "secret", "since": None},
        {"channel": "two", "since": None},
        {"channel": "one", "since": "x"},
        {"channel": "", "since": None},
        {"channel": "secret"},
        {"channel": "two"},
    )
    names = [(await client.call("#subscribe", data))["error"]["name"] for data in asked]
    assert names == ["EventError", "LimitError", "InvalidOffset", "InvalidChannel", "EventError", "LimitError"]
    assert not AGAIN.intersection(names)
    answer = await client.call("#subscribe", {"channel": "broken", "since": None})
    assert answer["error"]["name"] == "InternalServerError"
    await worker.errors.get()


async def test_a_subscription_that_is_ended_meanwhile(worker: RunningWorker, probe: Probe) -> None:
    client = await worker.socket()
    socket = await probe.sockets.get()
    socket.on("kick", socket.kick_out)
    await client.send_json([subscribe(None, 9), {"event": "kick", "data": "kept"}])
    assert (await client.next_json())["event"] == "#kickOut"
    assert (await client.next_json())["error"]["name"] == "BrokerError"
