"""The engine that keeps partitions in Valkey or Redis, where stores of many machines find them.

The store that owns a partition has read it into its memory, where batches are carried out. What they change goes to
Valkey in one script, which compares the owner and the epoch first; so does a batch of reads only. Nothing is answered
before it has said yes. Batches that come meanwhile wait, and travel together. docs/design/valkey.md says more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NoReturn

from socketcluster_runtime.logs.logging import get_logger
from socketcluster_store.commands import Command, Outcome
from socketcluster_store.data import applied_log
from socketcluster_store.data.trees import records
from socketcluster_store.engine import Engine, EnginePartition
from socketcluster_store.engines.sorted_map import SortedMap
from socketcluster_store.engines.valkey import scripts
from socketcluster_store.engines.valkey.draft import Draft
from socketcluster_store.engines.valkey.durability import Durability
from socketcluster_store.engines.valkey.losses import Had, Loss, Losses, Written, writes_of
from socketcluster_store.engines.valkey.membership import ValkeyMembership
from socketcluster_store.engines.valkey.scripts import OWN_FIELDS, partition_key, stores_key
from socketcluster_store.engines.valkey.servers import Servers
from socketcluster_store.errors import EngineError, FencedError, PartitionLockedError, UnreachableError
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
BATCHES_AT_ONCE = 1000
"""Batches that travel in one call."""
MAX_WAITING = 100_000
"""Batches of a partition that may wait for the call under way."""
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

    def _call_of(self, key: bytes, epoch: int) -> _Call:
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


_Call = Callable[..., Any]


class ValkeyPartition(EnginePartition):
    """A partition in this store's memory and in Valkey; one call of its own is under way at a time."""

    def __init__(
        self,
        number: int,
        epoch: int,
        life: bytes,
        values: SortedMap,
        executor: Executor,
        call: _Call,
        on_closed: Callable[[ValkeyPartition], None],
        breaks: Callable[[], int],
        breaks_before: int,
        losses: Losses,
        on_given_up: Callable[[int, Had], None],
    ) -> None:
        self.number = number
        self.epoch = epoch
        self.life = life
        self._kv = Draft(values)
        self._executor = executor
        self.clock = executor.clock
        self._call = call
        self._on_closed = on_closed
        self._breaks = breaks
        self._breaks_seen = breaks_before  # when the server was known to have everything
        self._batch = 0
        self._written = Written()
        self._losses = losses
        self._on_given_up = on_given_up
        self._waiting: deque[tuple[Sequence[Command], asyncio.Future[list[Outcome]]]] = deque()
        self._sender: asyncio.Task[None] | None = None
        self._lost: FencedError | None = None

    async def apply(self, batch: Sequence[Command]) -> list[Outcome]:
        if self._lost is not None:
            raise FencedError(str(self._lost))
        if len(self._waiting) >= MAX_WAITING:
            raise EngineError(f"partition {self.number}: {MAX_WAITING} batches wait for Valkey")
        future: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        self._waiting.append((batch, future))
        if self._sender is None:
            self._sender = asyncio.create_task(self._send())
        return await future

    def next_expiry(self) -> float | None:
        return self._executor.next_expiry()

    async def records(self) -> list[tuple[str, bytes]]:
        return records(self._kv)

    async def applied(self) -> list[tuple[bytes, bytes]]:
        return list(self._kv.scan(applied_log.PREFIX))

    @property
    def fenced(self) -> bool:
        return self._lost is not None

    @property
    def told(self) -> bool:
        return self._lost is not None and self._lost.told

    @property
    def unsure(self) -> bool:
        """Is it yet to be noted that the server has everything? Since a connection was made it may be another one."""
        return self._lost is None and self._breaks_seen != self._breaks()

    async def sync(self) -> None:
        """Have nothing to do: Valkey forces to the disk what it is told to."""

    async def check(self) -> None:
        """Find out whether the partition is still this store's."""
        try:
            await self.apply([])
        except FencedError:
            pass  # it knows now
        except EngineError as error:
            log.debug("a partition could not be checked", partition=self.number, error=str(error))

    async def close(self) -> None:
        while self._sender is not None:
            await asyncio.wait({self._sender})
        lost, self._lost = self._lost, FencedError(f"partition {self.number} is closed")
        try:
            if lost is None:
                await self._call(scripts.CONFIRM, self._batch, 1)
        except EngineError as error:  # the next owner takes it, or this store opens it again
            log.info("a partition could not be released", partition=self.number, error=str(error))
        finally:
            self._on_closed(self)

    async def _send(self) -> None:
        """Carry out what waits, and send it, until nothing waits."""
        await asyncio.sleep(0)  # what comes in this turn of the loop travels together
        while self._waiting:
            group = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCHES_AT_ONCE))]
            done = []
            writes = 0
            for batch, future in group:
                try:
                    done.append((self._executor.apply(self._kv, batch), future))
                    if self._kv.keep():
                        writes += writes_of(batch)
                except Exception as error:  # of this batch alone
                    self._forget(self._kv.discard)
                    _fail(future, error)
            try:
                await self._write(writes)
            except Exception as error:
                self._forget(self._kv.undo)
                for _, future in done:
                    _fail(future, error)
            else:
                self._kv.commit()
                for outcomes, future in done:
                    if not future.done():
                        future.set_result(outcomes)
            if self._lost is not None:
                for _, future in self._waiting:
                    _fail(future, self._lost)
                self._waiting.clear()
            elif self.unsure:
                await self._confirm()
        self._sender = None

    async def _write(self, writes: int) -> None:
        """Have the owner confirmed and what the batches changed written, at once.

        Args:
            writes: how many operations that is.

        Raises:
            FencedError: the partition is this store's no longer.
            EngineError: nothing was written.
        """
        if self._lost is not None:
            raise FencedError(str(self._lost))
        puts: list[bytes] = []
        deletes: list[bytes] = []
        for key, value in self._kv.changes():
            if value is None:
                deletes.append(key)
            else:
                puts += (key, value)
        number = self._batch + bool(puts or deletes)
        try:
            script = scripts.LOOK if number == self._batch else scripts.APPLY
            status, *detail = await self._call(script, number, len(puts), *puts, *deletes)
        except UnreachableError as error:
            # it may be written or not, or even be written later; the next opening puts an end to that
            self._on_given_up(self.number, Had(self.epoch, self._batch, self._written, self._kv.kept()))
            self._lose(str(error), told=True)
        if status == b"FENCED":
            owner, epoch = detail
            if epoch and int(epoch) >= self.epoch:
                # a Valkey that was emptied has forgotten who its owners were
                self._lose(f"it was taken over by {owner.decode() or 'nobody'}", told=self._losses.recent)
            self._note_loss(None, emptied=not epoch)
            self._lose("Valkey lost it" if epoch else "Valkey lost all of it", told=True)
        if status != b"DONE":
            self._note_loss(self._batch - int(detail[0]))
            self._lose(f"Valkey lost batches: it has {detail[0].decode()} of {self._batch}", told=True)
        if number != self._batch:
            self._batch = number
            self._written.add(writes)

    def _note_loss(self, calls: int | None, *, emptied: bool = False) -> None:
        """Tell what is lost: what was written with so many calls, or (``None``) since the partition was opened."""
        writes, exact = self._written.lost(calls)
        self._losses.add(Loss(self.number, writes, self._kv.kept() if emptied else 0, emptied, exact))

    async def _confirm(self) -> None:
        """Have it noted that the server has everything, if that is so, for whoever opens the partition next."""
        breaks = self._breaks()
        try:
            await self._call(scripts.CONFIRM, self._batch, 0)
        except EngineError as error:
            log.debug("it could not be noted what a server has", partition=self.number, error=str(error))
        else:
            self._breaks_seen = breaks

    def _lose(self, why: str, *, told: bool = False) -> NoReturn:
        self._lost = FencedError(f"partition {self.number} is this store's no longer: {why}")
        self._lost.told = told
        log.debug("a partition is lost", partition=self.number, why=why)
        raise self._lost

    def _forget(self, undo: Callable[[], None]) -> None:
        undo()
        self._executor.forget()


def _fail(future: asyncio.Future[list[Outcome]], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
