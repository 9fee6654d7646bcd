"""Which partitions this store owns: those that rendezvous hashing gives it, as stores come, go and hang."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
from collections.abc import Callable

from socketcluster_proto.v1 import store_pb2
from socketcluster_runtime.logs.conditions import Condition
from socketcluster_runtime.logs.logging import get_logger
from socketcluster_store.engine import Engine, EnginePartition
from socketcluster_store.errors import EngineError, FencedError, IncompleteError, PartitionLockedError, UnreachableError
from socketcluster_store.ownership.membership import HEARTBEAT, Membership
from socketcluster_store.ownership.rendezvous import share_of
from socketcluster_store.ownership.standing_aside import StandingAside
from socketcluster_store.partition.partition import Partition
from socketcluster_store_client.partitioning import PARTITION_COUNT

log = get_logger(__name__)

FIRST_PAUSE = 0.002
"""Seconds between the first two attempts to open partitions that another store holds; it doubles."""
LONGEST_PAUSE = 0.05
BROKEN_PAUSE = 5.0
"""Seconds between the first two attempts to open a partition that cannot be opened; they double."""
LONGEST_UNOPENED_PAUSE = 30.0
"""Up to that: who has mended it waits no longer."""
LONGEST_BROKEN_PAUSE = 60.0
"""Seconds before a partition is copied again whose disk has failed again and again: they double up to that."""
STEADY = 60.0
"""Seconds that a partition is open, after which a failure of its disk counts as the first one."""
LONG_WAIT = 10.0
"""Seconds that another process has a partition, after which the log says so, and again after as many minutes."""
MOVED_AT_ONCE = 8
"""Partitions that are given up together: the others go on meanwhile."""
_OTHERS = (PartitionLockedError, FencedError)
"""What says that another store has a partition, or took it while it was opened here."""
LOOK_EVERY = 8
"""Signs of life of this store between two in which it looks whether what a partition's lock is on is still there."""
SYNC_INTERVAL = 1.0
"""Seconds from a write to the sync, with ``fsync=everysec``."""


