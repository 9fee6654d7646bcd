"""A partition in Valkey that this store owns: carried out in memory, written by one script at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from socketcluster_runtime.logs.logging import get_logger
from socketcluster_store.commands import Command, Outcome
from socketcluster_store.data import applied_log
from socketcluster_store.data.trees import records
from socketcluster_store.engine import EnginePartition
from socketcluster_store.engines.sorted_map import SortedMap
from socketcluster_store.engines.valkey import scripts
from socketcluster_store.engines.valkey.draft import Draft
from socketcluster_store.engines.valkey.losses import Had, Loss, Losses, WritesPerCall, writes_of
from socketcluster_store.errors import EngineError, FencedError, UnreachableError
from socketcluster_store.executor import Executor

log = get_logger(__name__)

BATCHES_AT_ONCE = 1000
"""Batches that travel in one call."""
MAX_WAITING = 100_000
"""Batches of a partition that may wait for the call under way."""

CallScript = Callable[..., Any]
"""Calls a script on the partition's key as its owner: with the script and what it is given."""


class ValkeyPartition(EnginePartition):
    """A partition in this store's memory and in Valkey; one call of its own is under way at a time."""

    def __init__(
        self,
        number: int,
        epoch: int,
        life: bytes,
        values: SortedMap,
        executor: Executor,
        call: CallScript,
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
        self._written = WritesPerCall()
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
