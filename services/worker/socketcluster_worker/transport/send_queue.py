"""What waits for one client that reads slowly."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from socketcluster_worker.connection import SlowConsumer

T = TypeVar("T")


class SendQueue(Generic[T]):
    """Frames or packets in the order in which they go out; each says by its policy whether it may be dropped.

    Args:
        size: tells how many bytes one takes.

    Attributes:
        bytes: what waits.
        dropped: messages that were dropped so far.
    """

    __slots__ = ("_count", "_droppable", "_frames", "_latest", "_size", "bytes", "dropped")

    def __init__(self, size: Callable[[T], int]) -> None:
        self._size = size
        self.bytes = 0
        self.dropped = 0
        self._count = 0
        self._frames: OrderedDict[int, T] = OrderedDict()  # ordered, yet quick to take from anywhere
        self._droppable: OrderedDict[int, Hashable] = OrderedDict()  # numbers of frames that may go, and their keys
        self._latest: dict[Hashable, int] = {}  # the one frame of each key of ``latest_only``

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, frame: T, policy: SlowConsumer, key: Hashable = None) -> None:
        """Let a frame wait; with ``latest_only`` it takes the place of the one that waits with the same key."""
        self._count += 1
        number = self._count
        if policy == "latest_only":
            before = self._latest.get(key)
            if before is not None:
                self._drop(before)
            self._latest[key] = number
        if policy != "disconnect":
            self._droppable[number] = key
        self._frames[number] = frame
        self.bytes += self._size(frame)

    def trim(self, limit: int) -> bool:
        """Drop the oldest of those that may be dropped until ``limit`` bytes wait; return whether that was enough."""
        while self.bytes > limit and self._droppable:
            self._drop(next(iter(self._droppable)))
        return self.bytes <= limit

    def take(self, at_least: int) -> list[T]:
        """Take the first ones, ``at_least`` so many bytes of them or all."""
        taken: list[T] = []
        size = 0
        while self._frames and size < at_least:
            number, frame = self._frames.popitem(last=False)
            self._forget(number)
            taken.append(frame)
            size += self._size(frame)
        self.bytes -= size
        return taken

    def _drop(self, number: int) -> None:
        self.bytes -= self._size(self._frames.pop(number))
        self._forget(number)
        self.dropped += 1

    def _forget(self, number: int) -> None:
        if number in self._droppable:
            key = self._droppable.pop(number)
            if self._latest.get(key) == number:
                del self._latest[key]
