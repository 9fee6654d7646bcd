"""Who is subscribed to a channel, and its next offset. In memory: a channel's offsets begin anew with each epoch."""

from __future__ import annotations

from collections.abc import Collection
from typing import Generic, Protocol, TypeVar


class Subscriber(Protocol):
    """What is subscribed to channels: a worker's link."""

    channels: set[str]
    """The channels that it is subscribed to, of all partitions."""


S = TypeVar("S", bound=Subscriber)


class Channels(Generic[S]):
    """The channels of one partition."""

    def __init__(self) -> None:
        self._subscribers: dict[str, dict[S, None]] = {}
        self._offsets: dict[str, int] = {}

    def subscribe(self, channel: str, subscriber: S) -> None:
        """Add a subscriber."""
        subscriber.channels.add(channel)
        self._subscribers.setdefault(channel, {})[subscriber] = None

    def unsubscribe(self, channel: str, subscriber: S) -> None:
        """Remove a subscriber."""
        subscriber.channels.discard(channel)
        subscribers = self._subscribers.get(channel, {})
        if subscriber in subscribers:
            del subscribers[subscriber]
            if not subscribers:
                del self._subscribers[channel]

    def next_offset(self, channel: str) -> int:
        """Assign an offset: 1 for the first message of the epoch, then consecutive."""
        offset = self._offsets.get(channel, 0) + 1
        self._offsets[channel] = offset
        return offset

    def subscribers(self, channel: str) -> Collection[S]:
        """Return who gets the channel's messages."""
        return self._subscribers.get(channel, ())
