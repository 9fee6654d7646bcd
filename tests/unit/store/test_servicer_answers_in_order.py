"""Operations of a link that are under way together: those on one partition are answered in the order they came in."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import SecretStr
from support.worker.running import until

from socketcluster_store.commands import Outcome
from socketcluster_store.engines.memory import MemoryEngine
from socketcluster_store.executor import ExecutorOptions
from socketcluster_store.links import WorkerLink
from socketcluster_store.partition.deduplication import NOT_OWNED
from socketcluster_store.partition.partition import Partition
from socketcluster_store.service import StoreService
from socketcluster_store.settings import StoreSettings
from socketcluster_store_client.messages import Operation, Result


class Lost:
    """A partition that is lost while its batch is far away."""

    def __init__(self) -> None:
        self.known = asyncio.Event()
        self.asked = False

    async def apply(self, _link: WorkerLink, operations: Sequence[Operation]) -> list[Outcome]:
        self.asked = True
        await self.known.wait()
        return [NOT_OWNED] * len(operations)


class Opened:
    """The same, opened again: it answers at once."""

    def apply(self, _link: WorkerLink, operations: Sequence[Operation]) -> list[Outcome]:
        return [b"\x01"] * len(operations)


@pytest.fixture
async def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoreService:
    engine = MemoryEngine(tmp_path, ExecutorOptions(1 << 20))
    monkeypatch.setattr(engine, "remote", True, raising=False)
    return StoreService(StoreSettings(secret=SecretStr("secret"), data_dir=tmp_path), engine, "store-1")


async def test_an_operation_that_is_sent_again_is_answered_behind_its_first_sending(
    store: StoreService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker takes the first of two answers for the one to the sending that it took back."""
    link = WorkerLink("worker01", "1", 1 << 20)
    answers: list[Result] = []
    monkeypatch.setattr(link, "answer", answers.extend)
    lost = Lost()
    store.partitions.owned[7] = cast(Partition, lost)
    operation: Any = Operation(id=1, partition=7)
    other: Any = Operation(id=2, partition=8)
    await store.servicer._apply_side_by_side(link, [operation])
    await until(lambda: lost.asked)
    store.partitions.owned[7] = store.partitions.owned[8] = cast(Partition, Opened())
    await store.servicer._apply_side_by_side(link, [operation, other])
    await until(lambda: answers)
    assert [answer.id for answer in answers] == [2]  # that of another partition waits for nobody
    lost.known.set()
    await until(lambda: not link.under_way)
    assert [(answer.id, answer.error is None) for answer in answers] == [(2, True), (1, False), (1, True)]
