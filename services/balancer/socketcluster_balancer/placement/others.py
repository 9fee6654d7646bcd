"""Tells each worker whether others could take its clients, which it may not know, and whether it is seen to beat."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from grpc import aio

from socketcluster_balancer.placement.watched_worker import WatchedWorker
from socketcluster_proto.v1.worker_pb2 import OtherWorkers
from socketcluster_proto.v1.worker_pb2_grpc import WorkerStub

_Key = tuple[tuple[str, bool, tuple[str, ...], bytes], ...]


class Others:
    """What workers are told of each other.

    Args:
        metadata: shows that this balancer knows the cluster's secret.
    """

    def __init__(self, metadata: Any) -> None:
        self._available: Sequence[WatchedWorker] = ()
        self._metadata = metadata
        self._key: _Key = ()
        self._wakes: set[asyncio.Event] = set()

    def refresh(self, available: Sequence[WatchedWorker]) -> None:
        """Tell whoever it concerns if the workers are not what they were; call it after whatever they say.

        Args:
            available: the workers that may be given clients.
        """
        self._available = available
        key = tuple((worker.worker_id, _is_well(worker), worker.tags, worker.seen_for) for worker in available)
        if key != self._key:
            self._key = key
            for wake in self._wakes:
                wake.set()

    async def tell(self, worker: WatchedWorker, stub: WorkerStub) -> None:
        """Tell a worker until cancelled, or until it does not listen: one of an earlier version never does."""
        wake = asyncio.Event()
        self._wakes.add(wake)
        others: Any = stub.Others  # the stubs do not know that what is sent may be written piece by piece
        call = others(metadata=self._metadata)
        told: OtherWorkers | None = None
        try:
            with contextlib.suppress(aio.AioRpcError, asyncio.InvalidStateError):
                while True:
                    wake.clear()
                    well = any(_could_take(other, worker) for other in self._available)
                    now = OtherWorkers(well=well, beats_for=worker.seen_for)
                    if now != told:
                        await call.write(now)
                        told = now
                    await wake.wait()
        finally:
            self._wakes.discard(wake)
            call.cancel()


def _could_take(other: WatchedWorker, worker: WatchedWorker) -> bool:
    """May the clients of ``worker`` come to the other one, and does it serve them any better?"""
    return _is_well(other) and other.worker_id != worker.worker_id and set(worker.tags) <= set(other.tags)


def _is_well(worker: WatchedWorker) -> bool:
    return worker.reaches_stores and not worker.hung
