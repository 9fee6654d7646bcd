"""permessage-deflate, from the option to a client of the websockets library."""

from __future__ import annotations

import asyncio

import pytest
from support.worker.running import Probe, StartWorker
from websockets.asyncio.client import connect

URL = "/engine.io/?EIO=4&transport=websocket"


@pytest.mark.parametrize("wanted", [True, False])
async def test_messages_are_compressed_if_the_option_says_so(
    start_worker: StartWorker, probe: Probe, wanted: bool
) -> None:
    worker = await start_worker(probe.run, per_message_deflate=wanted, deflate_threshold=100)
    async with connect(worker.url.replace("http", "ws") + URL, compression="deflate") as client:
        names = [extension.name for extension in client.protocol.extensions]
        assert names == (["permessage-deflate"] if wanted else [])
        assert str(await client.recv()).startswith("0")
        socket = await probe.sockets.get()
        for text in ("short", "long " * 1000):
            socket.send(text)
            assert await client.recv() == "4" + text
        received: asyncio.Queue[str] = asyncio.Queue()
        socket.on("message", received.put_nowait)
        await client.send("4" + "up " * 1000)
        assert await received.get() == "up " * 1000
    assert (await probe.ends.get())[1] == 1000


async def test_a_message_that_inflates_beyond_the_limit_ends_the_connection(
    start_worker: StartWorker, probe: Probe
) -> None:
    worker = await start_worker(probe.run, per_message_deflate=True, max_http_buffer_size=10_000)
    async with connect(worker.url.replace("http", "ws") + URL, compression="deflate") as client:
        await client.recv()
        await client.send("4" + "x" * 100_000)  # a few hundred bytes on the wire
        await client.wait_closed()
        assert client.close_code == 1009
    assert (await probe.ends.get())[1] == 1009
