"""The store: how it is built, when it is ready, and how it stops."""

from __future__ import annotations

import asyncio
import re
from secrets import token_hex

from grpc_health.v1.health_pb2 import HealthCheckResponse

from socketcluster_runtime import rpc
from socketcluster_runtime.lifecycle import Lifecycle
from socketcluster_runtime.logs.logging import get_logger
from socketcluster_runtime.metrics import Counters, Gauges
from socketcluster_runtime.sockets import descriptors
from socketcluster_store.data.channel_rules import ChannelRules
from socketcluster_store.data.procedures import Procedures, load
from socketcluster_store.engine import Engine, EnginePartition
from socketcluster_store.engines.lmdb.engine import LmdbEngine
from socketcluster_store.engines.memory import MemoryEngine
from socketcluster_store.engines.valkey.engine import ValkeyEngine
from socketcluster_store.engines.valkey.servers import Servers
from socketcluster_store.executor import ExecutorOptions
from socketcluster_store.links import Links
from socketcluster_store.ownership.partitions import Partitions
from socketcluster_store.partition.channel_troubles import ChannelTroubles
from socketcluster_store.partition.deadlines import condition_of_refusals
from socketcluster_store.partition.partition import Partition
from socketcluster_store.servicer import StoreServicer, add_to_server
from socketcluster_store.settings import StoreSettings
from socketcluster_store.streams import StreamServer, stream_address
from socketcluster_store_client.partitioning import PARTITION_COUNT

log = get_logger(__name__)

STOP_GRACE = 2.0
"""Seconds that calls have to end when the store stops; links end at once."""
ENDING_AT_ONCE = 2
"""Partitions that end what is due in one turn of the loop: operations come in between."""


async def serve(settings: StoreSettings, lifecycle: Lifecycle) -> None:
    """Serve until asked to stop; ready once every partition that the store is to own is owned."""
    secret = settings.shared_secret()
    tls = settings.rpc_tls()
    procedures = Procedures()
    if not await lifecycle.unless_stopping(load(procedures, settings.store_controller)):
        return
    server, health = rpc.server(secret)
    lifecycle.keep(tls)
    store_id = make_store_id(settings.name)
    engine = make_engine(settings, store_id, procedures)
    await engine.connect()
    store = StoreService(settings, engine, store_id)
    add_to_server(store.servicer, server)
    for numbers in store.metrics:
        lifecycle.metrics.register(numbers)
    await health.set("", HealthCheckResponse.NOT_SERVING)
    streams = store.servicer.streams = StreamServer(store.servicer.Link, tls, lifecycle.room)
    # before gRPC, which would take a Unix socket from another store
    await streams.listen(settings.stream_listen or stream_address(settings.listen))
    try:
        port = rpc.listen(server, settings.listen, tls)
    except BaseException:
        await streams.close()
        raise
    await server.start()

    async def say_ready() -> None:
        await store.partitions.settled.wait()
        await rpc.set_serving(health, serving=not store.partitions.aside)
        lifecycle.ready()
        place = {} if rpc.is_local(settings.listen) else {"port": port, "stream_port": streams.port}
        log.info("ready", listen=settings.listen, **place, engine=settings.engine, store=store_id)
        if settings.fsync == "everysec":
            await store.partitions.sync_every_second()
        await lifecycle.stopping.wait()

    async def say_aside() -> None:
        await store.partitions.settled.wait()
        while await store.partitions.aside_changed.wait():
            store.partitions.aside_changed.clear()
            await rpc.set_serving(health, serving=not store.partitions.aside)

    owning = asyncio.create_task(store.partitions.run())
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
        await store.servicer.close()
        await asyncio.gather(owning, serving, stopping, aside, return_exceptions=True)
        await engine.disconnect()
        await streams.close()
        await server.stop(STOP_GRACE)
        log.info("stopped")


class StoreService:
    """A store's parts, put together front to back: the links of workers, the partitions, and what serves them.

    Args:
        settings: the store's.
        engine: keeps the data.
        store_id: what no other store is called.
    """

    def __init__(self, settings: StoreSettings, engine: Engine, store_id: str) -> None:
        self._settings = settings
        self.links = Links()
        # what all partitions have in common
        self._channel_rules = ChannelRules(settings.channel_history, settings.max_history_channels)
        self._channel_troubles = ChannelTroubles()
        self._unapplied = condition_of_refusals()
        self._turns = asyncio.Semaphore(ENDING_AT_ONCE)
        self.partitions = Partitions(
            engine,
            self._make_partition,
            lambda: self.links.announce(self.partitions.announcement()),
            membership=lambda on_change: engine.membership(settings.store_hang_timeout, on_change),
            store_id=store_id,
            hang_timeout=settings.store_hang_timeout,
            linked=lambda: any(True for _ in self.links),
            fits=descriptors.partitions_that_fit(descriptors.raise_limit(), engine.descriptors, PARTITION_COUNT),
        )
        self.servicer = StoreServicer(settings, engine, store_id, self.links, self.partitions)
        self.metrics = (
            Gauges(
                (
                    "socketcluster_store_partitions",
                    "Partitions that this store owns.",
                    lambda: len(self.partitions.owned),
                ),
            ),
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
            ),
        )
        """What it tells of itself in numbers."""

    def _make_partition(self, opened: EnginePartition) -> Partition:
        return Partition(
            opened,
            session_timeout=self._settings.session_timeout,
            max_value_bytes=self._settings.max_value_bytes,
            channel_rules=self._channel_rules,
            message_id_window=self._settings.message_id_window,
            tell_workers=self.links.tell,
            on_fenced=self.partitions.fenced,
            turns=self._turns,
            unapplied=self._unapplied,
            channel_troubles=self._channel_troubles,
            linked=lambda: {link.process for link in self.links},
        )


def make_engine(settings: StoreSettings, store_id: str, procedures: Procedures) -> Engine:
    """Make the engine that the settings name."""
    options = ExecutorOptions(
        settings.max_value_bytes,
        max_session_bytes=settings.max_session_bytes,
        procedures=procedures,
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
