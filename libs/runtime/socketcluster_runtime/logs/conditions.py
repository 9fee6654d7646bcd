"""Log lines about what lasts: a full disk, a server that cannot be reached, a network that is cut.

Whatever is tried meanwhile fails for the one reason, a thousand times a second perhaps; an operator wants to read when
it began, that it goes on, and when it was over.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import structlog

INTERVAL = 60.0
"""Seconds between two lines that say that a condition goes on."""

Level = Literal["info", "warning", "error"]


class Condition:
    """Says that something began, once a minute that it goes on and how often it was met since, and that it is over.

    One that is not met for a whole minute is over by itself, unless ``lasts`` says that only :meth:`end` knows.

    Args:
        log: whose lines they are.
        event: what it is, in the words of the log: "the disk is full".
        over: what is said at its end, at the level ``info``: "the disk has room again".
        level: how bad it is.
        lasts: is it known to go on until :meth:`end`, met or not?
    """

    def __init__(
        self,
        log: structlog.stdlib.BoundLogger,
        event: str,
        *,
        over: str,
        level: Level = "warning",
        lasts: bool = False,
    ) -> None:
        self._log = log
        self._event = event
        self._over = over
        self._level: Level = level
        self._lasts = lasts
        self._timer: asyncio.TimerHandle | None = None
        self._began = 0.0
        self._times = 0
        self._since = 0
        self._fields: dict[str, Any] = {}

    @property
    def active(self) -> bool:
        """Has it begun, and is not over?"""
        return self._timer is not None

    def add(self, times: int = 1, **fields: Any) -> None:
        """Note that it was met, in the event loop's thread; ``fields`` are shown beside the next line about it."""
        self._fields = fields
        if self._timer is not None:
            self._since += times
            return
        loop = asyncio.get_running_loop()
        self._began, self._times, self._since = loop.time(), times, 0
        self._timer = loop.call_later(INTERVAL, self._go_on)
        self._log.log(_NUMBERS[self._level], self._event, **fields)

    def end(self, **fields: Any) -> None:
        """Say that it is over, if it had begun."""
        if self._timer is None:
            return
        seconds = self._seconds()
        self.close()
        self._log.info(self._over, lasted=seconds, times=self._times + self._since, **fields)

    def close(self) -> None:
        """Say nothing more: whoever met it ends."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _go_on(self) -> None:
        if not self._since and not self._lasts:
            self.end()
            return
        self._timer = asyncio.get_running_loop().call_later(INTERVAL, self._go_on)
        met, self._since = self._since, 0
        self._times += met
        self._log.log(_NUMBERS[self._level], self._event, lasting=self._seconds(), times=met, **self._fields)

    def _seconds(self) -> float:
        return round(asyncio.get_running_loop().time() - self._began, 1)


_NUMBERS = {"info": 20, "warning": 30, "error": 40}
