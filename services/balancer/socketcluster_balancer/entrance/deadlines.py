"""Many time-outs of one length, with one timer: adding and discarding an item is a dictionary operation."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class DeadlineQueue(Generic[T]):
    """Items that expire ``timeout`` seconds after they were added, the oldest first, unless they are discarded."""

    def __init__(self, timeout: float, expired: Callable[[T], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout = timeout
        self._expired = expired
        self._items: dict[T, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item: T) -> bool:
        return item in self._items

    def add(self, item: T) -> None:
        """Give ``item`` its time from now on."""
        self._items.pop(item, None)  # a dictionary keeps the order in which keys came in, so it must come in again
        self._items[item] = self._loop.time() + self._timeout
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout, self._tick)

    def discard(self, item: T) -> bool:
        """Forget ``item``; return whether it was there."""
        return self._items.pop(item, None) is not None

    def pop_all(self) -> list[T]:
        """Forget all items and return them, the oldest first."""
        items = list(self._items)
        self.close()
        return items

    def close(self) -> None:
        """Forget all items and stop the timer."""
        self._items.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = None
        now = self._loop.time()
        due: list[T] = []
        for item, deadline in self._items.items():  # once: a dictionary's beginning is slow to find after deletions
            if deadline > now:
                self._timer = self._loop.call_later(deadline - now, self._tick)
                break
            due.append(item)
        for item in due:
            if self._items.get(item, math.inf) <= now:  # the end of another may have brought that of this one
                del self._items[item]
                self._expired(item)
