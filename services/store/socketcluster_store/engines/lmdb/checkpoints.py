"""The checkpoints of a store's partitions: how many are made at a time, and what is said of those that fail."""

from __future__ import annotations

import asyncio

from socketcluster_runtime.logs.conditions import Condition
from socketcluster_runtime.logs.logging import get_logger
from socketcluster_store.errors import EngineError

log = get_logger(__name__)

AT_ONCE = 4
"""Of all partitions: the others wait."""
RETRY_PAUSE = 1.0
"""Seconds between the first two attempts at a checkpoint that the disk does not take; they double."""
LONGEST_RETRY_PAUSE = 5.0
"""Up to that: with the checkpoint the writes come back."""


class Checkpoints:
    """What the partitions of one store share."""

    def __init__(self) -> None:
        self.turns = asyncio.Semaphore(AT_ONCE)
        """Held while one is made."""
        self._failing: dict[int, float] = {}  # the last pause of each partition whose checkpoint fails
        self._condition = Condition(
            log,
            "checkpoints fail: what is written stays in the journals, and is refused when those are full",
            over="checkpoints succeed again",
            level="error",
        )

    def failed(self, number: int, failure: EngineError, error: Exception | None) -> float:
        """Note that a partition's checkpoint failed; return the seconds until it is to be tried again.

        Args:
            number: which partition.
            failure: what is said of it.
            error: what nobody expects of a disk, with its traceback.
        """
        pause = min(max(RETRY_PAUSE, 2 * self._failing.get(number, 0.0)), LONGEST_RETRY_PAUSE)
        self._failing[number] = pause
        self._condition.add(partitions=sorted(self._failing), error=str(failure), exc_info=error)
        return pause

    def over(self, number: int) -> None:
        """Note that a partition's checkpoint succeeded, or that it is this store's no longer."""
        if self._failing.pop(number, None) is not None and not self._failing:
            self._condition.end()
