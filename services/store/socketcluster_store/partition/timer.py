"""What is done when its time has come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

LONGEST_WAIT = 60.0
"""Seconds after which the time is looked at again: while the machine is suspended the event loop's clock stands still,
and the partition's goes on."""


class DeadlineTimer:
    """Calls a coroutine function at the earliest of the deadlines that were set; never twice at once."""

    def __init__(self, on_due: Callable[[], Awaitable[None]], clock: Callable[[], float]) -> None:
        """Prepare a timer; ``on_due`` must not raise, and sets the next deadline if there is one."""
        self._on_due = on_due
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._running: asyncio.Task[None] | None = None
        self._next: float | None = None  # what was set while it ran
        self._stopped = False
        self.deadline: float | None = None
        """The earliest one that was set, by the clock; ``None``: none was since the last one came."""

    def set(self, deadline: float | None) -> None:
        """Have it fire at a time of the clock unless it does earlier; ``None`` changes nothing."""
        if deadline is None or self._stopped:
            return
        if self._running is not None:
            self._next = deadline if self._next is None else min(deadline, self._next)
            return
        if self.deadline is not None and self.deadline <= deadline:
            return
        if self._timer is not None:
            self._timer.cancel()
        self.deadline = deadline
        self._start(deadline)

    def stop(self) -> None:
        """Let it never fire again."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def close(self) -> None:
        """Let it never fire again, and return when nothing is being done any more."""
        self.stop()
        if self._running is not None:
            await asyncio.wait({self._running})

    def _start(self, deadline: float) -> None:
        delay = min(max(0.0, deadline - self._clock()), LONGEST_WAIT)
        self._timer = asyncio.get_running_loop().call_later(delay, self._fire)

    def _fire(self) -> None:
        assert self.deadline is not None  # noqa: S101
        self._timer = None
        if self._clock() < self.deadline:  # after the longest wait, or a timer that was a little early
            self._start(self.deadline)
        else:
            self.deadline = None
            self._running = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            await self._on_due()
        finally:
            self._running = None
            following, self._next = self._next, None
            self.set(following)
