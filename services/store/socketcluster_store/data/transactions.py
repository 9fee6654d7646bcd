"""Transactions and procedures: several commands on one tree that hold together, or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from socketcluster_runtime.logs.logging import get_logger
from socketcluster_runtime.time_limit import TimeLimit, TookTooLong
from socketcluster_store.commands import READS, Command
from socketcluster_store.data.indexes import Indexes
from socketcluster_store.data.key_chains import name_of, parsed
from socketcluster_store.data.key_value import KeyValue
from socketcluster_store.data.mutations import NIL
from socketcluster_store.data.procedures import Procedures, ProcedureTree, RegisteredProcedure
from socketcluster_store.data.write_buffer import WriteBuffer
from socketcluster_store.errors import InvalidError, ProcedureError, Refusal
from socketcluster_store_client.packing import pack, unpack
from socketcluster_store_client.partitioning import partition_of

log = get_logger(__name__)

MAX_STEPS = 1000
"""Operations of a transaction."""
SLOW = 0.05
"""Seconds after which a procedure is reported: the whole store waits for it."""
MAX_TEXT = 2000
"""Characters of what a procedure raised: a client may fill it, and the texts of answers that wait are not counted."""

_encode = msgspec.msgpack.Encoder().encode
_decode_steps = msgspec.msgpack.Decoder(list[tuple[int, list[str], bytes]]).decode


CallVerb = Callable[[int, "list[str]", bytes], bytes]
"""Carries out a verb at a key chain with a value, and returns its result."""


class Transactions:
    """Carries out the transactions and procedures of one partition.

    Args:
        number: of the partition.
        verbs: what may be done in one, by the verbs' numbers.
        indexes: what the verbs change beside the data.
        procedures: what there is to call.
        procedure_timeout: seconds that a call may take.
        max_value_bytes: of what a procedure returns.
    """

    def __init__(
        self,
        number: int,
        verbs: Mapping[int, Callable[[KeyValue, Command], bytes]],
        indexes: Indexes,
        *,
        procedures: Procedures,
        procedure_timeout: float,
        max_value_bytes: int,
    ) -> None:
        self._number = number
        self._verbs = verbs
        self._indexes = indexes
        self._procedures = procedures
        self._procedure_timeout = procedure_timeout
        self._max_value_bytes = max_value_bytes

    def transaction(self, kv: KeyValue, command: Command) -> bytes:
        """Carry out a list of commands on one tree; return the list of their results."""
        try:
            steps = _decode_steps(command.value)
        except msgspec.MsgspecError as error:
            raise InvalidError(f"TRANSACTION: it is no list of operations: {error}") from None
        if len(steps) > MAX_STEPS:
            raise InvalidError(f"TRANSACTION: it has {len(steps)} operations, {MAX_STEPS} are allowed")
        results = []
        with self._held_together(kv, command.session_id) as call:
            for number, (verb, keys, value) in enumerate(steps):
                try:
                    result = call(verb, keys, value)
                except Refusal as refusal:
                    raise type(refusal)(f"operation {number} of a transaction: {refusal}") from None
                results.append(msgspec.Raw(result or NIL))
        return _encode(results)

    def run(self, kv: KeyValue, command: Command) -> bytes:
        """Call a procedure with a view of one tree; return what it returns."""
        procedure = self._procedures.get(command.name)
        args = parsed(command.value, command, unpack) if command.value else []
        if not isinstance(args, list):
            raise InvalidError(f"RUN {procedure.name}: the arguments are no list")
        with self._held_together(kv, command.session_id) as call:
            limit = TimeLimit(self._procedure_timeout)
            tree = ProcedureTree(_bounded(call, procedure, limit))
            started = time.perf_counter()
            try:
                with limit.running():
                    result = pack(procedure.function(tree, *args))
            except TookTooLong:
                text = f"RUN {procedure.name}: it took longer than {limit.seconds:g} s, and was undone"
                raise ProcedureError(text, TimeoutError.__name__) from None
            except (Exception, SystemExit) as error:
                raise _refusal(procedure.name, error) from None
            finally:
                tree.close()
                spent = time.perf_counter() - started
                if spent > SLOW:
                    log.warning("a procedure is slow, the store waits for it", procedure=procedure.name, seconds=spent)
            if len(result) > self._max_value_bytes:
                raise ProcedureError(f"RUN {procedure.name}: the result has {len(result)} bytes", "TooLargeError")
        return result

    @contextmanager
    def _held_together(self, kv: KeyValue, session_id: bytes) -> Iterator[CallVerb]:
        """Yield what carries commands out on one tree; unless the block raises, they hold."""
        buffer = WriteBuffer(kv)
        self._indexes.begin(session_id)

        def call(verb: int, keys: list[str], value: bytes) -> bytes:
            carry_out = self._verbs.get(verb)
            if carry_out is None:
                raise InvalidError(f"no verb of a transaction has the number {verb}")
            command = Command(verb, session_id, keys, value)
            if not session_id:
                self._check_partition(command)
            return carry_out(buffer, command)

        try:
            yield call
        except BaseException:
            self._indexes.undo()
            raise
        self._indexes.commit()
        buffer.flush()

    def _check_partition(self, command: Command) -> None:
        if command.keys and partition_of(command.keys[0]) != self._number:
            raise InvalidError(
                f"{name_of(command)}: the key {command.keys[0]!r} belongs to partition "
                f"{partition_of(command.keys[0])}, this one is {self._number}; what is changed together has one "
                "top-level key"
            )


def _refusal(procedure: str, error: BaseException) -> Refusal:
    """Return what the caller of a procedure gets for what that raised: the tree's refusals stay what they are."""
    text = f"RUN {procedure}: {_text(error)}"
    if isinstance(error, Refusal) and error.code and type(error).__module__ == Refusal.__module__:
        return error if isinstance(error, ProcedureError) else type(error)(text)
    log.warning("a procedure raised", procedure=procedure, exc_info=error)
    return ProcedureError(text, type(error).__name__)


def _text(error: BaseException) -> str:
    """Return an exception's text as it can be sent, whatever its class makes of that: others are in the batch, too."""
    try:
        return str(error)[:MAX_TEXT].encode(errors="replace").decode()
    except Exception:
        return "it has no text"


def _bounded(call: CallVerb, procedure: RegisteredProcedure, limit: TimeLimit) -> Callable[[int, list[str], Any], Any]:
    """Return what a procedure's view calls: with values, and a bounded number of writes."""
    writes = 0

    def bounded(verb: int, keys: list[str], value: bytes) -> Any:
        nonlocal writes
        if verb not in READS:
            writes += 1
            if writes > procedure.max_writes:
                raise InvalidError(f"a procedure may write {procedure.max_writes} times")
        with limit.shielded():
            result = call(verb, keys, value)
        return unpack(result) if result else None

    return bounded
