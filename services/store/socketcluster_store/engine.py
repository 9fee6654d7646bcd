"""The interface of an engine: what keeps the data of partitions, and what it promises.

What every engine guarantees, and what ``tests/unit/store/test_engine.py`` checks:

- *Order.* The batches of one partition are applied in the order in which ``apply`` was called, and the commands of a
  batch in their order; a command sees the effect of all before it. Nothing is promised between partitions.
- *Atomicity.* A batch is applied wholly or not at all, whatever happens to this process. A command that is refused
  changes nothing and does not stop the others of its batch.
- *Durability.* When ``apply`` returns, the batch survives ``kill -9`` of this process (``memory`` excepted); whether it
  survives a power cut is told by the setting ``fsync``, or by how Valkey is set up. What is found after either is all
  batches up to some point.
- *Ownership.* A partition is open in at most one process; its epoch is higher than at any opening before. Where it was
  taken from a process that hung (``Engine.take``), that process can commit nothing more that anybody sees, and learns
  so by ``FencedError`` before it answers.
"""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Awaitable, Callable, Sequence

from socketcluster_store.commands import Command, Outcome
from socketcluster_store.ownership.membership import Membership


class EnginePartition(abc.ABC):
    """An open partition."""

    number: int
    """Which one, from 0."""
    epoch: int
    """Of this opening."""
    clock: Callable[[], float]
    """Tells the partition's time, in seconds; right once ``TAKE_TIME_OVER`` was applied."""
    life: bytes | None = None
    """Names the time in which nothing can be lost that was applied: an opening that has the same name as one before has
    all that was applied since that one. Empty: nobody knows. ``None``: that time ends with the machine's boot, if what
    was applied was not synced."""

    losses: bytes = b""
    """Names the last opening that found less than was there before, though it is the same boot: a disk failed.
    Empty: there was none. What was told of what is missing is not to be told again of something else."""

    @abc.abstractmethod
    async def apply(self, batch: Sequence[Command]) -> list[Outcome]:
        """Apply a batch, and return what became of each of its commands.

        Raises:
            FencedError: the partition is this process's no longer; the batch may or may not have been applied before.
            EngineError: nothing of the batch was applied.
        """

    def apply_now(self, batch: Sequence[Command]) -> list[Outcome] | Awaitable[list[Outcome]]:
        """Apply a batch as ``apply`` does; return what became of it if nothing has to be waited for.

        What is returned else is to be awaited before anything else is applied or awaited.
        """
        return self.apply(batch)

    @abc.abstractmethod
    def next_expiry(self) -> float | None:
        """Return when ``EXPIRE_DUE`` is to be applied next, by ``clock``; each batch may change it."""

    @abc.abstractmethod
    async def records(self) -> list[tuple[str, bytes]]:
        """Return every session's id and record."""

    @abc.abstractmethod
    async def applied(self) -> list[tuple[bytes, bytes]]:
        """Return the keys and values of what ``REMEMBER`` has kept."""

    @property
    @abc.abstractmethod
    def fenced(self) -> bool:
        """Was the partition taken from this process?"""

    distrusted = ""
    """Why the files of this opening are not used again, as its process found; empty: it found nothing."""

    @property
    def told(self) -> bool:
        """Has the log been told why the partition was lost?"""
        return False

    @property
    def taken(self) -> bool:
        """Is it known that the partition was taken? To ask ``fenced`` may cost more, and finds what nobody has said."""
        return self.fenced

    @abc.abstractmethod
    async def sync(self) -> None:
        """Force what was applied to the disk; nothing of an opening, its epoch included, is told before that."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Sync, and let another process own the partition."""


class Engine(abc.ABC):
    """Opens partitions."""

    name: str
    unsynced: asyncio.Event | None = None
    """Set when a partition has something to sync, for the policy ``everysec``; ``None``: none ever has."""
    descriptors = 0
    """What an open partition needs."""
    advice = ""
    """What to do about a partition that cannot be opened, beside what the error says; begins with a space."""
    remote = False
    """Is a batch a call to another machine? Partitions are better asked side by side then."""

    @property
    def lost_writes(self) -> int:
        """How many acknowledged writes were found to be lost by what keeps them."""
        return 0

    @property
    def lost_partitions(self) -> int:
        """How often a partition was found to have lost some."""
        return 0

    @abc.abstractmethod
    async def open(self, number: int) -> EnginePartition:
        """Open a partition.

        Raises:
            PartitionLockedError: another process has it open.
            FencedError: another process took it while it was opened.
            EngineError: it cannot be opened.
        """

    @abc.abstractmethod
    async def take(self, number: int, holder: str) -> EnginePartition:
        """Open a partition even if a process that hangs has it open, which is fenced then.

        Args:
            number: which partition.
            holder: the id of the store that hangs.

        Raises:
            PartitionLockedError: another process than that has it open.
            FencedError: another process took it while it was opened.
            EngineError: it cannot be opened.
        """

    @abc.abstractmethod
    def membership(self, hang_timeout: float, on_change: Callable[[], None]) -> Membership:
        """Return what tells which stores live, beside the one for which this engine opens partitions.

        Args:
            hang_timeout: seconds without a sign of life after which a store counts as hung.
            on_change: called after the live stores are others than before.
        """

    async def connect(self) -> None:  # noqa: B027  # most engines have nothing to do
        """Make sure that the data can be reached; call it once, first.

        Raises:
            EngineError: it cannot.
        """

    async def disconnect(self) -> None:  # noqa: B027
        """Let go of what ``connect`` took; call it once, last."""
