"""One owned partition: routes operations to its data, sessions and channels."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from functools import partial
from zlib import crc32

import msgspec

from socketcluster_proto.v1 import store_pb2
from socketcluster_runtime.logs.conditions import Condition
from socketcluster_store.commands import (
    NOTE_TIME,
    TAKE_TIME_OVER,
    WATCHED,
    Command,
    Outcome,
)
from socketcluster_store.data.channel_rules import ChannelRules
from socketcluster_store.engine import EnginePartition
from socketcluster_store.errors import EngineError, FencedError, InternalError
from socketcluster_store.links import WorkerLink
from socketcluster_store.partition import session_operations
from socketcluster_store.partition.batch import Answers, Batch, BatchBuilder
from socketcluster_store.partition.channel_troubles import ChannelTroubles
from socketcluster_store.partition.channels import Channels
from socketcluster_store.partition.deadlines import Deadlines, condition_of_refusals
from socketcluster_store.partition.deduplication import NOT_OWNED, Deduplication, WorkerProcess, in_turn
from socketcluster_store.partition.session_operations import CHANGES_SESSION
from socketcluster_store.partition.sessions import Sessions
from socketcluster_store.partition.validation import MAX_ID_BYTES, Validation
from socketcluster_store.partition.watchers import Watchers
from socketcluster_store_client.messages import Operation
from socketcluster_store_client.partitioning import PARTITION_COUNT

EXPIRY_GRACE = 2.0
"""Seconds from a partition's opening in which no session ends: twice a worker's longest pause between two attempts to
link, so that the workers hear of the sessions that end."""

_GET = store_pb2.VERB_GET
_SET = store_pb2.VERB_SET
_EMIT = store_pb2.VERB_SESSION_EMIT
_decode_watched = msgspec.msgpack.Decoder(list[tuple[bytes, tuple[str, ...]]]).decode


class Partition:
    """A partition that this store owns; ``load`` it first. Whoever ends what is due takes one of the ``turns``."""

    def __init__(
        self,
        engine: EnginePartition,
        *,
        session_timeout: float,
        max_value_bytes: int,
        channel_rules: ChannelRules,
        message_id_window: float,
        tell_workers: Callable[[Iterable[store_pb2.Event]], None],
        on_fenced: Callable[[int], None],
        turns: asyncio.Semaphore,
        linked: Callable[[], Collection[str]] = tuple,
        unapplied: Condition | None = None,
        channel_troubles: ChannelTroubles | None = None,
    ) -> None:
        """Prepare it; ``linked`` returns the processes of workers that have a stream to this store.

        What the engine refuses is told by ``unapplied`` and ``channel_troubles``, for all partitions of a store
        together.
        """
        self._unapplied = unapplied or condition_of_refusals()
        self.number = engine.number
        self.epoch = engine.epoch
        self._engine = engine
        self._clock = engine.clock
        self._sessions = Sessions(session_timeout)
        self._channels: Channels[WorkerLink] = Channels(
            channel_rules, message_id_window, engine, engine.clock, channel_troubles
        )
        self._watchers = Watchers()
        self._deduplication = Deduplication(engine.clock)
        self._deadlines = Deadlines(
            engine,
            self._sessions,
            self._watchers,
            tell_workers=tell_workers,
            on_fenced=on_fenced,
            turns=turns,
            unapplied=self._unapplied,
            forget=lambda: self._deduplication.forget(linked(), engine.apply),
        )
        self._changes = session_operations.SessionChanges()
        self._builder = BatchBuilder(
            engine.number,
            engine.clock,
            sessions=self._sessions,
            channels=self._channels,
            watchers=self._watchers,
            changes=self._changes,
            validation=Validation(engine.number, max_value_bytes),
        )
        self._tell_workers = tell_workers
        self._on_fenced = on_fenced
        self._is_lost = False
        self._applying = 0
        self._idle = asyncio.Event()

    async def load(self) -> None:
        """Take over the sessions that the partition remembers; call it once, first."""
        _done, watched = await self._engine.apply([Command(TAKE_TIME_OVER, b""), Command(WATCHED, b"")])
        now = self._clock()
        self._sessions.load(await self._engine.records(), now, earliest=now + EXPIRY_GRACE)
        if isinstance(watched, bytes):
            self._watchers.load(_decode_watched(watched), now)
        self._deduplication.load(await self._engine.applied())
        await self._deadlines.load(now)
        await self._channels.load()

    @property
    def fenced(self) -> bool:
        """Was the partition taken from this process?"""
        return self._engine.fenced

    @property
    def told(self) -> bool:
        """Has the log been told why?"""
        return self._engine.told

    @property
    def taken(self) -> bool:
        """Is that known already?"""
        return self._engine.taken

    @property
    def distrusted(self) -> str:
        """Why its files are not used again; empty: they are."""
        return self._engine.distrusted

    def apply(
        self, link: WorkerLink, operations: Sequence[Operation]
    ) -> list[Outcome] | Coroutine[None, None, list[Outcome]]:
        """Apply operations of one link, and return what became of each; nothing is told to anyone before the commit.

        Where something has to be waited for, that is to be awaited at once.
        """
        answered = self._apply_plain(link, operations)
        if answered is not None:
            return answered
        outcomes = self._deduplication.sift(
            link.process, link.stream, self.epoch, operations, partial(self._carry_out, link)
        )
        return outcomes if isinstance(outcomes, list) else self._finished(outcomes)

    async def _finished(self, outcomes: Awaitable[list[Outcome]]) -> list[Outcome]:
        self._applying += 1
        try:
            return await outcomes
        finally:
            self._applying -= 1
            if not self._applying:
                self._idle.set()

    def _apply_plain(
        self, link: WorkerLink, operations: Sequence[Operation]
    ) -> list[Outcome] | Coroutine[None, None, list[Outcome]] | None:
        """Do what ``apply`` does for ``get`` and ``set`` to which nothing else happens, in half the time.

        ``None``: there is something else, and nothing was done, or nothing that is not to be done once more.
        """
        process = self._deduplication.idle(link.process)
        if process is None or process.stream != link.stream:
            return None
        highest, epoch = process.highest, self.epoch
        watchers = self._watchers
        may_set = highest and not (watchers.links or watchers.alone or process.refused)  # its truth would cost a call
        over = self._sessions.over
        commands: list[Command] = []
        last: Operation | None = None
        for operation in operations:
            session_id = operation.session_id
            owner = session_id.encode()
            if (
                operation.id <= highest
                or (operation.epoch != epoch and operation.epoch)
                or len(owner) > MAX_ID_BYTES
                or crc32(owner) % PARTITION_COUNT != self.number
                or session_id in over
            ):
                return None
            verb = operation.verb
            if verb == _GET:
                commands.append(Command(verb, owner, operation.keys))
            elif verb == _SET and may_set and (not owner or self._sessions.attached(session_id)):
                last = operation
                highest = operation.id
                commands.append(Command(verb, owner, operation.keys, operation.value))
            else:
                return None
        now = 0.0
        if last is not None:
            now = self._clock()
            commands.append(process.plain_command(last, operations, now))
        try:
            answers = self._engine.apply_now(commands)
        except EngineError:
            return None  # the general way meets it too, and says so
        if not isinstance(answers, list):
            batch = Batch(link, operations, now)
            batch.commands, batch.places, batch.last = commands, [*range(len(operations)), -1], last
            return self._finished(in_turn(process, self._complete_later(batch, process, answers)))
        if last is not None:
            answers.pop()
            process.settle(operations, answers)
        return answers

    def _carry_out(
        self, link: WorkerLink, operations: Sequence[Operation], process: WorkerProcess
    ) -> list[Outcome] | Awaitable[list[Outcome]]:
        if self._is_lost:  # it waited for its turn
            return [NOT_OWNED] * len(operations)
        if not operations:
            return []
        if self._changes.ends and (ahead := self._changes.ahead(operations)):
            return self._carry_out_behind(ahead, link, operations, process)
        batch = self._builder.build(link, operations, process)
        answers: Answers = []
        try:
            # what is answered from memory asks the engine, too: the partition may be another's, or a write not settled
            applying = self._engine.apply_now(batch.commands)
        except EngineError as error:
            answers = error
        else:
            if not isinstance(applying, list):
                return self._complete_later(batch, process, applying)
            answers = applying
        return self._complete(batch, process, answers)

    async def _carry_out_behind(
        self,
        ahead: Iterable[asyncio.Future[None]],
        link: WorkerLink,
        operations: Sequence[Operation],
        process: WorkerProcess,
    ) -> list[Outcome]:
        """Wait for what decides whether sessions are over, and is told: what it refuses is written with the batch."""
        await asyncio.wait(ahead)
        if self._engine.fenced:  # nobody knows whether that was kept
            return [NOT_OWNED] * len(operations)
        outcomes = self._carry_out(link, operations, process)
        return outcomes if isinstance(outcomes, list) else await outcomes

    async def _complete_later(
        self, batch: Batch, process: WorkerProcess, applying: Awaitable[list[Outcome]]
    ) -> list[Outcome]:
        answers: Answers
        try:
            try:
                answers = await applying
            except EngineError as error:
                answers = error
            return self._complete(batch, process, answers)
        finally:
            self._changes.end(batch.messages)

    def _complete(self, batch: Batch, process: WorkerProcess, answers: Answers) -> list[Outcome]:
        """Take what became of a batch's commands, tell whom it concerns, and return what became of its operations."""
        self._changes.end(batch.messages)  # whoever waits for that goes on when this has been told
        outcomes = batch.outcomes
        last = batch.last
        if isinstance(answers, FencedError):
            self._on_fenced(self.number)
            return [NOT_OWNED] * len(outcomes)
        if isinstance(answers, EngineError):
            if not answers.told:
                self._unapplied.add(partition=self.number, error=str(answers))
            self._builder.undo(batch)
            outcomes = [InternalError(str(answers))] * len(outcomes)
            process.note_refused(batch.operations, outcomes)
            self._deadlines.arm()
            return outcomes
        if batch.commands:
            for place, answer in zip(batch.places, answers, strict=False):  # CHANGES has no place
                if place >= 0:
                    outcomes[place] = answer
            for place, key in batch.watches:
                if not isinstance(outcomes[place], bytes):
                    self._watchers.refused(batch.link, key)
            if batch.tells:
                self._deadlines.tell(answers[-1], batch.link)
            if batch.deadlines:
                self._deadlines.arm()
        for place, operation in batch.messages:
            outcome = outcomes[place]
            if operation.verb == _EMIT:
                session_operations.emit(batch.link, operation, self._sessions)
            elif not isinstance(outcome, bytes):
                continue
            elif operation.verb in CHANGES_SESSION:
                self._tell_workers(session_operations.changed(operation, self._sessions))
            else:
                outcomes[place] = self._channels.finish(operation, outcome, batch.now)
        if last is not None:
            process.settle(batch.operations, outcomes)
        elif batch.refused:
            process.note_refused(batch.operations, outcomes)
        return outcomes

    async def release(self, link: WorkerLink, session_ids: Iterable[str]) -> None:
        """Detach what a lost link still holds."""
        now = self._clock()
        for session_id in session_ids:
            if self._sessions.release(session_id, link, now) is not None:
                self._sessions.refused([session_id])
        await self._deadlines.write_records()
        self._deadlines.arm()

    def unsubscribe(self, link: WorkerLink, names: Iterable[str]) -> None:
        """Remove a link from channels."""
        now = self._clock()
        for name in names:
            self._channels.unsubscribe(name, link, now)

    def unwatch(self, link: WorkerLink) -> None:
        """Remove a link that has ended from the key chains that it watches."""
        self._watchers.remove(link, self._clock())
        self._deadlines.arm_watches()

    async def sync(self) -> None:
        """Force what was applied to the disk."""
        await self._engine.sync()

    def lose(self) -> None:
        """Know that another store owns the partition: nothing is carried out any more, and ``close`` is to follow.

        Links are forgotten at once: this store may open the partition again before all that is under way has ended, and
        what they hold then is not this object's.
        """
        self._forget_links()
        self._is_lost = True

    def _forget_links(self) -> None:
        if not self._is_lost:
            self._sessions.forget_holders()
            self._channels.forget_subscribers()

    async def abandon(self) -> None:
        """Let go of a partition that could not be loaded.

        Raises:
            EngineError: the engine failed once more.
        """
        await self._deadlines.close()
        await self._engine.close()

    async def close(self) -> None:
        """Give the partition up, once what is under way is applied; what it holds is on the disk then."""
        await self._deadlines.close()
        while self._applying:
            self._idle.clear()
            await self._idle.wait()
        if not self._is_lost:
            await self._deadlines.write_records()
        self._forget_links()  # not before: who holds a session is what its record is to say
        try:
            with contextlib.suppress(EngineError):  # what keeps it from being noted is told by what follows
                await self._engine.apply([Command(NOTE_TIME, b"")])
            with contextlib.suppress(FencedError):
                await self._channels.close()
        finally:
            await self._engine.close()
