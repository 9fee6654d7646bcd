"""Which partitions this store owns: the mechanism. Which it wants is told by whoever makes ``Partitions``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from socketcluster_proto.v1 import store_pb2
from socketcluster_runtime.logging import get_logger
from socketcluster_store.engines.base import Engine, EnginePartition
from socketcluster_store.errors import EngineError, PartitionLockedError
from socketcluster_store.partition import Partition

log = get_logger(__name__)

LOCK_POLL = 0.05
"""Seconds between two attempts to take the partitions that another process still holds."""
SYNC_INTERVAL = 1.0
"""Seconds between two syncs, with ``fsync=everysec``."""


class Partitions:
    """The partitions that this store owns, each open and loaded."""

    def __init__(
        self, engine: Engine, load: Callable[[EnginePartition], Partition], on_change: Callable[[], None]
    ) -> None:
        self.owned: dict[int, Partition] = {}
        self._engine = engine
        self._make = load
        self._on_change = on_change

    def announcement(self, store_id: str) -> store_pb2.Announcement:
        """Return what workers are told about the ownership."""
        return store_pb2.Announcement(
            store_id=store_id,
            partitions=[
                store_pb2.Ownership(partition=number, epoch=partition.epoch) for number, partition in self.owned.items()
            ],
        )

    async def acquire(self, wanted: Collection[int]) -> None:
        """Own all of ``wanted``: those that another process still holds are tried for until it lets go of them.

        Raises:
            EngineError: a partition cannot be opened.
        """
        waiting = False
        while missing := [number for number in wanted if number not in self.owned]:
            outcomes = await asyncio.gather(*map(self._open, missing), return_exceptions=True)
            for outcome in outcomes:
                if isinstance(outcome, BaseException) and not isinstance(outcome, PartitionLockedError):
                    raise outcome
            if None in outcomes:  # at least one was opened
                self._on_change()
            locked = sum(outcome is not None for outcome in outcomes)
            if locked:
                if not waiting:
                    log.info("waiting for partitions that another store holds", partitions=locked)
                waiting = True
                await asyncio.sleep(LOCK_POLL)

    async def sync_every_second(self) -> None:
        """Sync every partition once a second, until cancelled."""
        while True:
            await asyncio.sleep(SYNC_INTERVAL)
            for partition in list(self.owned.values()):
                try:
                    await partition.sync()
                except EngineError as error:
                    log.error("a partition could not be synced", error=str(error))

    async def close(self) -> None:
        """Give all partitions up."""
        owned = list(self.owned.values())
        self.owned.clear()
        for outcome in await asyncio.gather(*(partition.close() for partition in owned), return_exceptions=True):
            if isinstance(outcome, BaseException):
                log.error("a partition could not be closed", error=str(outcome))

    async def _open(self, number: int) -> None:
        partition = self._make(await self._engine.open(number))
        await partition.load()
        self.owned[number] = partition
