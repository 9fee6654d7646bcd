"""A channel's message on its way to the clients that are subscribed."""

from __future__ import annotations

from typing import Any

from socketcluster_worker.api.sockets.emission import Forms


class ChannelMessage(Forms):
    """One message, to all of a channel's clients that get the same."""

    __slots__ = ("channel", "data", "offset")

    def __init__(self, channel: str, data: Any, offset: str | None = None) -> None:
        super().__init__()
        self.channel = channel
        self.data = data
        """``msgspec.Raw`` of its JSON where that is known, ``msgspec.UNSET`` if it has none."""
        self.offset = offset
        """Where in the channel it is; ``None`` for clients that did not ask."""
