"""Where the operations of a partition go, and those that have no answer yet; the store client's own."""

from __future__ import annotations

import asyncio

from socketcluster_proto.v1 import store_pb2
from socketcluster_runtime.channel_feed import ChannelFeed
from socketcluster_runtime.link import StoreLink


class Pending:
    """An operation that has no answer yet."""

    __slots__ = ("deadline", "future", "operation")

    def __init__(self, operation: store_pb2.Operation, future: asyncio.Future[bytes] | None, deadline: float) -> None:
        self.operation = operation
        self.future = future
        """``None``: the client's own; it is made anew for each stream."""
        self.deadline = deadline


class Route:
    """Where the operations of one partition go."""

    __slots__ = ("channels", "epoch", "in_flight", "owner", "parked", "renew", "sent_to", "sessions", "watches")

    def __init__(self) -> None:
        self.owner: StoreLink | None = None
        self.epoch = 0
        self.renew = False  # has the owner still to be told what is attached and subscribed?
        self.sent_to: StoreLink | None = None
        self.in_flight: dict[int, Pending] = {}  # on sent_to, by id
        self.parked: dict[int, Pending] = {}  # until there is an owner and nothing is in flight elsewhere
        self.sessions: dict[str, None] = {}  # attached
        self.channels: dict[str, ChannelFeed] = {}  # subscribed
        self.watches: dict[tuple[str, tuple[str, ...]], bytes] = {}  # by session id and key chain, their tags

    @property
    def clear(self) -> bool:
        """May operations be sent to the owner without overtaking others?"""
        return self.owner is not None and (self.sent_to is self.owner or not self.in_flight)
