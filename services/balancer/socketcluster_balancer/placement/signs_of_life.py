"""Which workers hang: they are connected, and their event loop does not turn, so they say nothing.

One that hung is not well with the first thing that it says: what blocked it may block it again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

LOOK_INTERVAL = 0.25
"""Seconds between two looks at the time where somebody is silent; all are well: see ``pause``."""

MAX_LOOK_INTERVAL = 2.0
"""Seconds between two looks at most."""

HANG_AFTER = 2.0
"""Seconds of silence after which a worker hangs, if it promised signs of life at least four times as often."""

_MISSED = 4
"""Signs of life that a worker which promised fewer may miss."""

STEADY_AFTER = 2.0
"""Seconds of signs of life without a gap after which a worker that hung is well again."""

MAX_STEADY_AFTER = 10.0
"""The same for one that hangs again and again: each time it has to give signs for twice as long."""

AGAIN_WITHIN = 60.0
"""Seconds within which another silence counts as "again"."""


class OwnTime:
    """Seconds for which this process has run.

    While it was stopped, or its own loop was busy, it heard nobody, and may not blame others for that: of the time
    between two looks no more counts than was to pass, and ``LOOK_INTERVAL``.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.seconds_at_look = 0.0
        """Those at the last look."""
        self._went_on_at = 0.0
        self._counts_until = -math.inf

    def go_on(self, now: float) -> None:
        """Count what has passed; ``now`` is the time of the event loop."""
        self.seconds += max(0.0, min(now, self._counts_until) - self._went_on_at)
        self._went_on_at = now

    def look(self, now: float, pause: float | None = None) -> None:
        """Go on, and look again in so many seconds; without: in ``LOOK_INTERVAL``."""
        self.go_on(now)
        self.seconds_at_look = self.seconds
        self._counts_until = now + (LOOK_INTERVAL if pause is None else pause) + LOOK_INTERVAL


class SignOfLife:
    """When a worker was heard last, and whether it hangs.

    Args:
        time: the balancer's own.
    """

    def __init__(self, time: OwnTime) -> None:
        self.hung = False
        """Was it silent for too long, and has not given signs of life for long enough since?"""
        self.silent = False
        """Has it hung and not been heard since?"""
        self._time = time
        self._worker_id = ""
        self._heard_at = 0.0
        self._allowed: float | None = None
        self._promised_ms = 0
        self._steady_since = 0.0
        """When the signs of life began that had no gap since; of use once it has hung."""
        self._steady_after = 0.0
        """Seconds of them that were needed after the last silence; 0: there was none."""

    def heard(self, worker_id: str, promised_ms: int) -> None:
        """Note a worker's status, which promised another one within so many milliseconds; 0: it promised none."""
        now = self._time.seconds
        if worker_id != self._worker_id:
            self.forget()  # another process, which cannot help it
            self._worker_id = worker_id
        elif not promised_ms:
            self.hung = self.silent = False
        elif self.hung:
            if self.silent or self.missing:
                self.silent, self._steady_since = False, now
            elif now - self._steady_since >= self._steady_after:
                self.hung = False
        self._heard_at = now
        self._promised_ms = promised_ms
        self._allowed = max(HANG_AFTER, _MISSED * promised_ms / 1000) if promised_ms else None

    def beat(self, age: float, looked_at: float) -> None:
        """Note a sign of life that was given ``age`` seconds ago, and after a look at ``looked_at`` of ``OwnTime``."""
        heard_at = max(self._time.seconds - age, looked_at, self._heard_at)
        self.heard(self._worker_id, self._promised_ms)
        self._heard_at = heard_at

    def hangs(self) -> None:
        """Take the worker, which is :attr:`missing`, for hung."""
        again = self._steady_after and self._heard_at - self._steady_since <= AGAIN_WITHIN
        self._steady_after = min(2 * self._steady_after, MAX_STEADY_AFTER) if again else STEADY_AFTER
        self.hung = self.silent = True

    def lost(self) -> None:
        """Expect nothing: the connection has ended."""
        self._allowed = None
        self.silent = self.hung

    def forget(self) -> None:
        """Hold nothing against whoever comes: the process has gone."""
        self.hung = self.silent = False
        self._steady_after = 0.0

    @property
    def silent_for(self) -> float:
        """Seconds without a status."""
        return self._time.seconds - self._heard_at

    @property
    def missing(self) -> bool:
        """Has the worker been silent for longer than one that is well?"""
        return self._allowed is not None and self.silent_for >= self._allowed

    @property
    def left(self) -> float:
        """Seconds before it is missing if it stays silent."""
        return math.inf if self._allowed is None else self._allowed - self.silent_for


def pause(signs: Iterable[SignOfLife]) -> float:
    """Return the seconds before the next look.

    As long as nobody can be missing by then, whatever becomes of this process meanwhile: of who wakes up late what came
    in the meantime is read first, by then.
    """
    shortest = MAX_LOOK_INTERVAL
    for sign in signs:
        if sign.hung:
            return LOOK_INTERVAL
        shortest = min(shortest, sign.left - 2 * LOOK_INTERVAL)
    return max(shortest, LOOK_INTERVAL)
