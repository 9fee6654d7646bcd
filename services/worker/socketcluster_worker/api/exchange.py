"""Channels: what is published to one reaches every subscriber in the cluster, in the order of its store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, get_args

from socketcluster_proto.v1 import store_pb2 as pb
from socketcluster_runtime.store_client import StoreClient
from socketcluster_wire import socketcluster
from socketcluster_worker.api.events import Handler, make_handler
from socketcluster_worker.api.history import Position
from socketcluster_worker.api.outbox import Outbox
from socketcluster_worker.api.socket import Socket
from socketcluster_worker.api.values import pack, unpack
from socketcluster_worker.connection import Outgoing, SlowConsumer
from socketcluster_worker.errors import EventError
from socketcluster_worker.tasks import Tasks

MAX_NAME_LENGTH = 200
"""Characters of a channel's name."""


class Channel:
    """One subscription of this worker's own to a channel; made by ``exchange.subscribe``."""

    def __init__(self, name: str, exchange: Exchange, handler: Handler) -> None:
        self.name = name
        self._exchange = exchange
        self._handler = handler

    def publish(self, data: Any) -> asyncio.Future[bytes]:
        """Publish to the channel; awaiting the result means that the store has it."""
        return self._exchange.publish(self.name, data)

    async def unsubscribe(self) -> None:
        """End the subscription."""
        await self._exchange._remove(self)


