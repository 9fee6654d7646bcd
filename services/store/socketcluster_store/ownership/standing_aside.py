"""A store that no worker reaches stands aside while workers reach others: else nobody serves what it owns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from socketcluster_runtime.logs.conditions import Condition
from socketcluster_runtime.logs.logging import get_logger
from socketcluster_store.ownership.membership import Membership

log = get_logger(__name__)

UNREACHED = 10.0
"""Seconds without a worker's link, while others have some, after which a store stands aside: workers look names up and
try again much faster."""
REACHED = 2.0
"""Seconds that a worker's link lasts, or that no other store has one, after which it takes part again."""


class StandingAside:
    """Judges, with each sign of life, whether this store is to own anything.

    Without a link to a worker it cannot tell a network that is cut from workers that are not there. But the stores see
    each other without that network, and tell each other who has links: if another one has had some for as long as this
    one had none, it is this one that is cut off. It comes back as soon as it has one, or no other has. So a cluster
    without workers, and a store that is alone, own what they own.

    Args:
        members: the stores.
        linked: returns whether a worker is linked to this one.
        on_change: called when this store begins or ends to stand aside.
    """

    def __init__(self, members: Membership, linked: Callable[[], bool], on_change: Callable[[], None]) -> None:
        self._members = members
        self._linked = linked
        self._on_change = on_change
        self._now = asyncio.get_running_loop().time
        self._since: dict[str, tuple[bool, float]] = {}  # by question, the last answer, and since when it is that
        self._condition = Condition(
            log,
            "no worker reaches this store, but others: it stands aside, and owns nothing",
            over="this store takes part again",
            level="error",
            lasts=True,
        )

    def look(self) -> None:
        """Judge; call it after each look at the other stores."""
        members = self._members
        linked = members.is_linked = self._linked()
        here = self._lasting("here", linked)
        elsewhere = bool(members.linked & members.live)
        there = self._lasting("there", elsewhere)
        if members.is_aside:
            aside = not ((linked and here >= REACHED) or (not elsewhere and there >= REACHED))
        else:
            aside = not linked and here >= UNREACHED and elsewhere and there >= UNREACHED
        if aside == members.is_aside:
            return
        members.is_aside = aside
        if aside:
            self._condition.add(0, reached=sorted(members.linked & members.live))
        else:
            self._condition.end()
        self._on_change()

    def close(self) -> None:
        """Say nothing more."""
        self._condition.close()

    def _lasting(self, question: str, answer: bool) -> float:
        """Return for how many seconds the answer to a question has been what it is."""
        now = self._now()
        before, since = self._since.get(question, (answer, now))
        if before != answer:
            since = now
        self._since[question] = answer, since
        return now - since
