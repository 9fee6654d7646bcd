"""Something that is done when its time has come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

LONGEST_WAIT = 60.0
"""Seconds after which the time is looked at again: while the machine is suspended the event loop's clock stands still,
and the partition's goes on."""


class Alarm:
    """Calls a coroutine function at the earliest time that was set; never twice at once."""

    def __init__(self, ring: Callable[[], Awaitable[None]], clock: Callable[[], float]) -> None:
        """Prepare an alarm; ``ring`` must not raise, and sets the alarm anew if it is to ring again."""
        self._ring = ring
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._at = 0.0
        self._wanted: float | None = None  # what was set while it rang
        self._ringing: asyncio.Task[None] | None = None
        self._off = False

    def set(self, at: float | None) -> None:
        """Have it ring at a time of the clock unless it rings earlier; ``None`` changes nothing."""
        if at is None or self._off:
            return
        if self._ringing is not None:
            self._wanted = at if self._wanted is None else min(at, self._wanted)
            return
        if self._timer is not None:
            if self._at <= at:
                return
            self._timer.cancel()
        self._at = at
        delay = min(max(0.0, at - self._clock()), LONGEST_WAIT)
        self._timer = asyncio.get_running_loop().call_later(delay, self._on_timer)

    def off(self) -> None:
        """Let it never ring again."""
        self._off = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def close(self) -> None:
        """Let it never ring again, and return when it does not ring any more."""
        self.off()
        if self._ringing is not None:
            await asyncio.wait({self._ringing})

    def _on_timer(self) -> None:
        self._timer = None
        if self._clock() < self._at:  # after the longest wait, or a timer that was a little early
            self.set(self._at)
        else:
            self._ringing = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            await self._ring()
        finally:
            self._ringing = None
            wanted, self._wanted = self._wanted, None
            self.set(wanted)
