"""A link that ends while a request of it is applied: its worker sends the rest again on the next one, not here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable
from pathlib import Path
from typing import Any

import grpc
import pytest
from pydantic import SecretStr

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.data.procedures import Procedures
from socketcluster_store.links import WorkerLink
from socketcluster_store.service import StoreService, make_engine
from socketcluster_store.settings import StoreSettings
from socketcluster_store_client.messages import Operation, encode_operations

SET = store_pb2.VERB_SET
FEW, MANY = [(1, 5), (2, 6), (3, 5)], [(number, 5) for number in range(1, 1001)]


class Replacing:
    """A partition while which applies something another link of the worker takes this one's place."""

    def __init__(self) -> None:
        self.applied: list[int] = []

    def apply(self, link: WorkerLink, operations: list[Operation]) -> list[bytes]:
        self.applied += [operation.id for operation in operations]
        link.close(grpc.StatusCode.ABORTED, "another link of the same worker has taken over")
        return [b""] * len(operations)


class Slow:
    """A partition that takes its time."""

    epoch = 1

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.may_end = asyncio.Event()
        self.became = ""

    def apply(self, _link: WorkerLink, operations: list[Operation]) -> Awaitable[list[bytes]]:
        return self._apply(len(operations))

    async def _apply(self, count: int) -> list[bytes]:
        self.began.set()
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.became = "broken off"
            raise
        self.became = "applied"
        return [b""] * count

    def unwatch(self, _link: WorkerLink) -> None:
        """Have nothing to do."""


class Call:
    """What gRPC gives a handler."""

    def __init__(self) -> None:
        self.writes: asyncio.Queue[bytes] = asyncio.Queue()
        self.aborted: grpc.StatusCode | None = None

    async def write(self, reply: bytes) -> None:
        self.writes.put_nowait(reply)

    async def abort(self, status: grpc.StatusCode, _details: str) -> None:
        self.aborted = status

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"


@pytest.fixture(params=["everysec", "always"])
async def store(tmp_path: Path, request: pytest.FixtureRequest) -> StoreService:
    settings = StoreSettings(secret=SecretStr("a secret of the tests"), data_dir=tmp_path, fsync=request.param)
    return StoreService(settings, make_engine(settings, "one-1", Procedures()), "one-1")


def requested(operations: Iterable[tuple[int, int]]) -> store_pb2.LinkRequest:
    """Return a request of operations, each by its id and partition."""
    return store_pb2.LinkRequest(
        operations=encode_operations([Operation(each, SET, partition=number) for each, number in operations])
    )


async def test_what_is_being_applied_is_not_broken_off(store: StoreService) -> None:
    """What became of it has to be known when the worker sends it again."""
    partition: Any = Slow()
    store.partitions.owned[5] = partition
    call = Call()
    ended = asyncio.Event()

    async def requests() -> AsyncIterator[store_pb2.LinkRequest]:
        opening = store_pb2.LinkOpen(worker_id="worker", app_name="socketcluster", incarnation="incarnation")
        yield store_pb2.LinkRequest(open=opening)
        yield requested([(1, 5)])
        await ended.wait()

    serving = asyncio.create_task(store.servicer.Link(requests(), call))
    await partition.began.wait()
    store.links.add(WorkerLink("worker", "incarnation", 1 << 20))
    while not store.servicer._graces:  # noqa: ASYNC110  # until its end was noticed
        await asyncio.sleep(0)
    partition.may_end.set()
    ended.set()
    await serving
    assert partition.became == "applied"
    assert call.aborted is grpc.StatusCode.ABORTED
    for timer in store.servicer._graces.values():
        timer.cancel()


@pytest.mark.parametrize(
    ("operations", "first"),
    [pytest.param(FEW, [1, 3], id="of another partition"), pytest.param(MANY, None, id="of another portion")],
)
async def test_nothing_more_is_applied(
    store: StoreService, operations: list[tuple[int, int]], first: list[int] | None
) -> None:
    partition: Any = Replacing()
    store.partitions.owned.update(dict.fromkeys({number for _id, number in operations}, partition))
    link = WorkerLink("worker", "incarnation", 1 << 20)
    async with asyncio.timeout(60):
        await store.servicer._apply(link, requested(operations))
    assert partition.applied == (first or [each for each, _number in operations[: len(partition.applied)]])
    assert len(partition.applied) < len(operations)
