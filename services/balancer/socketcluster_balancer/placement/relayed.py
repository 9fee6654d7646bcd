"""Clients whose bytes are copied, when the balancer is asked to stop: their workers end them, in their own protocol."""

from __future__ import annotations

import asyncio
from typing import Any

from grpc import aio

from socketcluster_balancer.placement.watched_worker import WatchedWorker
from socketcluster_balancer.placement.workers import Workers
from socketcluster_proto.v1.worker_pb2 import EndRelayedRequest
from socketcluster_runtime.logs.logging import get_logger

log = get_logger(__name__)

TIMEOUT = 2.0
"""Seconds that a worker has to answer; it begins at once, and one that hangs is not waited for."""


async def end_relayed(workers: Workers, balancer: bytes, seconds: float) -> None:
    """Have each worker end the connections that are copied for it, spread over so many seconds.

    Args:
        workers: all of them.
        balancer: what this one calls itself in its PROXY headers.
        seconds: from now on.
    """
    request = EndRelayedRequest(balancer=balancer, seconds=seconds)
    await asyncio.gather(*(_ask(worker, request, workers.metadata) for worker in workers.known))


async def _ask(worker: WatchedWorker, request: EndRelayedRequest, metadata: Any) -> None:
    stub: Any = worker.stub  # it is typed as of gRPC's other, blocking kind
    if stub is None:
        return
    try:
        await stub.EndRelayed(request, metadata=metadata, timeout=TIMEOUT)
    except (aio.AioRpcError, aio.UsageError) as error:  # the latter: its channel was closed meanwhile
        log.warning(
            "a worker does not end the connections that are copied for it: they may be cut off",
            worker=worker.name,
            reason=error.code().name if isinstance(error, aio.AioRpcError) else "it has gone",
        )
