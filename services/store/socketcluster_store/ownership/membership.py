"""Which stores live: one interface, whose implementation follows from the engine."""

from __future__ import annotations

import abc

HEARTBEAT = 0.25
"""Seconds between two signs of life, unless an implementation has them come less often."""


class Membership(abc.ABC):
    """The live stores, as one of them sees it."""

    interval = HEARTBEAT
    """Seconds between two signs of life."""
    hung: frozenset[str] = frozenset()
    """Those from which partitions may be taken: they do nothing, and still hold them."""
    live: frozenset[str] = frozenset()
    """All others that are there, this store among them."""
    aside: frozenset[str] = frozenset()
    """Those that are to own nothing, as no worker reaches them."""
    linked: frozenset[str] = frozenset()
    """The other stores that workers are linked to."""
    is_aside = False
    """Is this store one of those that stand aside? The others are told with the next sign of life."""
    is_linked = False
    """Are workers linked to it? The others are told likewise."""

    @property
    def sharing(self) -> frozenset[str]:
        """Those among which the partitions are shared out: never nobody."""
        return self.live - self.aside or self.live

    @abc.abstractmethod
    async def join(self) -> None:
        """Become one of them.

        Raises:
            EngineError: that is not possible.
        """

    @abc.abstractmethod
    async def leave(self) -> None:
        """Be one of them no longer; the others hear of it at once."""

    @abc.abstractmethod
    async def look(self) -> None:
        """Give a sign of life, and look for those of the others; call it every ``interval`` seconds.

        Raises:
            EngineError: the others cannot be seen.
        """
