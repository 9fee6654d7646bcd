"""What is said of channels whose upkeep the engine refuses: one condition each for all partitions of a store."""

from __future__ import annotations

from socketcluster_runtime.logs.conditions import Condition
from socketcluster_runtime.logs.logging import get_logger
from socketcluster_store.errors import EngineError

log = get_logger(__name__)


class Trouble:
    """A condition that is over when it is over in each partition that met it."""

    def __init__(self, condition: Condition) -> None:
        self._condition = condition
        self._who: set[object] = set()

    def add(self, who: object, error: EngineError) -> None:
        """Note that a partition's channels, ``who``, met it."""
        self._who.add(who)
        if not error.told:
            self._condition.add(error=str(error))

    def end(self, who: object) -> None:
        """Note that it is over in a partition, or that the partition is this store's no longer."""
        if who in self._who:
            self._who.discard(who)
            if not self._who:
                self._condition.end()


class ChannelTroubles:
    """What the channels of a store's partitions share."""

    def __init__(self) -> None:
        self.reserving = Trouble(
            Condition(
                log,
                "no more epochs can be reserved for channels",
                over="epochs are reserved for channels again",
                level="error",
            )
        )
        self.expiring = Trouble(
            Condition(
                log,
                "messages that are too old cannot be removed",
                over="messages that are too old are removed again",
                level="error",
            )
        )
