"""A store process whose machine's time of day is set by a day, while it runs and between two of its lives."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.cluster.cluster import until
from support.store.processes import SECRET
from support.store.running import LinkWorker
from support.store.shifted import Shift

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.clock import BOOT_ID

DAY = 86_400.0
LEFT = 600
encode: Callable[[Any], bytes] = msgspec.msgpack.encode
decode: Callable[[bytes], Any] = msgspec.msgpack.decode
OPTIONS = {"SESSION_TIMEOUT": str(LEFT), "LINK_GRACE": "0.1", "CHANNEL_HISTORY": f"news: 10, {LEFT}"}


@asynccontextmanager
async def store(folder: Path, how: signal.Signals = signal.SIGTERM) -> AsyncIterator[str]:
    """Run a store whose clocks ``folder/clock`` moves, and end it so; yield its address."""
    options = OPTIONS | {"LISTEN": f"unix:{folder}/shifted", "DATA_DIR": str(folder / "data"), "SECRET": SECRET}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "support.store.shifted", str(folder / "clock"), str(BOOT_ID)),
        env={
            **os.environ,
            **{f"SOCKETCLUSTER_{name}": value for name, value in options.items()},
            "SOCKETCLUSTER_PARENT": str(os.getpid()),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        },
    )
    try:
        yield options["LISTEN"]
    finally:
        process.send_signal(how)
        await process.wait()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_days_that_were_set_neither_end_nor_prolong_anything(
    folder: Path, link_worker: LinkWorker, how: signal.Signals
) -> None:
    shift = Shift(folder / "clock")

    async def check(worker: Any) -> None:
        assert decode(await worker.get("idle", "key")) == 1
        assert decode(await worker.get("held", "key")) == 1
        left = decode(await worker.client.call(store_pb2.VERB_GET_EXPIRY, keys=["of the app"]))
        assert 0 < left <= LEFT
        asked = store_pb2.VERB_CHANNEL_HISTORY
        page = decode(await worker.client.call(asked, name="news", value=encode({"limit": 10})))
        assert len(page["messages"]) == 1
        assert (
            decode(
                await worker.client.call(
                    store_pb2.VERB_CHANNEL_PUBLISH, name="news", value=encode("again"), message_id="first"
                )
            )["offset"]
            == 1
        )
        await worker.client.call(store_pb2.VERB_SET, keys=["brief"], value=encode(1))
        await worker.client.call(store_pb2.VERB_EXPIRE, keys=["brief"], value=encode(0.2))

        async def is_there() -> bool:
            return bool(decode(await worker.client.call(store_pb2.VERB_EXISTS, keys=["brief"])))

        await until(is_there, lambda answer: not answer)  # the store's own time goes on

    async with store(folder, how) as address:
        worker = await link_worker(address)
        await worker.client.attach("held")
        for session in ("idle", "held"):
            await worker.set(session, "key", value=encode(1))
        await worker.client.call(store_pb2.VERB_SET, keys=["of the app"], value=encode(1))
        await worker.client.call(store_pb2.VERB_EXPIRE, keys=["of the app"], value=encode(LEFT))
        await worker.publish("news", 1, message_id="first")
        for days in (1, -1, 0):
            shift.set(days * DAY)
            await check(worker)
    for days in (1, -1, 0):
        shift.set(days * DAY)
        async with store(folder, how):
            await worker.client.wait_ready()
            await check(worker)
    assert worker.destroyed.empty()
    shift.close()