class Partitions:
    """The partitions that this store owns, each open and loaded.

    Args:
        engine: opens them.
        load: makes a partition of what the engine opened.
        on_change: called when others are owned than before.
        membership: makes what tells which stores live, of what is to be called when that changes.
        linked: returns whether a worker is linked to this store.
        store_id: this store's.
        hang_timeout: seconds after which a silent store's partitions are taken over.
        fits: how many partitions this process has descriptors for.
    """

    def __init__(
        self,
        engine: Engine,
        load: Callable[[EnginePartition], Partition],
        on_change: Callable[[], None],
        *,
        membership: Callable[[Callable[[], None]], Membership],
        store_id: str,
        hang_timeout: float,
        linked: Callable[[], bool] = lambda: True,
        fits: int = PARTITION_COUNT,
    ) -> None:
        self.owned: dict[int, Partition] = {}
        self.settled = asyncio.Event()
        """Set once this store has owned all that it wants."""
        self._engine = engine
        self._fits = fits
        self._opening = 0
        self._make = load
        self._on_change = on_change
        self._store_id = store_id
        self._hang_timeout = hang_timeout
        self._changed = asyncio.Event()
        self._members = membership(self._changed.set)
        self.aside_changed = asyncio.Event()
        """Set when this store begins, or ends, to stand aside."""
        self._standing_aside = StandingAside(self._members, linked, self.aside_changed.set)
        self._wanted: frozenset[int] = frozenset()
        self._openings: dict[int, asyncio.Task[None]] = {}
        self._waiting_since: dict[int, float] = {}
        self._broken_until: dict[int, float] = {}
        self._broken: dict[int, str] = {}  # those that could not be opened at the last attempt, and why
        self._pauses: dict[int, float] = {}  # the last one of each that cannot be opened
        self._unopened = Condition(
            log, "partitions cannot be opened", over="no partition is left that cannot be opened", level="error"
        )
        self._unseen = Condition(
            log, "the other stores cannot be seen", over="the other stores are seen again", level="error"
        )
        self._unsynced = Condition(
            log, "partitions could not be synced", over="partitions are synced again", level="error"
        )
        self._disks: dict[int, tuple[float, float]] = {}  # of which the disk failed: the last pause, and opened when
        self._locked_since: dict[int, float] = {}
        self._locked_told = -math.inf
        self._closing = False
        self._ended = asyncio.Event()
        self._fenced = 0  # that were not told of yet
        self._given_up = 0  # likewise; the log has read why
        self._announcing: asyncio.Handle | None = None
        self._closings: set[asyncio.Task[None]] = set()

    @property
    def aside(self) -> bool:
        """Does this store own nothing because no worker reaches it?"""
        return self._members.is_aside

    def announcement(self) -> store_pb2.Announcement:
        """Return what workers are told about the ownership."""
        return store_pb2.Announcement(
            store_id=self._store_id,
            partitions=[
                store_pb2.Ownership(partition=number, epoch=partition.epoch) for number, partition in self.owned.items()
            ],
            broken=[store_pb2.Broken(partition=number, reason=reason) for number, reason in self._broken.items()],
        )

    async def run(self) -> None:
        """Own what this store is to own, until ``close``.

        Raises:
            EngineError: the first partitions cannot be opened.
        """
        try:
            await self._members.join()
        except BaseException:
            self._ended.set()
            raise
        beating = asyncio.create_task(self._beat())
        try:
            pause = FIRST_PAUSE
            while not self._closing:
                if self._changed.is_set():
                    self._changed.clear()
                    self._wanted = share_of(self._store_id, self._members.sharing)
                    pause = FIRST_PAUSE
                    for number in self._broken.keys() - self._wanted:
                        self._note_broken(number, None)
                        self._broken_until.pop(number, None)
                await self._give_up([number for number in self.owned if number not in self._wanted])
                wait: float | None = pause
                if await self._open_missing():
                    self.settled.set()
                    wait = LONGEST_PAUSE if self._broken_until else None  # nothing is due before something changes
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._changed.wait()
                pause = min(2 * pause, LONGEST_PAUSE)
        finally:
            beating.cancel()
            await asyncio.wait({beating})
            self._standing_aside.close()
            if self._openings:
                await asyncio.wait(self._openings.values())
            self._ended.set()

    async def sync_every_second(self) -> None:
        """Sync every partition a second after something was written to any, until cancelled."""
        unsynced = self._engine.unsynced
        while unsynced is not None:
            await unsynced.wait()
            await asyncio.sleep(SYNC_INTERVAL)
            unsynced.clear()
            for partition in list(self.owned.values()):
                try:
                    await partition.sync()
                except EngineError as error:
                    if not partition.fenced:  # else it was taken over, and need not be synced any more
                        self._unsynced.add(partition=partition.number, error=str(error))
                        unsynced.set()

    def fenced(self, number: int) -> None:
        """Own a partition no longer: it was taken over while this store hung.

        What is told of one that this store has lost and opened again meanwhile is no news.
        """
        partition = self.owned.get(number)
        if partition is not None and partition.fenced:
            del self.owned[number]
            partition.lose()
            if partition.distrusted:
                self._note_disk(number, partition.distrusted)
            if partition.told:
                self._given_up += 1
            else:
                self._fenced += 1
            self._announce_soon()
            self._changed.set()  # it may be this store's to open again
            task = asyncio.create_task(self._close([partition]))
            self._closings.add(task)
            task.add_done_callback(self._closings.discard)

    async def close(self) -> None:
        """Hand all partitions over to the other stores, or leave them to this one's successor."""
        self._closing = True
        await self._members.leave()
        self._changed.set()
        await self._ended.wait()
        for number in list(self._broken):
            self._note_broken(number, None)
        await self._give_up(list(self.owned))
        if self._closings:
            await asyncio.wait(self._closings)
        for condition in (self._unopened, self._unseen, self._unsynced):
            condition.close()

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        before = loop.time()
        for beat in itertools.cycle(range(LOOK_EVERY)):
            await asyncio.sleep(self._members.interval)
            now = loop.time()
            # else no other store took this one for hung; a remote engine may be told of it at any time
            late = now - before > 2 * self._members.interval or self._engine.remote
            before = now
            try:
                await self._members.look()
                self._standing_aside.look()
            except EngineError as error:
                if not error.told:
                    self._unseen.add(error=str(error))
            else:
                self._unseen.end()
            for number, partition in list(self.owned.items()):
                if partition.fenced if number % LOOK_EVERY == beat else late and partition.taken:
                    self.fenced(number)

    async def _give_up(self, numbers: list[int]) -> None:
        for start in range(0, len(numbers), MOVED_AT_ONCE):
            group = [
                partition
                for number in numbers[start : start + MOVED_AT_ONCE]
                if (partition := self.owned.pop(number, None)) is not None
            ]
            self._on_change()
            await self._close(group)
        if self._fits < PARTITION_COUNT:  # then others may fit now
            self._broken_until.clear()
            self._pauses.clear()

    async def _close(self, group: list[Partition]) -> None:
        for outcome in await asyncio.gather(*(partition.close() for partition in group), return_exceptions=True):
            if isinstance(outcome, BaseException) and not (
                isinstance(outcome, FencedError) or getattr(outcome, "told", False)
            ):
                log.error("a partition could not be closed", error=str(outcome))

    async def _open_missing(self) -> bool:
        """Open what is to be owned and free; return whether nothing else is to be waited for."""
        now = asyncio.get_running_loop().time()
        missing = [number for number in self._wanted if number not in self.owned]
        for number in missing:
            if number not in self._openings and self._broken_until.get(number, 0) <= now:
                self._broken_until.pop(number, None)
                self._openings[number] = asyncio.create_task(self._open(number))
        if self._openings:  # those that take long are waited for beside what else changes
            await asyncio.wait(self._openings.values(), timeout=HEARTBEAT if self._engine.remote else None)
        outcomes = {number: opening.exception() for number, opening in self._openings.items() if opening.done()}
        for number in outcomes:
            del self._openings[number]
        self._note_locked(outcomes, now)
        broken = unusable = 0
        for number, outcome in outcomes.items():
            if outcome is None or isinstance(outcome, _OTHERS):
                self._note_broken(number, None)
            if outcome is None:
                self._waiting_since.pop(number, None)
            elif not isinstance(outcome, _OTHERS):
                if not isinstance(outcome, EngineError):
                    raise outcome
                broken += not outcome.told
                unusable += not isinstance(outcome, IncompleteError)  # else the store can do nothing better than wait
                self._note_unopened(number, outcome, now)
                if unusable == len(outcomes) and not (self._openings or self.owned or self.settled.is_set()):
                    raise outcome
                self._note_broken(number, str(outcome))
        if broken:
            self._unopened.add(partitions=sorted(self._broken))
        elif not self._broken:
            self._unopened.end()
        return all(number in self.owned or number in self._broken_until for number in missing)

    def _note_unopened(self, number: int, error: EngineError, now: float) -> None:
        """Say once that a partition cannot be opened, and try it again after a pause that grows."""
        if number not in self._broken and not error.told:
            log.error("a partition cannot be opened", partition=number, error=str(error))
        if isinstance(error, UnreachableError) or self._broken_until.get(number, 0) > now:  # it waits already
            return
        pause = self._pauses[number] = min(max(BROKEN_PAUSE, 2 * self._pauses.get(number, 0)), LONGEST_UNOPENED_PAUSE)
        self._broken_until[number] = now + pause

    def _note_disk(self, number: int, reason: str) -> None:
        """Note that the disk failed under an open partition. To open it again is to copy it: not again and again."""
        now = asyncio.get_running_loop().time()
        pause, opened_at = self._disks.get(number, (0.0, -math.inf))
        again = now - opened_at < STEADY
        pause = min(max(BROKEN_PAUSE, 2 * pause), LONGEST_BROKEN_PAUSE) if again else 0.0
        self._disks[number] = pause, opened_at
        if pause:
            self._broken_until[number] = now + pause
            self._note_broken(number, reason)

    def _note_locked(self, outcomes: dict[int, BaseException | None], now: float) -> None:
        """Log which partitions other processes have for longer than any move or takeover lasts, and why."""
        locked = {number: each for number, each in outcomes.items() if isinstance(each, PartitionLockedError)}
        self._locked_since = {
            number: self._locked_since.get(number, now)
            for number in (*locked, *(self._locked_since.keys() & self._openings.keys()))
        }
        long = [number for number in locked if now - self._locked_since[number] >= LONG_WAIT]
        if long and now - self._locked_told >= 60 * LONG_WAIT:
            self._locked_told = now
            log.warning(
                "partitions wait for other processes; those that are no stores of this application are to be ended",
                partitions=sorted(long),
                holders=sorted({locked[number].holder for number in long}),
                reason=str(locked[long[0]]),
            )

    def _note_broken(self, number: int, reason: str | None) -> None:
        """Tell workers that a partition cannot be opened, or that it is another matter now (``None``)."""
        if reason is not None:
            reason += self._engine.advice
        if self._broken.get(number) == reason:
            return
        if reason is None:
            del self._broken[number]
            self._pauses.pop(number, None)
        else:
            self._broken[number] = reason
        self._announce_soon()

    async def _open(self, number: int) -> None:
        """Open and load a partition.

        Raises:
            PartitionLockedError: another store has it.
            FencedError: another store took it meanwhile, because this one hung, and is opening it.
            EngineError: it cannot be opened or read.
        """
        # where all fit, those that are lost and still being closed count for nothing
        if self._fits < PARTITION_COUNT and len(self.owned) + len(self._closings) + self._opening >= self._fits:
            full = EngineError(
                f"partition {number} is not opened: this process may have descriptors for {self._fits} partitions only;"
                " raise the hard limit (ulimit -Hn, LimitNOFILE=, compose's ulimits), or run more stores"
            )
            full.told = True  # at the start, and as a condition
            raise full
        self._opening += 1
        try:
            await self._open_counted(number)
        finally:
            self._opening -= 1

    async def _open_counted(self, number: int) -> None:
        try:
            opened = await self._engine.open(number)
        except PartitionLockedError as error:
            if not self._may_take(number, error.holder):
                raise
            opened = await self._engine.take(number, error.holder)
        partition = self._make(opened)
        if number in self._disks:
            self._disks[number] = self._disks[number][0], asyncio.get_running_loop().time()
        try:
            await partition.load()
        except BaseException as error:
            fenced = opened.fenced
            distrusted = opened.distrusted
            if distrusted:
                self._note_disk(number, distrusted)
            try:
                await partition.abandon()
            except EngineError as closing:
                log.warning("a partition could not be closed", partition=number, error=str(closing))
            if distrusted and isinstance(error, Exception):
                raise EngineError(f"partition {number} cannot be opened: {distrusted}") from error
            if fenced and isinstance(error, Exception):  # whatever the error was: the data was taken away meanwhile
                raise FencedError(f"partition {number} was taken over while it was opened") from error
            if isinstance(error, EngineError) or not isinstance(error, Exception):
                raise
            log.exception("a partition cannot be loaded", partition=number)
            raise EngineError(f"what partition {number} holds cannot be read: {error!r}") from error
        self.owned[number] = partition
        self._announce_soon()

    def _announce_soon(self) -> None:
        """Tell of what changes in this turn of the loop together."""
        if self._announcing is None:
            self._announcing = asyncio.get_running_loop().call_soon(self._announce)

    def _announce(self) -> None:
        self._announcing = None
        self._on_change()
        if self._fenced:
            log.error("partitions were lost: this store hung, or could not reach their data", partitions=self._fenced)
            self._fenced = 0
        if self._given_up:
            log.info("partitions are given up, and opened again as soon as that is possible", partitions=self._given_up)
            self._given_up = 0

    def _may_take(self, number: int, holder: str) -> bool:
        """Does the holder of a partition hang? A store that stops is no member any more, and is given time."""
        if not holder or holder in self._members.live:
            return False
        since = self._waiting_since.setdefault(number, asyncio.get_running_loop().time())
        return holder in self._members.hung or asyncio.get_running_loop().time() - since > self._hang_timeout
