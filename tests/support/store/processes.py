"""Store processes that share their data, and callers that notice what is lost or applied twice."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from socketcluster_proto.v1 import store_pb2, store_pb2_grpc
from socketcluster_runtime import rpc
from socketcluster_store_client.partitioning import PARTITION_COUNT

SECRET = "a secret of the tests"
NAMES = ("one", "two", "three")
CALLERS = 40
ADD, POP = store_pb2.VERB_ADD, store_pb2.VERB_POP
encode = msgspec.msgpack.encode
decode: Callable[[bytes], Any] = msgspec.msgpack.decode


class Stores:
    """Store processes by name, each at an address of its own."""

    def __init__(self, processes: Any, folder: Path, **options: str) -> None:
        self._processes = processes
        self._folder = folder
        self._options = options
        self.local = not options
        self.running: dict[str, asyncio.subprocess.Process] = {}

    def address(self, name: str) -> str:
        return f"unix:{self._folder}/{name}"

    @property
    def addresses(self) -> list[str]:
        return [self.address(name) for name in NAMES]

    async def owned(self, name: str) -> dict[int, int]:
        """Return the partitions of a store, each with its epoch."""
        return await owned_by(self.address(name))

    async def start(self, *names: str, **environment: str) -> None:
        for name in names:
            self.running[name] = await self._processes.start(
                SOCKETCLUSTER_LISTEN=self.address(name), SOCKETCLUSTER_NAME=name, **self._options, **environment
            )

    async def end(self, name: str, how: signal.Signals) -> None:
        process = self.running.pop(name)
        process.send_signal(how)
        status = await process.wait()
        assert status == (0 if how is signal.SIGTERM else -how)


class History:
    """Callers that each append numbers to a list of their own, one after the other, and take some off again."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self.expected: list[list[int]] = [[] for _ in range(CALLERS)]
        self.done = [0] * CALLERS
        self._stop = asyncio.Event()

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Have the callers call; none of them may meet an error."""
        callers = [asyncio.create_task(self._call(caller)) for caller in range(CALLERS)]
        try:
            yield
        finally:
            self._stop.set()
            await asyncio.gather(*callers)

    async def _call(self, caller: int) -> None:
        session, expected = f"caller{caller}", self.expected[caller]
        while not self._stop.is_set():
            number = self.done[caller]
            if number % 7 == 6:
                popped = await self._worker.client.call(POP, session_id=session, keys=["list"])
                assert decode(popped) == expected.pop()
            else:
                await self._worker.client.call(ADD, session_id=session, keys=["list"], value=encode(number))
                expected.append(number)
            self.done[caller] += 1

    async def progress(self, steps: int) -> None:
        """Return when every caller has got on."""
        before = list(self.done)
        while not all(now >= then + steps for now, then in zip(self.done, before, strict=True)):
            await self._worker.barrier("somebody")

    async def check(self, reader: Any) -> None:
        """Compare what is stored with what was acknowledged: nothing is missing, nothing is there twice."""
        stored = await asyncio.gather(*(reader.get(f"caller{caller}", "list") for caller in range(CALLERS)))
        assert [decode(each) for each in stored] == self.expected


async def owned_by(address: str) -> dict[int, int]:
    """Return the partitions of a store, each with its epoch."""
    async with rpc.connect(address) as channel:
        stub: Any = store_pb2_grpc.StoreStub(channel)
        call = stub.Link(metadata=rpc.credentials(SECRET), wait_for_ready=True)
        await call.write(opening("observer"))
        reply = await call.read()
        return {ownership.partition: ownership.epoch for ownership in reply.announcement.partitions}


async def spread(stores: Stores, *counts: int) -> None:
    """Return when the stores have so many partitions each."""
    while True:
        owned = [await owned_by(stores.address(name)) for name in stores.running]
        if sorted(map(len, owned)) == sorted(counts) and len(set().union(*owned)) == PARTITION_COUNT:
            return


def opening(worker_id: str) -> store_pb2.LinkRequest:
    return store_pb2.LinkRequest(
        open=store_pb2.LinkOpen(worker_id=worker_id, app_name="socketcluster", incarnation="1")
    )
