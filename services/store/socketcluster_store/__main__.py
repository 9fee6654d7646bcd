"""``python -m socketcluster_store``: runs a store until it is asked to stop."""

from __future__ import annotations

import asyncio

from grpc_health.v1.health_pb2 import HealthCheckResponse

from socketcluster_runtime import rpc
from socketcluster_runtime.lifecycle import Lifecycle, run
from socketcluster_runtime.logging import get_logger
from socketcluster_store import procedures
from socketcluster_store.documents import Documents
from socketcluster_store.engines.base import Engine
from socketcluster_store.engines.lmdb import LmdbEngine
from socketcluster_store.engines.memory import MemoryEngine
from socketcluster_store.service import StoreService, add_to_server
from socketcluster_store.settings import StoreSettings

log = get_logger(__name__)

STOP_GRACE = 2.0
"""Seconds that calls have to end when the store stops; links end at once."""


def make_engine(settings: StoreSettings) -> Engine:
    """Make the engine that the settings name."""
    trees = Documents(
        settings.max_value_bytes,
        max_session_bytes=settings.max_session_bytes,
        procedures=procedures.load(settings.store_controller),
    )
    if settings.engine == "memory":
        return MemoryEngine(trees)
    folder = settings.data_dir / settings.app_name / "partitions"
    return LmdbEngine(folder, trees, sync_each_commit=settings.fsync == "always")


async def serve(settings: StoreSettings, lifecycle: Lifecycle) -> None:
    """Serve until asked to stop; ready once every partition of the store's share is owned."""
    server, health = rpc.server(settings.shared_secret())
    service = StoreService(settings, make_engine(settings))
    add_to_server(service, server)
    await health.set("", HealthCheckResponse.NOT_SERVING)
    port = rpc.listen(server, settings.listen)
    await server.start()

    async def own_share() -> None:
        await service.partitions.acquire(settings.wanted_partitions())
        await health.set("", HealthCheckResponse.SERVING)
        lifecycle.ready()
        log.info("ready", listen=settings.listen, port=port, engine=settings.engine, share=settings.share)
        if settings.fsync == "everysec":
            await service.partitions.sync_every_second()

    owning = asyncio.create_task(own_share())
    stopping = asyncio.create_task(lifecycle.stopping.wait())
    try:
        await asyncio.wait({owning, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if owning.done():
            owning.result()  # raises what kept the store from owning its share
            await stopping
    finally:
        stopping.cancel()
        owning.cancel()
        await asyncio.gather(owning, stopping, return_exceptions=True)
        await health.set("", HealthCheckResponse.NOT_SERVING)
        await service.close()
        await server.stop(STOP_GRACE)
        await service.partitions.close()
        log.info("stopped")


if __name__ == "__main__":
    run(StoreSettings, serve)
