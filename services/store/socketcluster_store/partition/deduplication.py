"""Operations that come again after a takeover or a broken link: known by their ids, and answered as the first time.

Operations of one worker reach a partition in the order of their ids, those that are sent again included. So all that
has to be remembered of a worker's process is the highest id that was applied, and the results that it may not have
received. Both are written in the batch that they tell of, by the command ``REMEMBER``: see ``applied_log``. Here is
what need not outlive an owner: whose turn it is, which streams there were, and what was refused and is in no record.

A result that is missing there was empty. Reads leave no trace: they are carried out again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from itertools import islice

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.commands import READS, Command, Outcome
from socketcluster_store.data.applied_log import AppliedLog, KeptResult, read_records, result_of
from socketcluster_store.data.channel_log import answer_of
from socketcluster_store.errors import InvalidError, NotOwnerError, Refusal
from socketcluster_store_client.messages import Operation

KEPT_SECONDS = 900
"""For how long a process that writes nothing and has no link is remembered, at least; longer than the longest
``store_timeout`` of a worker, who sends nothing again after that."""
FORGOTTEN_AT_ONCE = 100
"""Processes that are forgotten in one batch."""

NOT_OWNED = NotOwnerError("this store does not own the partition")
OUT_OF_ORDER = InvalidError("the ids of a worker's operations on a partition must rise")

NOT_REMEMBERED = READS | {
    store_pb2.VERB_SESSION_ATTACH,
    store_pb2.VERB_SESSION_DETACH,
    store_pb2.VERB_SESSION_EMIT,
    store_pb2.VERB_SESSION_CHECK,
    store_pb2.VERB_WATCH,
    store_pb2.VERB_UNWATCH,
    store_pb2.VERB_CHANNEL_SUBSCRIBE,
    store_pb2.VERB_CHANNEL_UNSUBSCRIBE,
}
"""The verbs of operations that may be carried out again: they change nothing, or nothing any more, or tell their
receivers, as emits do, which they are."""


class WorkerProcess:
    """What a partition knows of one process of a worker that writes to it."""

    __slots__ = ("_log", "_overtaken", "before", "busy", "lock", "refused", "stream")

    def __init__(self, log: AppliedLog) -> None:
        self._log = log
        self.stream = 0
        """The one of its streams that sent something last; see ``begin``."""
        self.before = log.highest
        """``highest`` when that stream began."""
        self.busy = 0
        """How many batches hold the lock, or wait for it."""
        self.lock = asyncio.Lock()
        """Held while its operations are applied: those of an earlier link of the process may still be under way."""
        self.refused: OrderedDict[int, KeptResult] = OrderedDict()
        """Of the operations after ``highest``, those that were refused. One that comes again is carried out; once a
        later one is applied, it is not to be taken for applied: its refusal becomes a result like others then."""
        self._overtaken: Sequence[KeptResult] = ()  # those of them that the batch under way makes results of

    @property
    def highest(self) -> int:
        """Of the operations that change something, the id of the last one that was applied."""
        return self._log.highest

    @property
    def at(self) -> float:
        """When that was."""
        return self._log.at

    def begin(self, stream: int) -> None:
        """Note which stream it is whose operations are applied next: on each, every operation comes once, in order."""
        if self.stream != stream:
            self.stream = stream
            self.before = self.highest

    def answer(self, operation: Operation) -> Outcome:
        """Return what became of an operation that was applied before."""
        if (outcome := self._log.outcome(operation.id)) is not None:
            return outcome
        return answer_of(b"") if operation.verb == store_pb2.VERB_CHANNEL_PUBLISH else b""

    def command(
        self,
        last: Operation,
        operations: Sequence[Operation],
        outcomes: Sequence[Outcome],
        places: Sequence[int],
        now: float,
    ) -> Command:
        """Return the command that ends a batch, so that it is known to be applied; the next one comes after ``settle``.

        Args:
            last: the last operation of the batch that changes something.
            operations: all of them.
            outcomes: what became already of those that have no command.
            places: of each command, which operation it carries out, or -1.
            now: seconds since the Unix epoch.
        """
        refused = _results_of(operations, outcomes) if any(outcomes) else []
        answered = last.id - last.behind
        self._overtaken = ()
        if self.refused:
            for operation in operations:  # those that were refused are carried out again
                self.refused.pop(operation.id, None)
            self._overtaken = self._overtaken_by(last.id, answered)
            refused += self._overtaken
        return self._log.command(last.id, answered, refused, lambda: _ids(operations, places), now)

    def plain_command(self, last: Operation, operations: Sequence[Operation], now: float) -> Command:
        """Return the same of a batch in which each operation has its command, while nothing is ``refused``."""
        self._overtaken = ()
        return self._log.command(
            last.id, last.id - last.behind, (), lambda: _ids(operations, range(len(operations))), now
        )

    def settle(self, operations: Sequence[Operation], outcomes: Sequence[Outcome]) -> None:
        """Note what became of the batch of the last ``command``, once it is committed."""
        new = _results_of(operations, outcomes) if any(outcomes) else []
        if self._overtaken:
            new = sorted((*new, *self._overtaken))
            for result in self._overtaken:
                del self.refused[result[0]]
        self._log.settle(new)

    def forgetting(self) -> Command | None:
        """Return the command that removes all that is kept of it, if anything is."""
        return self._log.forgetting() if self.highest else None

    def note_refused(self, operations: Sequence[Operation], outcomes: Sequence[Outcome]) -> None:
        """Note what was refused of a batch of which nothing was applied."""
        refused = self.refused
        for operation, outcome in zip(operations, outcomes, strict=True):
            if isinstance(outcome, Refusal) and operation.verb not in NOT_REMEMBERED:
                refused[operation.id] = result_of(operation.id, outcome)
                while (oldest := next(iter(refused))) < operation.id - operation.behind:  # the worker has the answer
                    del refused[oldest]

    def _overtaken_by(self, last: int, answered: int) -> list[KeptResult]:
        """Return what was refused before an operation, if the worker may not know."""
        for operation_id in [each for each in self.refused if each < answered]:
            del self.refused[operation_id]
        return [result for result in self.refused.values() if result[0] < last]


CarryOut = Callable[[Sequence[Operation], WorkerProcess], list[Outcome] | Awaitable[list[Outcome]]]
"""Carries operations out, and has ``WorkerProcess`` learn of them; what is to be awaited is awaited at once."""


class Deduplication:
    """What a partition remembers of the processes that write to it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Remember nothing yet; ``clock`` tells the partition's time."""
        self._processes: dict[str, WorkerProcess] = {}
        self._clock = clock

    def load(self, records: Iterable[tuple[bytes, bytes]]) -> None:
        """Take over what is in the partition's records."""
        self._processes = {name: WorkerProcess(log) for name, log in read_records(records).items()}

    def idle(self, name: str) -> WorkerProcess | None:
        """Return what is known of a process of which nothing is under way."""
        process = self._processes.get(name)
        return None if process is None or process.busy else process

    def sift(
        self, name: str, stream: int, epoch: int, operations: Sequence[Operation], carry_out: CarryOut
    ) -> list[Outcome] | Awaitable[list[Outcome]]:
        """Have those operations carried out that are new and meant for this owner; return what became of each.

        Where something has to be waited for, that is to be awaited at once.

        Args:
            name: of the process that sent them.
            stream: on which of its streams; each one begins after the last operation of those before it.
            epoch: of the partition.
            operations: in the order in which they came.
            carry_out: does it.
        """
        process = self._processes.get(name)
        if process is None:
            process = self._processes[name] = WorkerProcess(AppliedLog(name.encode(), at=self._clock()))
        if process.busy or not _all_fresh(operations, process.highest, epoch):
            return self._sift_later(process, stream, epoch, operations, carry_out)
        process.begin(stream)
        outcomes = carry_out(operations, process)
        return outcomes if isinstance(outcomes, list) else in_turn(process, outcomes)

    async def _sift_later(
        self, process: WorkerProcess, stream: int, epoch: int, operations: Sequence[Operation], carry_out: CarryOut
    ) -> list[Outcome]:
        async with _turn(process):
            process.begin(stream)
            highest = process.highest
            last = 0
            fresh: list[Operation] = []
            known: list[Outcome | None] = []
            for operation in operations:
                if operation.epoch not in (epoch, 0):
                    known.append(NOT_OWNED)
                    continue
                if operation.verb not in NOT_REMEMBERED:
                    if operation.id <= last or (operation.epoch and process.before < operation.id <= highest):
                        known.append(OUT_OF_ORDER)  # a later one came before it here: it is not known to be applied
                        continue
                    last = operation.id
                    if last <= highest:
                        known.append(process.answer(operation))
                        continue
                known.append(None)
                fresh.append(operation)
            carried_out = carry_out(fresh, process)
            done = iter(carried_out if isinstance(carried_out, list) else await carried_out)
            return [next(done) if outcome is None else outcome for outcome in known]

    async def forget(
        self, linked: Collection[str], apply: Callable[[Sequence[Command]], Awaitable[list[Outcome]]]
    ) -> bool:
        """Forget processes that have written nothing for long, some of many; return whether there are more.

        Args:
            linked: those that have a stream to this store.
            apply: applies a batch to the partition.

        Raises:
            EngineError: they could not be forgotten.
        """
        before = self._clock() - KEPT_SECONDS
        gone = {
            name: each
            for name, each in self._processes.items()
            if each.at < before and not each.busy and name not in linked
        }
        some = dict(islice(gone.items(), FORGOTTEN_AT_ONCE))
        async with contextlib.AsyncExitStack() as turns:
            for each in some.values():
                await turns.enter_async_context(_turn(each))
            if forgetting := [command for each in some.values() if (command := each.forgetting()) is not None]:
                await apply(forgetting)
            for name, each in some.items():
                if each.busy == 1:  # else it has come meanwhile, and writes its record anew
                    del self._processes[name]
        return len(gone) > len(some)


