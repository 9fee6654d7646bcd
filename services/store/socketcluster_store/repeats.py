"""Operations that come again after a takeover or a broken link: known by their ids, and answered as the first time.

Operations of one worker reach a partition in the order of their ids, those that are sent again included. So all that
has to be remembered of a worker's process is the highest id that was applied, and the results that it may not have
received. That is one small record a process, which is written in the batch that it tells of::

    o <worker>/<incarnation>    MessagePack: [highest id, when, [[id, error code, result, error name], ...]]

The time is in seconds since the Unix epoch. A result that is missing in the record was empty. Reads leave no trace:
they are carried out again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import partial

import msgspec

from socketcluster_proto.v1 import store_pb2
from socketcluster_runtime.messages import Operation
from socketcluster_store.channels import PUBLISH, answer_of
from socketcluster_store.clock import clock
from socketcluster_store.engines.base import FORGET, READS, REMEMBER, Command, KeyValue, Outcome
from socketcluster_store.errors import NotOwnerError, Refusal, refusal_of

KEPT_SECONDS = 900
"""For how long a process that writes nothing is remembered; longer than the longest ``store_timeout`` of a worker."""
KEPT_BYTES = 16 * 1024 * 1024
"""Bytes of results in one record; of older ones it is only known that they were applied."""

PREFIX = b"o"

NOT_OWNED = NotOwnerError("this store does not own the partition")

_NOT_REMEMBERED = READS | {
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

_Result = tuple[int, int, bytes, str]  # id, error code or 0, result or the error's text, name of a procedure's error
_LOST = (store_pb2.Error.CODE_RESULT_LOST, b"applied before, but its result was too large to be kept", "")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, int, list[_Result]]).decode


class Applied:
    """What is known of one process of a worker."""

    __slots__ = ("at", "busy", "highest", "lock", "process", "results")

    def __init__(self, process: bytes, highest: int = 0, at: float = 0, results: Iterable[_Result] = ()) -> None:
        self.process = process
        self.highest = highest
        """Of the operations that change something, the last one's id."""
        self.at = at
        self.results = {result[0]: result for result in results}
        self.busy = 0
        """How many batches hold the lock, or wait for it."""
        self.lock = asyncio.Lock()
        """Held while its operations are applied: those of an earlier link of the process may still be under way."""

    def answer(self, operation: Operation) -> Outcome:
        """Return what became of an operation that was applied before."""
        if (found := self.results.get(operation.id)) is None:
            return answer_of(b"") if operation.verb == PUBLISH else b""
        _, code, result, name = found
        return refusal_of(code, result.decode(), name) if code else result

    def command(self, last: Operation, refused: list[_Result], ids: Callable[[], Sequence[int]], now: float) -> Command:
        """Return the command that ends a batch; see ``Repeats.commands``."""
        if self.results:
            answered = last.id - last.behind
            self.results = {number: result for number, result in self.results.items() if number >= answered}
        record = (last.id, int(now), [*self.results.values(), *refused])
        return Command(REMEMBER, self.process, (), _encode(record), ids=ids)

    def settle(
        self,
        last: Operation,
        operations: Sequence[Operation],
        outcomes: Sequence[Outcome],
        now: float,
    ) -> None:
        """Note what became of a batch, once it is committed; ``last`` is its last operation that changes something."""
        self.highest = last.id
        self.at = now
        if any(outcomes) and (new := _results(operations, outcomes)):
            self.results = {result[0]: result for result in _bounded([*self.results.values(), *new])}


CarryOut = Callable[[Sequence[Operation], Applied], list[Outcome] | Awaitable[list[Outcome]]]
"""Carries operations out, and has ``Applied`` learn of them; what is to be awaited is awaited at once."""


