"""Operations that come again after a takeover or a broken link: known by their ids, and answered as the first time.

Operations of one worker reach a partition in the order of their ids, those that are sent again included. So all that
has to be remembered of a worker's process is the highest id that was applied, and the results that it may not have
received. Both are written in the batch that they tell of, by the command ``REMEMBER``: see ``applied``.

A result that is missing there was empty. Reads leave no trace: they are carried out again.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from functools import partial
from itertools import islice

from socketcluster_store.commands import Command, Outcome
from socketcluster_store.data.applied_log import NOT_REMEMBERED, Applied, is_remembered, read_records, results_of
from socketcluster_store.errors import InvalidError, NotOwnerError
from socketcluster_store_client.messages import Operation

KEPT_SECONDS = 900
"""For how long a process that writes nothing and has no link is remembered, at least; longer than the longest
``store_timeout`` of a worker, who sends nothing again after that."""
FORGOTTEN_AT_ONCE = 100
"""Processes that are forgotten in one batch."""

NOT_OWNED = NotOwnerError("this store does not own the partition")
OUT_OF_ORDER = InvalidError("the ids of a worker's operations on a partition must rise")

CarryOut = Callable[[Sequence[Operation], Applied], list[Outcome] | Awaitable[list[Outcome]]]
"""Carries operations out, and has ``Applied`` learn of them; what is to be awaited is awaited at once."""


class Repeats:
    """What a partition remembers of the processes that write to it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Remember nothing yet; ``clock`` tells the partition's time."""
        self._processes: dict[str, Applied] = {}
        self._clock = clock

    def load(self, records: Iterable[tuple[bytes, bytes]]) -> None:
        """Take over what is in the partition's records."""
        self._processes = read_records(records)

    def idle(self, process: str) -> Applied | None:
        """Return what is known of a process of which nothing is under way."""
        applied = self._processes.get(process)
        return None if applied is None or applied.busy else applied

    def sift(
        self, process: str, stream: int, epoch: int, operations: Sequence[Operation], carry_out: CarryOut
    ) -> list[Outcome] | Awaitable[list[Outcome]]:
        """Have those operations carried out that are new and meant for this owner; return what became of each.

        Where something has to be waited for, that is to be awaited at once.

        Args:
            process: which sent them.
            stream: on which of its streams; each one begins after the last operation of those before it.
            epoch: of the partition.
            operations: in the order in which they came.
            carry_out: does it.
        """
        applied = self._processes.get(process)
        if applied is None:
            applied = self._processes[process] = Applied(process.encode(), at=self._clock())
        if applied.busy or not _all_fresh(operations, applied.highest, epoch):
            return self._sift_later(applied, stream, epoch, operations, carry_out)
        applied.begin(stream)
        outcomes = carry_out(operations, applied)
        return outcomes if isinstance(outcomes, list) else in_turn(applied, outcomes)

    async def _sift_later(
        self, applied: Applied, stream: int, epoch: int, operations: Sequence[Operation], carry_out: CarryOut
    ) -> list[Outcome]:
        async with _turn(applied):
            applied.begin(stream)
            highest = applied.highest
            last = 0
            fresh: list[Operation] = []
            known: list[Outcome | None] = []
            for operation in operations:
                if operation.epoch not in (epoch, 0):
                    known.append(NOT_OWNED)
                    continue
                if is_remembered(operation):
                    if operation.id <= last or (operation.epoch and applied.before < operation.id <= highest):
                        known.append(OUT_OF_ORDER)  # a later one came before it here: it is not known to be applied
                        continue
                    last = operation.id
                    if last <= highest:
                        known.append(applied.answer(operation))
                        continue
                known.append(None)
                fresh.append(operation)
            carried_out = carry_out(fresh, applied)
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
            if forgetting := [each.forgetting() for each in some.values() if each.highest]:
                await apply(forgetting)
            for name, each in some.items():
                if each.busy == 1:  # else it has come meanwhile, and writes its record anew
                    del self._processes[name]
        return len(gone) > len(some)

    def command(
        self,
        applied: Applied,
        last: Operation,
        operations: Sequence[Operation],
        outcomes: Sequence[Outcome],
        places: Sequence[int],
        now: float,
    ) -> Command:
        """Return the command that ends a batch, so that it is known to be applied.

        Args:
            applied: of the process that sent it.
            last: the last operation of the batch that changes something.
            operations: all of them.
            outcomes: what became already of those that have no command.
            places: of each command, which operation it carries out, or -1.
            now: seconds since the Unix epoch.
        """
        refused = results_of(operations, outcomes) if any(outcomes) else []
        if applied.refused:
            applied.try_again(operations)
        return applied.command(last, refused, partial(_ids, operations, places), now)


async def in_turn(applied: Applied, outcomes: Awaitable[list[Outcome]]) -> list[Outcome]:
    """Wait for what is under way, and have what the process sends meanwhile wait for it."""
    async with _turn(applied):
        return await outcomes


@contextlib.asynccontextmanager
async def _turn(applied: Applied) -> AsyncIterator[None]:
    applied.busy += 1
    try:
        async with applied.lock:
            yield
    finally:
        applied.busy -= 1


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
