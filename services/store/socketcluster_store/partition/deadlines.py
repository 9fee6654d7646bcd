"""What ends with time in a partition: sessions, values, and watches that nobody comes back for.

And what is tried again after a while: to write the records of sessions that the engine refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import msgspec

from socketcluster_proto.v1 import store_pb2
from socketcluster_runtime.logs.conditions import Condition
from socketcluster_runtime.logs.logging import get_logger
from socketcluster_store.commands import CHANGES, END_SESSION, EXPIRE_DUE, NOTE_TIME, Command, Outcome
from socketcluster_store.data.watches import KeyChange
from socketcluster_store.engine import EnginePartition
from socketcluster_store.errors import EngineError, FencedError, Refusal
from socketcluster_store.links import WorkerLink
from socketcluster_store.partition import session_operations
from socketcluster_store.partition.sessions import Sessions
from socketcluster_store.partition.timer import DeadlineTimer
from socketcluster_store.partition.watchers import Watchers

log = get_logger(__name__)


def condition_of_refusals() -> Condition:
    """Return what tells that the engine refuses what is to be written: one for all partitions of a store."""
    return Condition(log, "batches cannot be applied", over="batches are applied again", level="error")


RETRY_PAUSE = 1.0
"""Seconds until it is tried again to end sessions that the engine could not remove."""
ENDED_AT_ONCE = 128
"""Sessions that are ended in one batch; operations come between two batches."""
UPKEEP_EVERY = 300.0
"""Seconds between two looks at what is to be forgotten or noted."""
NOTED_EVERY = 3600.0
"""Seconds between two notes of the partition's time; each write is one, too."""

_UNWATCH = store_pb2.VERB_UNWATCH
_decode_changes = msgspec.msgpack.Decoder(list[KeyChange]).decode


