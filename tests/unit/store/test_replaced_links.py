"""A link that ends while a request of it is applied: its worker sends the rest again on the next one, not here."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from pydantic import SecretStr

from socketcluster_proto.v1 import store_pb2
from socketcluster_runtime.messages import Operation, encode_operations
from socketcluster_store.__main__ import make_engine
from socketcluster_store.links import WorkerLink
from socketcluster_store.service import StoreService
from socketcluster_store.settings import StoreSettings

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


@pytest.mark.parametrize("fsync", ["everysec", "always"])
@pytest.mark.parametrize(
    ("operations", "first"),
    [pytest.param(FEW, [1, 3], id="of another partition"), pytest.param(MANY, None, id="of another portion")],
)
async def test_nothing_more_is_applied(
    tmp_path: Path, fsync: Any, operations: list[tuple[int, int]], first: list[int] | None
) -> None:
    settings = StoreSettings(secret=SecretStr("a secret of the tests"), data_dir=tmp_path, fsync=fsync)
    service = StoreService(settings, make_engine(settings, "one-1"), "one-1")
    partition: Any = Replacing()
    service.partitions.owned.update(dict.fromkeys({number for _id, number in operations}, partition))
    link = WorkerLink("worker", "incarnation", 1 << 20)
    request = store_pb2.LinkRequest(
        operations=encode_operations([Operation(each, SET, partition=number) for each, number in operations])
    )
    async with asyncio.timeout(60):
        await service._apply(link, request)
    assert partition.applied == (first or [each for each, _number in operations[: len(partition.applied)]])
    assert len(partition.applied) < len(operations)
