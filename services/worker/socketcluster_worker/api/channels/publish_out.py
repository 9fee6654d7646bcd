"""Channels' messages on their way through the middleware of the stage ``publish_out``, to each subscriber in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import msgspec

from socketcluster_wire.close_codes import CloseCode
from socketcluster_worker.api.channels.channel_message import ChannelMessage
from socketcluster_worker.api.channels.subscribers import Subscriber
from socketcluster_worker.api.data.values import message_for_clients
from socketcluster_worker.api.sockets.action import Action
from socketcluster_worker.api.sockets.middleware import Middleware
from socketcluster_worker.api.sockets.socket import Socket
from socketcluster_worker.connection import SlowConsumer
from socketcluster_worker.errors import EventError
from socketcluster_worker.tasks import Tasks

MAX_WAITING = 1000
"""Messages that may wait for the middleware on their way to one socket; then it is disconnected."""


@dataclass(slots=True)
class _Delivery:
    """A message on its way to one client."""

    channel: str
    packed: bytes
    offset: str | None
    dropped: bool = False


class PublishOut:
    """Asks the middleware once for each message and subscriber; it may change what that subscriber gets.

    Args:
        middleware: whom to ask.
        tasks: what it raises is reported here; the subscriber does not get the message then.
        policy_of: tells what becomes of a channel's messages for a client that reads too slowly.
    """

    def __init__(self, middleware: Middleware, tasks: Tasks, policy_of: Callable[[str], SlowConsumer | None]) -> None:
        self._policy_of = policy_of
        self._middleware = middleware
        self._tasks = tasks
        self._waiting: dict[Subscriber, deque[_Delivery]] = {}

    @property
    def active(self) -> bool:
        """Is there such a middleware?"""
        return self._middleware.active("publish_out")

    def deliver(self, socket: Subscriber, channel: str, packed: bytes, offset: str | None = None) -> None:
        """Send a message, with its offset if there is one, to a subscriber, after those that wait."""
        delivery = _Delivery(channel, packed, offset)
        waiting = self._waiting.get(socket)
        if waiting is None:
            waiting = self._waiting[socket] = deque([delivery])
            self._tasks.run(self._work, (socket, waiting), "middleware of the stage 'publish_out'")
        elif len(waiting) <= MAX_WAITING:  # the first one is with the middleware
            waiting.append(delivery)
        else:
            socket.disconnect(CloseCode.TOO_SLOW, "too many messages are waiting for a middleware")

    def discard(self, socket: Subscriber, channel: str) -> None:
        """Drop what waits of a subscription that has ended: should there be another one, it has an order of its own."""
        if not socket.connected:
            return
        for delivery in self._waiting.get(socket, ()):
            if delivery.channel == channel:
                delivery.dropped = True

    async def _work(self, socket: Subscriber, waiting: deque[_Delivery]) -> None:
        try:
            while waiting and socket.connected:
                if not waiting[0].dropped:
                    await self._send(socket, waiting[0])
                waiting.popleft()
        finally:
            del self._waiting[socket]

    async def _send(self, socket: Subscriber, delivery: _Delivery) -> None:
        channel, packed, offset = delivery.channel, delivery.packed, delivery.offset
        given = message_for_clients(packed)  # a copy, to be changed
        shown = None if given is msgspec.UNSET else given
        action = Action("publish_out", cast(Socket, socket), channel=channel, data=shown)  # nobody else subscribes
        try:
            await self._middleware.run(action)
            data = msgspec.UNSET if action.passed_on is None and given is msgspec.UNSET else action.passed_on
            if not delivery.dropped:
                socket.deliver(ChannelMessage(channel, data, offset), self._policy_of(channel))
        except EventError:
            return
        except Exception as error:  # what waits behind it is sent
            self._tasks.report(error, "middleware of the stage 'publish_out'")
