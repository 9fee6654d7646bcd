"""Carries the commands of a batch out, on the transaction that an engine opens for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.clock import PartitionClock, clock
from socketcluster_store.commands import (
    CHANGES,
    FORGET,
    NOTE_TIME,
    REMEMBER,
    TAKE_TIME_OVER,
    Command,
    Outcome,
)
from socketcluster_store.data import applied_log, channel_log
from socketcluster_store.data.expiries import Expiries
from socketcluster_store.data.indexes import Indexes
from socketcluster_store.data.key_chains import name_of
from socketcluster_store.data.key_value import KeyValue
from socketcluster_store.data.procedures import Procedures
from socketcluster_store.data.sizes import SessionSizes
from socketcluster_store.data.transactions import Transactions
from socketcluster_store.data.trees import Trees
from socketcluster_store.data.watches import Watches
from socketcluster_store.errors import InvalidError, Refusal

MIB = 1024 * 1024

_TIME_KEY = b"t"
"""Where the partition's time is, see ``clock``."""


@dataclass(frozen=True, slots=True)
class ExecutorOptions:
    """What all partitions of a store have in common: limits, procedures, and the clock."""

    max_value_bytes: int
    """Of a top-level value, and of what a procedure returns."""
    max_session_bytes: int = 8 * MIB
    """Of a session's tree."""
    procedures: Procedures = field(default_factory=Procedures)
    procedure_timeout: float = 0.5
    """Seconds that a call of one may take."""
    clock: Callable[[], float] = clock
    """Tells the time, in seconds."""


class Executor:
    """Carries out the commands on one open partition.

    All that it remembers beside the transaction are indexes of it.
    """

    def __init__(self, number: int, options: ExecutorOptions) -> None:
        self.clock = PartitionClock(options.clock)
        self._indexes = Indexes(SessionSizes(options.max_session_bytes), Expiries(), Watches())
        self._watches = self._indexes.watches
        trees = Trees(
            self._indexes,
            max_value_bytes=options.max_value_bytes,
            max_session_bytes=options.max_session_bytes,
            clock=self.clock,
        )
        transactions = Transactions(
            number,
            trees.verbs,
            self._indexes,
            procedures=options.procedures,
            procedure_timeout=options.procedure_timeout,
            max_value_bytes=options.max_value_bytes,
        )
        self._verbs: dict[int, Callable[[KeyValue, Command], bytes]] = {
            **trees.verbs,
            **trees.outer_verbs,
            store_pb2.VERB_TRANSACTION: transactions.transaction,
            store_pb2.VERB_RUN: transactions.run,
            **channel_log.VERBS,
            FORGET: applied_log.forget,
            TAKE_TIME_OVER: self._take_time_over,
            NOTE_TIME: self._note_time,
        }

    def apply(self, kv: KeyValue, batch: Sequence[Command]) -> list[Outcome]:
        """Carry a batch out within the transaction ``kv``."""
        if not self._indexes.loaded:
            self._indexes.load(kv)
        outcomes: list[Outcome] = []
        verbs = self._verbs
        for command in batch:
            if command.verb == REMEMBER:
                outcomes.append(applied_log.remember(kv, command, batch, outcomes))
                continue
            try:
                outcomes.append(verbs[command.verb](kv, command))
            except Refusal as refusal:
                outcomes.append(refusal)
            except RecursionError:
                outcomes.append(InvalidError(f"{name_of(command)}: the value is nested too deeply"))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:  # it was put as a whole, unread
                outcomes.append(InvalidError(f"{name_of(command)}: the value that stands there is malformed: {error}"))
        if self._watches.changes and batch and batch[-1].verb != CHANGES:
            self._watches.take(kv)  # counted, but not told: watchers will know that they have missed it
        return outcomes

    def forget(self) -> None:
        """Make the indexes anew at the next batch: the transaction of the last one was not committed."""
        self._indexes.forget()

    def next_expiry(self) -> float | None:
        """Return when EXPIRE_DUE is to be applied, by the partition's clock."""
        return self._indexes.expiries.next()

    def _take_time_over(self, kv: KeyValue, command: Command) -> bytes:
        self.clock.take_over(kv.get(_TIME_KEY), lambda: applied_log.newest(kv))
        return self._note_time(kv, command)

    def _note_time(self, kv: KeyValue, _command: Command) -> bytes:
        kv.put(_TIME_KEY, self.clock.record())
        return b""
