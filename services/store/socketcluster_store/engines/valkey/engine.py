"""The engine that keeps partitions in Valkey or Redis, where stores of many machines find them.

The store that owns a partition has read it into its memory, where batches are carried out. What they change goes to
Valkey in one script, which compares the owner and the epoch first; so does a batch of reads only. Nothing is answered
before it has said yes. Batches that come meanwhile wait, and travel together. docs/design/valkey.md says more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from socketcluster_runtime.logs.logging import get_logger
from socketcluster_store.engine import Engine, EnginePartition
from socketcluster_store.engines.sorted_map import SortedMap
from socketcluster_store.engines.valkey import scripts
from socketcluster_store.engines.valkey.durability import Durability
from socketcluster_store.engines.valkey.losses import Had, Losses
from socketcluster_store.engines.valkey.membership import ValkeyMembership
from socketcluster_store.engines.valkey.partition import CallScript, ValkeyPartition
from socketcluster_store.engines.valkey.scripts import OWN_FIELDS, partition_key, stores_key
from socketcluster_store.engines.valkey.servers import Servers
from socketcluster_store.errors import EngineError, FencedError, PartitionLockedError
from socketcluster_store.executor import Executor, ExecutorOptions
from socketcluster_store.ownership.membership import Membership

log = get_logger(__name__)

BEGUN_AT_ONCE = 32
"""Partitions of which the first keys are read at a time: most have no more, and may be far away."""
OPENED_AT_ONCE = 4
"""Partitions that are read at a time beyond their first keys: what they all have would hold up the calls of those
that are open, until ``valkey_timeout`` ended these and the readings too, for ever."""
LOADED_AT_FIRST = 16
LOADED_AT_ONCE = 2000
"""Keys that are read in one call while a partition is opened: so many that they have about ``LOADED_BYTES``."""
LOADED_BYTES = 1024 * 1024
LOAD_ATTEMPTS = 3
ASK_AFTER = 1.0
"""Seconds that a partition is locked before its holder is asked whether it knows of it."""


class ValkeyEngine(Engine):
    """Partitions of one application.

    Args:
        servers: where they are.
        options: of what carries commands out.
        app_name: of the application.
        store_id: in whose name they are locked.
        replicas: how many replicas must have a batch before it counts as applied.
        allow_eviction: go on though a server evicts partitions when its memory is full.
    """

    name = "valkey"
    remote = True

    def __init__(
        self,
        servers: Servers,
        options: ExecutorOptions,
        *,
        app_name: str,
        store_id: str,
        replicas: int = 0,
        allow_eviction: bool = False,
    ) -> None:
        self._servers = servers
        self._options = options
        self._app_name = app_name
        self._store_id = store_id
        self._replicas = replicas
        self._open_ones: dict[int, ValkeyPartition | None] = {}  # None: it is being opened
        self._beginning = asyncio.Semaphore(BEGUN_AT_ONCE)
        self._opening = asyncio.Semaphore(OPENED_AT_ONCE)
        self._locked_since: dict[int, float] = {}
        self._members: ValkeyMembership | None = None
        self._tasks: set[asyncio.Future[object]] = set()
        self._checking: asyncio.Future[object] | None = None
        self._durability = Durability(servers.all, wait_replicas=replicas, allow_eviction=allow_eviction)
        self._watching: asyncio.Task[None] | None = None
        self._given_up: dict[int, Had] = {}
        self.losses = Losses()
        """What was found to be lost."""
        servers.on_break = self._check_unsure

    async def connect(self) -> None:
        await self._servers.connect()
        try:
            await self._durability.check()
        except BaseException:
            await self._servers.close()
            raise
        self._watching = asyncio.create_task(self._durability.watch(also=self._check_all))

    async def disconnect(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})
        self._durability.close()
        self.losses.tell()
        if self._members is not None:
            await self._members.close()
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._servers.close()

    @property
    def lost_writes(self) -> int:
        return self.losses.writes

    @property
    def lost_partitions(self) -> int:
        return self.losses.partitions

    def membership(self, hang_timeout: float, on_change: Callable[[], None]) -> Membership:
        self._members = ValkeyMembership(
            self._servers,
            stores_key(self._app_name),
            self._store_id,
            hang_timeout,
            on_change,
            on_away=self._check_all,
            on_asked=self._answer,
        )
        return self._members

    async def open(self, number: int) -> EnginePartition:
        return await self._open(number, "")

    async def take(self, number: int, holder: str) -> EnginePartition:
        partition = await self._open(number, holder)
        self._tell(f"taken {number} {holder}")
        return partition

    async def _open(self, number: int, holder: str) -> EnginePartition:
        self._open_ones[number] = None  # before its turn comes: who asks for it is not to be given it
        partition = None
        try:
            partition = await self._lock_and_load(number, holder)
        finally:
            if partition is None:
                del self._open_ones[number]
            else:
                self._open_ones[number] = partition
        return partition

    async def _lock_and_load(self, number: int, holder: str) -> ValkeyPartition:
        key = partition_key(self._app_name, number)
        breaks = self._servers.breaks
        reply, detail, *more = await self._servers.call(
            key, scripts.OPEN, self._store_id, holder, replicas=self._replicas, sign=True
        )
        if reply == b"LOCKED":
            self._ask(number, detail.decode())
            raise PartitionLockedError(f"another store owns partition {number:02}", detail.decode())
        self._locked_since.pop(number, None)
        since, *before = more
        had = self._given_up.pop(number, None)
        if had is not None and (loss := had.loss(number, *before)) is not None:
            self.losses.add(loss)
        return ValkeyPartition(
            number,
            int(detail),
            since,
            await self._load(key, int(detail)),
            Executor(number, self._options),
            self._call_of(key, int(detail)),
            self._closed,
            lambda: self._servers.breaks,
            breaks,
            self.losses,
            self._given_up.__setitem__,
        )

    async def _load(self, key: bytes, epoch: int) -> SortedMap:
        """Read a partition that is this store's: nobody changes it meanwhile."""
        for _ in range(LOAD_ATTEMPTS):
            values: dict[bytes, bytes] = {}
            async with self._beginning:
                cursor, count, fields = await self._load_some(key, epoch, b"0", LOADED_AT_FIRST, values)
            if cursor != b"0":
                async with self._opening:
                    while cursor != b"0":
                        cursor, count, fields = await self._load_some(key, epoch, cursor, count, values)
            if len(values) == fields:
                for name in OWN_FIELDS:
                    del values[name]
                return SortedMap(values)
            # a cursor is worth nothing on another server: the key moved, or a replica took over
        raise EngineError(f"{key.decode()} cannot be read: it moves")

    async def _load_some(
        self, key: bytes, epoch: int, cursor: bytes, count: int, values: dict[bytes, bytes]
    ) -> tuple[bytes, int, int]:
        """Read some of a partition; return the next cursor, how many to read there, and how many fields there are."""
        following, found, *rest = await self._servers.call(key, scripts.LOAD, self._store_id, epoch, cursor, count)
        if following == b"FENCED":
            raise FencedError(f"{key.decode()} was taken over while it was read")
        values.update(zip(found[::2], found[1::2], strict=True))
        fit = count * LOADED_BYTES // max(1, sum(map(len, found)))
        return following, max(1, min(fit, 4 * count, LOADED_AT_ONCE)), rest[0]

    def _call_of(self, key: bytes, epoch: int) -> CallScript:
        async def call(script: scripts.Script, *args: Any) -> Any:
            replicas = 0 if script is scripts.CONFIRM else self._replicas
            if replicas and script is scripts.LOOK:  # a server that is cut off does not know who took its place
                script = scripts.READ
            return await self._servers.call(key, script, self._store_id, epoch, *args, replicas=replicas)

        return call

    def _closed(self, partition: ValkeyPartition) -> None:
        if self._open_ones.get(partition.number) is partition:  # else it was lost, and is opened again
            del self._open_ones[partition.number]
        self._tell(f"free {partition.number}")

    # What stores tell each other

    def _tell(self, text: str) -> None:
        if self._members is not None:
            self._run(self._members.tell(text))

    def _ask(self, number: int, holder: str) -> None:
        """Ask the holder of a partition that stays locked whether it has it at all."""
        now = asyncio.get_running_loop().time()
        if now - self._locked_since.setdefault(number, now) > ASK_AFTER:
            self._locked_since[number] = now
            self._tell(f"wanted {number} {holder}")

    def _answer(self, number: int) -> None:
        """Give up a partition that is this store's and that it has not open: it opened it by a call thought lost."""
        if number not in self._open_ones:
            self._run(self._free(number))

    async def _free(self, number: int) -> None:
        try:
            await (await self._open(number, "")).close()
        except EngineError as error:
            log.debug("a partition that was not open could not be freed", partition=number, error=str(error))

    def _check_unsure(self) -> None:
        if self._checking is None or self._checking.done():
            self._checking = self._run(self._confirm_all())

    async def _confirm_all(self) -> None:
        """Have it noted that the servers still have everything, which may be others now."""
        breaks = -1
        while breaks != self._servers.breaks:
            breaks = self._servers.breaks
            unsure = [each for each in self._open_ones.values() if each is not None and each.unsure]
            await asyncio.gather(*(partition.check() for partition in unsure))

    def _check_all(self) -> None:
        """Find out what was taken from this store while it gave no sign of life, or was lost while nobody used it."""
        for partition in list(self._open_ones.values()):
            if partition is not None:
                self._run(partition.check())

    def _run(self, work: Awaitable[object]) -> asyncio.Future[object]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
