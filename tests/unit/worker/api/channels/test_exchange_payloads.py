"""What clients publish travels as their own JSON, unless somebody on the way asks for the value."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from support.clients.raw import RawWebSocket
from support.worker.running import RunningWorker, StartWorker

from socketcluster_worker.api.sockets.action import Action
from socketcluster_worker.api.worker import Worker
from socketcluster_worker.errors import EventError

Workers = list[RunningWorker]


@pytest.fixture
async def workers(start_worker: StartWorker) -> Workers:
    return [await start_worker(lambda _: None) for _ in range(2)]


async def client_of(worker: RunningWorker) -> RawWebSocket:
    websocket = await worker.websocket()
    await websocket.call("#handshake", {"authToken": None}, 0)
    return websocket


async def subscriber(worker: RunningWorker) -> RawWebSocket:
    websocket = await client_of(worker)
    assert "error" not in await websocket.call("#subscribe", {"channel": "c"})
    return websocket


async def publish(websocket: RawWebSocket, data: str) -> Any:
    """Publish as the clients write it; return the answer."""
    rest = f',"data":{data}' if data else ""
    await websocket.send_text(f'{{"event":"#publish","data":{{"channel":"c"{rest}}},"cid":9}}')
    return await websocket.next_json()


@pytest.mark.parametrize(
    "data",
    ['{"a" : [1,  2.50, "\\u00e9 é"], "a": 1E2}', "null", '""', "1e999", "-0.0", "12345678901234567890123", "[]"],
)
async def test_a_subscriber_gets_the_very_bytes_of_the_publisher(workers: Workers, data: str) -> None:
    near, far = await subscriber(workers[0]), await subscriber(workers[1])
    assert await publish(await client_of(workers[0]), data) == {"rid": 9}
    told = f'{{"event":"#publish","data":{{"channel":"c","data":{data}}}}}'
    assert [await near.next_text(), await far.next_text()] == [told, told]


async def test_a_message_without_data_stays_one(workers: Workers) -> None:
    far = await subscriber(workers[1])
    assert await publish(await client_of(workers[0]), "") == {"rid": 9}
    assert await far.next_text() == '{"event":"#publish","data":{"channel":"c"}}'


@pytest.mark.parametrize(("data", "got"), [('"\\ud83d"', '"�"'), ('{"n":[1, 2]}', '{"n":[1,2]}')])
async def test_what_has_to_be_read_is_written_anew(workers: Workers, data: str, got: str) -> None:
    """Half a surrogate pair is no Unicode; and in a batch each message is read."""
    far, near = await subscriber(workers[1]), await client_of(workers[0])
    await near.send_text(f'[{{"event":"#publish","data":{{"channel":"c","data":{data}}},"cid":9}}]')
    assert await near.next_json() == {"rid": 9}
    assert await far.next_text() == f'{{"event":"#publish","data":{{"channel":"c","data":{got}}}}}'


async def test_json_that_is_too_long_for_the_store_travels_as_messagepack(start_worker: StartWorker) -> None:
    worker = await start_worker(lambda _: None, max_http_buffer_size=4_000_000, max_buffered_bytes=4_000_000)
    client = await subscriber(worker)
    data = f"[{','.join(['false'] * 250_000)}]"
    assert await publish(await client_of(worker), data) == {"rid": 9}
    assert await client.next_text() == f'{{"event":"#publish","data":{{"channel":"c","data":{data}}}}}'


async def test_a_handler_gets_the_value(workers: Workers) -> None:
    heard: asyncio.Queue[Any] = asyncio.Queue()
    await workers[1].worker.ws_server.exchange.subscribe("c", heard.put_nowait)
    client = await client_of(workers[0])
    for data in ('{"a": [1, "é"]}', "null", "", "1e999"):
        await publish(client, data)
    assert [await heard.get() for _ in range(3)] == [{"a": [1, "é"]}, None, None]
    assert math.isinf(await heard.get())


async def test_data_that_nobody_asked_for_pass_the_middleware_as_they_are(start_worker: StartWorker) -> None:
    seen: list[Any] = []

    def run(worker: Worker) -> None:
        @worker.ws_server.use("publish_in")
        def into(action: Action) -> None:
            seen.append(action.channel)

        @worker.ws_server.use("publish_out")
        def out(action: Action) -> None:
            seen.append(action.channel)

    worker = await start_worker(run)
    client = await subscriber(worker)
    await publish(await client_of(worker), '{"a" : 1}')
    assert await client.next_text() == '{"event":"#publish","data":{"channel":"c","data":{"a" : 1}}}'
    assert seen == ["c", "c"]


async def test_middleware_may_change_the_data(start_worker: StartWorker) -> None:
    def run(worker: Worker) -> None:
        @worker.ws_server.use("publish_in")
        def into(action: Action) -> None:
            action.data["in"] = True

        @worker.ws_server.use("publish_out")
        def out(action: Action) -> None:
            if action.data["a"] == 2:
                raise EventError("not this one")
            action.data = [action.data]

    worker = await start_worker(run)
    client, publisher = await subscriber(worker), await client_of(worker)
    await publish(publisher, '{"a" : 2}')
    await publish(publisher, '{"a" : 1}')
    assert await client.next_text() == '{"event":"#publish","data":{"channel":"c","data":[{"a":1,"in":true}]}}'


async def test_a_channels_name_is_checked_as_ever(workers: Workers) -> None:
    client = await client_of(workers[0])
    for name in ("1", '""', '"\\u0000x"', "null"):
        await client.send_text(f'{{"event":"#publish","data":{{"channel":{name},"data":1}},"cid":9}}')
        assert (await client.next_json())["error"]["name"] == "InvalidChannel"
