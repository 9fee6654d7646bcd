"""``python -m socketcluster_store``: runs a store until it is asked to stop."""

from __future__ import annotations

import asyncio
import re
from secrets import token_hex

from grpc_health.v1.health_pb2 import HealthCheckResponse

from socketcluster_runtime import rpc
from socketcluster_runtime.lifecycle import Lifecycle, run
from socketcluster_runtime.logs.logging import get_logger
from socketcluster_runtime.metrics import Counters, Gauges
from socketcluster_store.data import procedures
from socketcluster_store.engine import Engine
from socketcluster_store.engines.lmdb.engine import LmdbEngine
from socketcluster_store.engines.memory import MemoryEngine
from socketcluster_store.engines.valkey.engine import ValkeyEngine
from socketcluster_store.engines.valkey.servers import Servers
from socketcluster_store.executor import ExecutorOptions
from socketcluster_store.service import StoreService, add_to_server
from socketcluster_store.settings import StoreSettings

log = get_logger(__name__)

STOP_GRACE = 2.0
"""Seconds that calls have to end when the store stops; links end at once."""


def make_engine(settings: StoreSettings, store_id: str) -> Engine:
    """Make the engine that the settings name."""
    options = ExecutorOptions(
        settings.max_value_bytes,
        max_session_bytes=settings.max_session_bytes,
        procedures=procedures.load(settings.store_controller),
        procedure_timeout=settings.procedure_timeout,
    )
    folder = settings.data_dir / settings.app_name
    if settings.engine == "memory":  # in a folder of its own: who takes a partition over removes its former folder
        return MemoryEngine(folder / "memory", options, store_id=store_id)
    if settings.valkey_url is not None and settings.engine == "valkey":
        return ValkeyEngine(
            Servers(settings.valkey_url.get_secret_value(), settings.valkey_timeout),
            options,
            app_name=settings.app_name,
            store_id=store_id,
            replicas=settings.valkey_wait_replicas,
            allow_eviction=settings.valkey_allow_eviction,
        )
    return LmdbEngine(folder / "partitions", options, store_id=store_id, sync_each_commit=settings.fsync == "always")


def make_store_id(name: str) -> str:
    """Return what no store was called before; it is a file's name."""
    return f"{re.sub(r'[^A-Za-z0-9_.]', '_', name).lstrip('.')[:64]}-{token_hex(4)}"


async def serve(settings: StoreSettings, lifecycle: Lifecycle) -> None:
    """Serve until asked to stop; ready once every partition that the store is to own is owned."""
    server, health = rpc.server(settings.shared_secret())
    tls = settings.rpc_tls()
    lifecycle.keep(tls)
    store_id = make_store_id(settings.name)
    engine = make_engine(settings, store_id)
    await engine.connect()
    service = StoreService(settings, engine, store_id)
    add_to_server(service, server)
    lifecycle.metrics.register(
        Gauges(
            (
                "socketcluster_store_partitions",
                "Partitions that this store owns.",
                lambda: len(service.partitions.owned),
            ),
        )
    )
    lifecycle.metrics.register(
        Counters(
            (
                "socketcluster_store_lost_writes",
                "Acknowledged writes that Valkey was found to have lost.",
                lambda: engine.lost_writes,
            ),
            (
                "socketcluster_store_lost_partitions",
                "How often a partition was found to have lost acknowledged writes in Valkey.",
                lambda: engine.lost_partitions,
            ),
        )
    )
    await health.set("", HealthCheckResponse.NOT_SERVING)
    port = rpc.listen(server, settings.listen, tls)
    await server.start()

    async def say_ready() -> None:
        await service.partitions.settled.wait()
        await rpc.set_serving(health, serving=not service.partitions.aside)
        lifecycle.ready()
        place = {} if settings.listen.startswith("unix:") else {"port": port}
        log.info("ready", listen=settings.listen, **place, engine=settings.engine, store=store_id)
        if settings.fsync == "everysec":
            await service.partitions.sync_every_second()
        await lifecycle.stopping.wait()

    async def say_aside() -> None:
        await service.partitions.settled.wait()
        while await service.partitions.aside_changed.wait():
            service.partitions.aside_changed.clear()
            await rpc.set_serving(health, serving=not service.partitions.aside)

    owning = asyncio.create_task(service.partitions.run())
    aside = asyncio.create_task(say_aside())
    serving = asyncio.create_task(say_ready())
    stopping = asyncio.create_task(lifecycle.stopping.wait())
    try:
        await asyncio.wait({owning, serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if owning.done():
            owning.result()  # raises what kept the store from serving
        if serving.done():
            serving.result()
    finally:
        for task in (stopping, serving, aside):
            task.cancel()
        await health.set("", HealthCheckResponse.NOT_SERVING)
        await service.close()
        await asyncio.gather(owning, serving, stopping, aside, return_exceptions=True)
        await engine.disconnect()
        await server.stop(STOP_GRACE)
        log.info("stopped")


if __name__ == "__main__":
    run(StoreSettings, serve)