class Deadlines:
    """Ends what is due; whoever does takes one of the ``turns``."""

    def __init__(
        self,
        engine: EnginePartition,
        sessions: Sessions,
        watchers: Watchers,
        *,
        tell_workers: Callable[[Iterable[store_pb2.Event]], None],
        on_fenced: Callable[[int], None],
        turns: asyncio.Semaphore,
        forget: Callable[[], Awaitable[bool]],
        unapplied: Condition,
    ) -> None:
        """Prepare it; ``forget`` forgets some processes that are long gone, and returns whether there are more.

        That the engine refuses what is to be written is told by ``unapplied``.
        """
        self._unapplied = unapplied
        self._number = engine.number
        self._engine = engine
        self._sessions = sessions
        self._watchers = watchers
        self._tell_workers = tell_workers
        self._on_fenced = on_fenced
        self._turns = turns
        self._forget = forget
        self._clock = engine.clock
        self._records_failed = False
        self._session_end = DeadlineTimer(self._end_due, engine.clock)
        self._expiry = DeadlineTimer(self._expire_due, engine.clock)
        self._watch_end = DeadlineTimer(self._forget_watches, engine.clock)
        self._upkeep = DeadlineTimer(self._keep_up, engine.clock)
        self._noted = 0.0
        self._recording = DeadlineTimer(self.write_records, engine.clock)
        self._timers = (self._session_end, self._expiry, self._watch_end, self._upkeep, self._recording)

    async def load(self, now: float) -> None:
        """Remove what became due while nobody owned the partition, and keep the time from now on."""
        due = self._engine.next_expiry()
        if due is not None and due <= now:
            await self._expire_due()
        self._noted = now
        self._upkeep.set(now + UPKEEP_EVERY)
        self.arm()

    def arm(self) -> None:
        """Have the timers fire when the next session, key chain or watch is due."""
        self._expiry.set(self._engine.next_expiry())
        if self._watchers:
            self.arm_watches()
        self._session_end.set(self._sessions.next_deadline())
        if self._sessions.unwritten:
            self._recording.set(self._clock() + RETRY_PAUSE)

    def arm_watches(self) -> None:
        """Have the timer fire when the next watch is due."""
        self._watch_end.set(self._watchers.next())

    def stop(self) -> None:
        """Leave what is due from now on to the partition's next owner."""
        for timer in self._timers:
            timer.stop()

    async def close(self) -> None:
        """Do the same, and return when nothing is being ended any more."""
        self.stop()
        for timer in self._timers:
            await timer.close()

    def tell(self, changes: Outcome, link: WorkerLink | None) -> None:
        """Tell watchers what ``CHANGES`` returned; what began and stopped in between concerns ``link``."""
        if isinstance(changes, bytes):
            self._watchers.tell(_decode_changes(changes), link, self._clock())

    async def _expire_due(self) -> None:
        """Remove the values whose time has come; the timer's."""
        try:
            async with self._turns:
                await asyncio.sleep(0)
                expired, changes = await self._engine.apply([Command(EXPIRE_DUE, b""), Command(CHANGES, b"")])
        except EngineError as error:
            self._failed("values could not be expired", error)
            self._expiry.set(self._clock() + RETRY_PAUSE)
            return
        if isinstance(expired, Refusal):
            log.error("a value could not be expired", partition=self._number, error=str(expired))
        self.tell(changes, None)
        self._expiry.set(self._engine.next_expiry())

    async def _forget_watches(self) -> None:
        """Count no longer what nobody has watched for a while; the timer's."""
        forgotten = self._watchers.due(self._clock())
        if forgotten:
            try:
                commands = [Command(_UNWATCH, session_id, chain) for session_id, chain in forgotten]
                *_done, changes = await self._engine.apply([*commands, Command(CHANGES, b"")])
                self.tell(changes, None)
            except EngineError as error:
                self._failed("watches could not be ended", error)
                self._watchers.load(forgotten, self._clock())
        self.arm_watches()

    async def _end_due(self) -> None:
        """End the sessions whose time has come; the timer's."""
        ended: list[str] = []
        try:
            async with self._turns:
                await asyncio.sleep(0)  # else all partitions would have their turns before any operation
                ended = self._sessions.due(self._clock(), ENDED_AT_ONCE)
                if ended:
                    over = self._sessions.over
                    forgotten = {session_id: over[session_id] for session_id in ended if session_id in over}
                    commands = [Command(END_SESSION, session_id.encode()) for session_id in ended]
                    answers = await self._engine.apply([*commands, Command(CHANGES, b"")])
                    self.tell(answers[-1], None)
                    self._tell_workers(session_operations.ended(each for each in ended if each not in over))
                    self._tell_workers(session_operations.written(ended, self._sessions))
                    for session_id, until in forgotten.items():
                        if over.get(session_id) == until:  # else it was ended once more meanwhile
                            del over[session_id]
        except EngineError as error:
            self._failed("sessions could not be ended", error)
            self._sessions.postpone(ended, self._clock() + RETRY_PAUSE)
            self._sessions.refused(ended)
        finally:
            self.arm()

    async def _keep_up(self) -> None:
        """Forget processes that are gone, and note the time; the timer's."""
        try:
            more = True
            while more:
                more = await self._forget()
                await asyncio.sleep(0)  # operations come in between
        except EngineError as error:
            self._failed("processes could not be forgotten", error)
        if self._clock() >= self._noted + NOTED_EVERY:
            await self._note_time()
        self._upkeep.set(self._clock() + UPKEEP_EVERY)

    async def write_records(self) -> None:
        """Write the records of sessions that the engine refused when they changed; a timer's, too."""
        while self._sessions.unwritten:
            session_ids, commands = session_operations.unwritten(self._sessions, ENDED_AT_ONCE)
            if not commands:
                continue
            try:
                *_done, changes = await self._engine.apply([*commands, Command(CHANGES, b"")])
            except EngineError as error:
                if not self._records_failed or isinstance(error, FencedError):  # else it is told already
                    self._failed("who has which sessions could not be written", error)
                self._records_failed = True
                self._sessions.refused(session_ids)
                self._recording.set(self._clock() + RETRY_PAUSE)
                return
            self._records_failed = False
            self.tell(changes, None)
            self._tell_workers(session_operations.written(session_ids, self._sessions))

    async def _note_time(self) -> None:
        """Keep the partition's time for an owner on another machine, or after the next boot."""
        try:
            await self._engine.apply([Command(NOTE_TIME, b"")])
            self._noted = self._clock()
        except EngineError as error:
            self._failed("the time could not be noted", error)

    def _failed(self, what: str, error: EngineError) -> None:
        if isinstance(error, FencedError):
            self._on_fenced(self._number)
        elif not error.told:
            self._unapplied.add(partition=self._number, what=what, error=str(error))