async def in_turn(process: WorkerProcess, outcomes: Awaitable[list[Outcome]]) -> list[Outcome]:
    """Wait for what is under way, and have what the process sends meanwhile wait for it."""
    async with _turn(process):
        return await outcomes


@contextlib.asynccontextmanager
async def _turn(process: WorkerProcess) -> AsyncIterator[None]:
    process.busy += 1
    try:
        async with process.lock:
            yield
    finally:
        process.busy -= 1


def _all_fresh(operations: Sequence[Operation], highest: int, epoch: int) -> bool:
    """Are all of them new, and are their ids in order?"""
    for operation in operations:
        if operation.epoch not in (epoch, 0):
            return False
        if operation.verb not in NOT_REMEMBERED:
            if operation.id <= highest:
                return False
            highest = operation.id
    return True


def _ids(operations: Sequence[Operation], places: Sequence[int]) -> list[int]:
    """Return of each command the id of the operation that it carries out, if its result is to be remembered, or 0."""
    return [
        operations[place].id if place >= 0 and operations[place].verb not in NOT_REMEMBERED else 0 for place in places
    ]


def _results_of(operations: Sequence[Operation], outcomes: Sequence[Outcome]) -> list[KeptResult]:
    """Return the results that are to be remembered: those that are not empty."""
    return [
        result_of(operation.id, outcome)
        for operation, outcome in zip(operations, outcomes, strict=True)
        if outcome != b"" and operation.verb not in NOT_REMEMBERED
    ]
