"""Which workers hang: they are connected, and their event loop does not turn, so they say nothing."""

from __future__ import annotations

LOOK_INTERVAL = 0.25
"""Seconds between two looks at the time."""

HANG_AFTER = 2.0
"""Seconds of silence after which a worker hangs, if it promised signs of life at least four times as often."""

_MISSED = 4
"""Signs of life that a worker which promised fewer may miss."""


class OwnTime:
    """Seconds for which this process has run.

    While it was stopped, or its own loop was busy, it heard nobody, and may not blame others for that: of the time
    between two looks no more counts than two looks should take.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._looked_at: float | None = None

    def look(self, now: float) -> None:
        """Go on; ``now`` is the time of the event loop."""
        if self._looked_at is not None:
            self.seconds += min(now - self._looked_at, 2 * LOOK_INTERVAL)
        self._looked_at = now


class SignOfLife:
    """When a worker was heard last.

    Args:
        time: the balancer's own.
    """

    def __init__(self, time: OwnTime) -> None:
        self._time = time
        self._heard_at = 0.0
        self._allowed: float | None = None

    def heard(self, promised_ms: int) -> None:
        """Note a status, which promised another one within so many milliseconds; 0: it promised none."""
        self._heard_at = self._time.seconds
        self._allowed = max(HANG_AFTER, _MISSED * promised_ms / 1000) if promised_ms else None

    def lost(self) -> None:
        """Expect nothing: the connection has ended."""
        self._allowed = None

    @property
    def silent_for(self) -> float:
        """Seconds without a status."""
        return self._time.seconds - self._heard_at

    @property
    def missing(self) -> bool:
        """Has the worker been silent for longer than one that is well?"""
        return self._allowed is not None and self.silent_for >= self._allowed