class Repeats:
    """What a partition remembers of the processes that write to it."""

    def __init__(self) -> None:
        self._processes: dict[str, Applied] = {}

    def load(self, records: Iterable[tuple[bytes, bytes]]) -> None:
        """Take over what is in the partition's records."""
        for key, record in records:
            process = key[len(PREFIX) :]
            self._processes[process.decode()] = Applied(process, *_decode(record))

    def idle(self, process: str) -> Applied | None:
        """Return what is known of a process of which nothing is under way."""
        applied = self._processes.get(process)
        return None if applied is None or applied.busy else applied

    def sift(
        self, process: str, epoch: int, operations: Sequence[Operation], carry_out: CarryOut
    ) -> list[Outcome] | Awaitable[list[Outcome]]:
        """Have those operations carried out that are new and meant for this owner; return what became of each.

        Where something has to be waited for, that is to be awaited at once.
        """
        applied = self._processes.get(process)
        if applied is None:
            applied = self._processes[process] = Applied(process.encode(), at=clock())
        if applied.busy or not _all_fresh(operations, applied.highest, epoch):
            return self._sift_later(applied, epoch, operations, carry_out)
        outcomes = carry_out(operations, applied)
        return outcomes if isinstance(outcomes, list) else in_turn(applied, outcomes)

    async def _sift_later(
        self, applied: Applied, epoch: int, operations: Sequence[Operation], carry_out: CarryOut
    ) -> list[Outcome]:
        async with _turn(applied):
            highest = applied.highest
            fresh = [
                operation
                for operation in operations
                if (operation.id > highest or operation.verb in _NOT_REMEMBERED)
                and (operation.epoch == epoch or not operation.epoch)
            ]
            carried_out = carry_out(fresh, applied)
            done = iter(carried_out if isinstance(carried_out, list) else await carried_out)
            outcomes: list[Outcome] = []
            for operation in operations:
                if operation.epoch not in (epoch, 0):
                    outcomes.append(NOT_OWNED)
                elif operation.id <= highest and is_remembered(operation):
                    outcomes.append(applied.answer(operation))
                else:
                    outcomes.append(next(done))
            return outcomes

    def commands(
        self,
        applied: Applied,
        last: Operation,
        operations: Sequence[Operation],
        outcomes: Sequence[Outcome],
        places: Sequence[int],
        now: float,
    ) -> list[Command]:
        """Return the commands that end a batch, so that it is known to be applied.

        Args:
            applied: of the process that sent it.
            last: the last operation of the batch that changes something.
            operations: all of them.
            outcomes: what became already of those that have no command.
            places: of each command, which operation it carries out, or -1.
            now: seconds since the Unix epoch.
        """
        refused = _results(operations, outcomes) if any(outcomes) else []
        ending = applied.command(last, refused, partial(_ids, operations, places), now)
        if applied.highest:
            return [ending]
        # a process that is new here takes the place of those that are long gone
        gone = [name for name, each in self._processes.items() if each.at < now - KEPT_SECONDS]
        return [*(Command(FORGET, self._processes.pop(name).process) for name in gone), ending]


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
    for operation in operations:
        if operation.epoch not in (epoch, 0) or (operation.id <= highest and operation.verb not in _NOT_REMEMBERED):
            return False
    return True


def _ids(operations: Sequence[Operation], places: Sequence[int]) -> list[int]:
    """Return of each command the id of the operation that it carries out, if its result is to be remembered, or 0."""
    return [
        operations[place].id if place >= 0 and operations[place].verb not in _NOT_REMEMBERED else 0 for place in places
    ]


def is_remembered(operation: Operation) -> bool:
    """Is an operation to be carried out once, however often it comes?"""
    return operation.verb not in _NOT_REMEMBERED


def remember(kv: KeyValue, command: Command, batch: Sequence[Command], outcomes: Sequence[Outcome]) -> bytes:
    """Carry ``REMEMBER`` out, after the commands of its batch that have ``outcomes``."""
    record = command.value
    new = any(outcomes) and [
        _result(operation_id, answer_of(outcome) if each.verb == PUBLISH and isinstance(outcome, bytes) else outcome)
        for operation_id, each, outcome in zip(command.ids(), batch, outcomes, strict=False)
        if operation_id and outcome != b""
    ]
    if new:
        highest, at, results = _decode(record)
        record = _encode((highest, at, _bounded([*results, *new])))
    kv.put(PREFIX + command.session_id, record)
    return b""


def forget(kv: KeyValue, command: Command) -> bytes:
    """Carry ``FORGET`` out."""
    kv.delete(PREFIX + command.session_id)
    return b""


def _results(operations: Sequence[Operation], outcomes: Sequence[Outcome]) -> list[_Result]:
    return [
        _result(operation.id, outcome)
        for operation, outcome in zip(operations, outcomes, strict=True)
        if outcome != b"" and is_remembered(operation)
    ]


def _result(operation_id: int, outcome: Outcome) -> _Result:
    if isinstance(outcome, Refusal):
        return operation_id, outcome.code, str(outcome).encode(), outcome.name
    return operation_id, 0, outcome, ""


def _bounded(results: list[_Result]) -> list[_Result]:
    """Leave out the results of the oldest operations, until the others are few enough bytes."""
    kept = KEPT_BYTES
    bounded = []
    for result in reversed(results):
        kept -= len(result[2])
        bounded.append(result if kept >= 0 else (result[0], *_LOST))
    bounded.reverse()
    return bounded
