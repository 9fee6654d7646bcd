"""The worker's gRPC service: balancers watch how it is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from grpc import aio

from socketcluster_proto.v1 import worker_pb2 as pb
from socketcluster_proto.v1 import worker_pb2_grpc as rpc
from socketcluster_runtime.logs import logging
from socketcluster_runtime.sockets.beats import Beats

log = logging.get_logger(__name__)

LOAD_INTERVAL = 0.25
"""Seconds between two statuses that differ only in the number of connections."""
ALIVE_INTERVAL = 0.5
"""Seconds after which the status is sent again, changed or not: balancers take a worker that stays silent for hung. A
balancer that sees it beat by a file needs none; and the first status after a while without changes may be so late."""


class Control(rpc.WorkerServicer):
    """Tells balancers how the worker is.

    Args:
        status: all that does not change.
        connections: returns how many clients are connected.
        reaches_stores: returns whether each partition's owner is reached.
        end_relayed: ends the connections that a balancer relays, over so many seconds; returns how many there are.
        full: returns whether there is no descriptor for a client.
        beats: gives signs of life to the balancers of this host; ``None``: all get them by the status.
    """

    def __init__(
        self,
        status: pb.WorkerStatus,
        connections: Callable[[], int],
        reaches_stores: Callable[[], bool] = lambda: True,
        end_relayed: Callable[[bytes, float], int] = lambda _balancer, _seconds: 0,
        full: Callable[[], bool] = lambda: False,
        beats: Beats | None = None,
    ) -> None:
        self._beats = beats
        self._status = status
        self._status.alive_every_ms = round(1000 * ALIVE_INTERVAL)
        self._connections = connections
        self._reaches_stores = reaches_stores
        self._end_relayed = end_relayed
        self._full = full
        self._others: dict[object, bool] = {}  # by the stream of a balancer
        self._seen: dict[object, bytes] = {}  # likewise, of those that see this worker beat, the Watch streams
        self._changed: set[asyncio.Event] = set()
        self._told: pb.WorkerStatus | None = None
        self._ticks: asyncio.Handle = asyncio.get_running_loop().call_soon(self._tick)

    def close(self) -> None:
        """Give no more signs of life."""
        self._ticks.cancel()
        if self._beats is not None:
            self._beats.close()

    def update(self, *, ready: bool, draining: bool = False) -> None:
        """Tell every balancer that the worker can, or can no longer, take clients."""
        self._status.ready = ready
        self._status.draining = draining
        self._wake()

    @property
    def others_well(self) -> bool:
        """Could other workers take this one's clients, as every balancer sees it that says something of that?"""
        return bool(self._others) and all(self._others.values())

    async def Others(  # noqa: N802  # gRPC's name
        self, request_iterator: AsyncIterator[pb.OtherWorkers], context: aio.ServicerContext[Any, Any]
    ) -> pb.OthersReply:
        """Hear from a balancer how the other workers are; what it says counts until its stream ends."""
        stream = object()
        try:
            async for others in request_iterator:
                self._others[stream] = others.well
                if self._seen.get(stream) != others.beats_for:
                    self._seen[stream] = others.beats_for
                    self._wake()
        finally:
            self._others.pop(stream, None)
            self._seen.pop(stream, None)
            self._wake()
        return pb.OthersReply()

    async def EndRelayed(  # noqa: N802  # gRPC's name
        self, request: pb.EndRelayedRequest, context: aio.ServicerContext[Any, Any]
    ) -> pb.EndRelayedReply:
        """Begin to end what a balancer relays, which is about to stop."""
        return pb.EndRelayedReply(connections=self._end_relayed(request.balancer, request.seconds))

    async def Watch(  # noqa: N802  # gRPC's name
        self, request: pb.WatchRequest, context: aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.WorkerStatus]:
        """Send the status now, at each change, and as a sign of life."""
        changed = asyncio.Event()
        self._changed.add(changed)
        told: pb.WorkerStatus | None = None
        try:
            while True:
                changed.clear()
                now = self._now()
                unseen = self._beats is None or not request.stream or request.stream not in self._seen.values()
                if now != told or unseen:
                    yield now
                    told = now
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ALIVE_INTERVAL if unseen else None):
                        await changed.wait()
        finally:
            self._changed.discard(changed)

    def _now(self) -> pb.WorkerStatus:
        now = pb.WorkerStatus()
        now.CopyFrom(self._status)
        now.connections = self._connections()
        now.reaches_stores = self._reaches_stores()
        now.full = self._full()
        return now

    def _wake(self) -> None:
        for changed in self._changed:
            changed.set()

    def _tick(self) -> None:
        """Give a sign of life, and have balancers told of what has changed by itself."""
        if self._beats is not None:
            try:
                self._beats.beat()
            except OSError as error:
                log.warning("signs of life cannot be written: they go by gRPC", error=str(error))
                self._beats.close()
                self._beats = None
                self._wake()
        now = self._now()
        changes = now != self._told
        if changes:
            self._told = now
            self._wake()
        self._ticks = asyncio.get_running_loop().call_later(LOAD_INTERVAL if changes else ALIVE_INTERVAL, self._tick)