class Exchange:
    """The channels of the cluster, as one worker sees them."""

    def __init__(self, client: StoreClient, tasks: Tasks, *, max_channels_per_socket: int) -> None:
        self._client = client
        self._tasks = tasks
        self._limit = max_channels_per_socket
        self._sockets: dict[str, dict[str, Socket]] = {}
        self._channels: dict[str, list[Channel]] = {}
        self._inside: dict[str, Callable[[bytes, Position], None]] = {}
        self._policies: list[tuple[str, SlowConsumer]] = []
        self.outbox: Outbox | None = None  # of the namespace to which clients with channels belong

    def publish(self, channel: str, data: Any) -> asyncio.Future[bytes]:
        """Publish ``data`` to every subscriber of a channel; awaiting the result means that the store has it.

        Raises:
            NotSerializableError: the data has no JSON form.
            EventError: the channel's name is empty or too long.
        """
        check_name(channel)
        sent = self.publish_for_client(channel, data)
        self._tasks.watch(sent, f"publishing to {channel!r}")
        return sent

    def publish_for_client(self, channel: str, data: Any) -> asyncio.Future[bytes]:
        """Publish what a client sent; the caller checked the name, and tells the client of whatever is raised."""
        return self._client.call(pb.VERB_CHANNEL_PUBLISH, name=channel, value=pack(data))

    async def subscribe(self, channel: str, handler: Callable[..., Any]) -> Channel:
        """Call ``handler(data)``, plain or async, with whatever is published to a channel from now on.

        Raises:
            StoreUnavailableError: the store did not answer in time; nothing is subscribed.
        """
        check_name(channel)
        subscription = Channel(channel, self, make_handler(handler))
        self._channels.setdefault(channel, []).append(subscription)  # at once, so that no message is missed
        try:
            await self._client.subscribe(channel)
        except BaseException:
            await subscription.unsubscribe()
            raise
        return subscription

    def slow_consumer(self, pattern: str, policy: SlowConsumer) -> None:
        """Say what becomes of a channel's messages for a client that reads too slowly.

        Args:
            pattern: a channel's name, or one with ``*`` and ``?``; of several that match, the first given counts.
            policy: ``disconnect`` (the client may come back and ask what it missed), ``drop_oldest``, or
                ``latest_only`` (of each channel only the newest message waits). Without any the option
                ``slow_consumer`` counts.

        Raises:
            ValueError: there is no such policy.
        """
        if policy not in get_args(SlowConsumer):
            raise ValueError(f"there is no policy {policy!r}, only {', '.join(get_args(SlowConsumer))}")
        self._policies.append((pattern, policy))

    def policy_of(self, channel: str) -> SlowConsumer | None:
        """Return the policy that was given for a channel, if any was."""
        for pattern, policy in self._policies:
            if fnmatchcase(channel, pattern):
                return policy
        return None

    def add(self, socket: Socket, channel: str) -> asyncio.Future[bytes]:
        """Subscribe a client at once; awaiting the result means that the store sends what is published.

        Raises:
            EventError: the name is malformed, or the client has too many channels.
        """
        check_name(channel)
        if channel in socket.channels or not socket.connected:  # nobody would ever take a closed socket out again
            done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            done.set_result(b"")
            return done
        if len(socket.channels) >= self._limit:
            raise EventError(f"a client may have {self._limit} channels", name="LimitError")
        socket.channels.add(channel)
        self._sockets.setdefault(channel, {})[socket.id] = socket  # before the store does, so that nothing is missed

        def finish(sent: asyncio.Future[bytes]) -> None:
            if sent.cancelled() or sent.exception() is not None:
                self.discard(socket, channel)

        sent = self._client.subscribe(channel)
        sent.add_done_callback(finish)
        return sent

    def discard(self, socket: Socket, channel: str) -> bool:
        """Unsubscribe a client; return whether it was subscribed."""
        if channel not in socket.channels:
            return False
        socket.channels.discard(channel)
        members = self._sockets.get(channel, {})
        members.pop(socket.id, None)
        if not members:
            self._sockets.pop(channel, None)
            self._leave(channel)
        return True

    def discard_all(self, socket: Socket) -> None:
        """Unsubscribe a client that is gone."""
        for channel in tuple(socket.channels):
            self.discard(socket, channel)

    def publish_inside(self, channel: str, packed: bytes) -> None:
        """Publish to the workers themselves; for the namespaces."""
        sent = self._client.call(pb.VERB_CHANNEL_PUBLISH, name=channel, value=packed)
        self._tasks.watch(sent, "a broadcast to the other workers")

    def listen_inside(self, channel: str, receive: Callable[[bytes, Position], None]) -> None:
        """Hear what workers publish to each other; for the namespaces."""
        self._inside[channel] = receive
        self._tasks.watch(self._client.subscribe(channel), "subscribing to the other workers' broadcasts")

    def deliver(self, channel: str, packed: bytes, position: Position) -> None:
        """Send what the store says was published to all who are subscribed here."""
        inside = self._inside.get(channel)
        if inside is not None:
            inside(packed, position)
            return
        data = unpack(packed)
        members = self._sockets.get(channel)
        if members and self.outbox is not None and self.outbox.active:
            for socket in tuple(members.values()):
                self.outbox.deliver(socket, channel, packed)
        elif members:
            policy = self.policy_of(channel)
            outgoing = Outgoing(socketcluster.encode_event(socketcluster.PUBLISH, {"channel": channel, "data": data}))
            for socket in tuple(members.values()):
                socket.deliver(outgoing, policy, channel)
        for subscription in tuple(self._channels.get(channel, ())):
            self._tasks.run(subscription._handler, ((data,),), f"a handler of channel {channel!r}")

    async def _remove(self, subscription: Channel) -> None:
        subscriptions = self._channels.get(subscription.name, [])
        if subscription in subscriptions:
            subscriptions.remove(subscription)
            if not subscriptions:
                self._channels.pop(subscription.name, None)
                self._leave(subscription.name)

    def _leave(self, channel: str) -> None:
        if channel not in self._sockets and channel not in self._channels:
            self._tasks.watch(self._client.unsubscribe(channel), f"unsubscribing from {channel!r}")


def check_name(channel: object) -> None:
    """Raise EventError unless ``channel`` can be a channel's name; what begins with a NUL is the workers' own."""
    if not isinstance(channel, str) or not 0 < len(channel) <= MAX_NAME_LENGTH or channel[0] == "\0":
        raise EventError(f"a channel's name is a text of 1 to {MAX_NAME_LENGTH} characters", name="InvalidChannel")
