"""Channels on the wire: who may publish, names, and messages without data."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr, ValidationError
from support.clients.raw import RawWebSocket
from support.worker.running import Probe, RunningWorker, StartWorker

from socketcluster_worker.settings import WorkerSettings


async def subscribed(worker: RunningWorker, *channels: str) -> RawWebSocket:
    websocket = await worker.socket()
    for channel in channels:
        assert await websocket.call("#subscribe", {"channel": channel}) == {"rid": 7}
    return websocket


# The option client_publish.


@pytest.mark.parametrize(
    ("option", "allowed", "refused"),
    [
        ("allow", ["news", "chat:1"], []),
        ("deny", [], ["news", "chat:1", "allow", "deny"]),
        ("chat:*, news", ["news", "chat:1", "chat:"], ["chat", "new", "News", "deny"]),
    ],
)
async def test_clients_publish_where_the_option_lets_them(
    start_worker: StartWorker, probe: Probe, option: str, allowed: list[str], refused: list[str]
) -> None:
    worker = await start_worker(probe.run, client_publish=option)
    asked: list[str] = []
    worker.worker.ws_server.use("publish_in", lambda action: asked.append(action.channel))
    websocket = await subscribed(worker, *allowed, *refused)
    for channel in refused:
        error = (await websocket.call("#publish", {"channel": channel, "data": 1}))["error"]
        assert error == {"name": "InvalidActionError", "message": "clients may not publish to this channel"}
        await websocket.send_json({"event": "#publish", "data": {"channel": channel, "data": 1}})  # not even so
    for channel in allowed:
        await websocket.send_json({"event": "#publish", "data": {"channel": channel, "data": 2}})
        assert (await websocket.next_json())["data"] == {"channel": channel, "data": 2}
    assert asked == allowed


async def test_the_application_publishes_anywhere(start_worker: StartWorker, probe: Probe) -> None:
    worker = await start_worker(probe.run, client_publish="deny")
    websocket = await subscribed(worker, "news")
    await worker.worker.ws_server.exchange.publish("news", "from the server")
    assert (await websocket.next_json())["data"] == {"channel": "news", "data": "from the server"}


@pytest.mark.parametrize("option", ["", "allow,news", "news,deny", ()])
def test_the_option_is_one_word_or_patterns(option: Any) -> None:
    with pytest.raises(ValidationError, match="give allow, deny, or patterns"):
        WorkerSettings(stores=("unix:/nowhere",), secret=SecretStr("x" * 16), client_publish=option)


# Names.


@pytest.mark.parametrize(("limit", "longest"), [({}, 200), ({"max_channel_name_length": 1000}, 1000)])
async def test_names_are_as_long_as_the_option_says(
    start_worker: StartWorker, probe: Probe, limit: dict[str, Any], longest: int
) -> None:
    worker = await start_worker(probe.run, **limit)
    name = "😀" * longest
    websocket = await subscribed(worker, name)
    await websocket.send_json({"event": "#publish", "data": {"channel": name, "data": 1}})
    assert (await websocket.next_json())["data"] == {"channel": name, "data": 1}
    for kind in ("#subscribe", "#publish"):
        error = (await websocket.call(kind, {"channel": name + "x", "data": 1}))["error"]
        assert error == {
            "name": "InvalidChannel",
            "message": f"a channel's name is a text of 1 to {longest} characters",
        }


# Messages without data.

EMPTY = {"event": "#publish", "data": {"channel": "news"}}


async def test_a_publication_without_data_stays_without_on_every_worker(
    start_worker: StartWorker, probe: Probe
) -> None:
    workers = [await start_worker(probe.run) for _ in range(2)]
    heard: list[Any] = []
    for worker in workers:
        await worker.worker.ws_server.exchange.subscribe("news", heard.append)
    websockets = [await subscribed(worker, "news") for worker in workers]
    await websockets[0].send_json(EMPTY)
    for websocket in websockets:
        assert await websocket.next_json() == EMPTY
    await websockets[0].send_json({"event": "#publish", "data": {"channel": "news", "data": None}})
    for websocket in websockets:
        assert (await websocket.next_json())["data"] == {"channel": "news", "data": None}
    assert heard == [None] * 4


@pytest.mark.parametrize("stage", ["publish_in", "publish_out"])
async def test_middleware_leaves_a_publication_without_data_as_it_is_or_gives_it_some(
    worker: RunningWorker, probe: Probe, stage: str
) -> None:
    given: list[Any] = [None, "some"]

    @worker.worker.ws_server.use(stage)
    def give(action: Any) -> None:
        assert action.data is None
        action.data = given.pop(0)

    websocket = await subscribed(worker, "news")
    await websocket.send_json(EMPTY)
    await websocket.send_json(EMPTY)
    assert await websocket.next_json() == EMPTY
    assert (await websocket.next_json())["data"] == {"channel": "news", "data": "some"}
