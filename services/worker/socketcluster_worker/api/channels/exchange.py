"""Channels: what is published to one reaches every subscriber in the cluster, in the order of its store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, TypeVar, get_args, overload

from socketcluster_proto.v1 import store_pb2 as pb
from socketcluster_runtime.logs import logging
from socketcluster_store_client.channel_feed import ChannelFeed, Gap
from socketcluster_store_client.client import StoreClient
from socketcluster_store_client.messages import Position, read_channel_position
from socketcluster_worker.api.channels.channel import Channel, ChannelHistory, Message, Offset, Publication, position_of
from socketcluster_worker.api.channels.subscribers import Answer, Filter, Follower, Subscriber, Subscribers
from socketcluster_worker.api.data.values import pack, pack_message, unpack_message
from socketcluster_worker.api.sockets.events import Emitter, Handler, make_handler
from socketcluster_worker.connection import SlowConsumer
from socketcluster_worker.errors import EventError
from socketcluster_worker.tasks import Tasks

log = logging.get_logger(__name__)


class _Inside(NamedTuple):
    """Who hears what workers publish to each other."""

    receive: Callable[[bytes, Position], None]
    missed: Callable[[Position], None]


Missed = TypeVar("Missed", bound=Callable[[Gap], Any] | Callable[[], Any])


class ExchangeEvents(Protocol):
    """``on`` and ``once`` of an exchange."""

    @overload
    def __call__(self, event: Literal["gap"]) -> Callable[[Missed], Missed]: ...
    @overload
    def __call__(self, event: Literal["gap"], handler: Missed) -> Missed: ...


class Exchange(Emitter):
    """The channels of the cluster, as one worker sees them.

    Its event: ``gap(gap)``, when messages of a channel never reached this worker, because its link to the store was
    broken and the channel has no history, or one that is too short. ``gap.channel`` is the channel, ``gap.missing`` the
    offsets (a ``range``), or ``None`` where the channel began a new epoch, so that their number is not known.
    """

    EVENTS: ClassVar = {"gap": 1}
    HAS_OTHERS = False
    on: ExchangeEvents  # type: ignore[assignment]  # of this event only
    once: ExchangeEvents  # type: ignore[assignment]

    def __init__(
        self,
        client: StoreClient,
        tasks: Tasks,
        *,
        max_channels_per_socket: int,
        slow_consumer: SlowConsumer,
        max_channel_name_length: int,
        client_publish: tuple[str, ...] | None,
    ) -> None:
        super().__init__()
        self._client = client
        self._tasks = tasks
        self._limit = max_channels_per_socket
        self._max_name_length = max_channel_name_length
        self._client_publish = client_publish  # patterns; None: any channel
        self._slow_consumer = slow_consumer
        self._subscribers = Subscribers(self.policy_of, tasks.unreachable)
        self._channels: dict[str, list[Channel]] = {}
        self._inside: dict[str, _Inside] = {}
        self._policies: list[tuple[str, SlowConsumer]] = []

    def publish(self, channel: str, data: Any, id: str | None = None) -> Publication:  # noqa: A002  # the user's word
        """Publish ``data`` to every subscriber of a channel.

        Awaiting the result means that the store has it, and gives its ``Offset``; nobody has to.

        Args:
            channel: its name.
            data: anything that has a JSON form, bytes too.
            id: what names the message, at most 128 bytes: published again with the same id within the store's option
                ``message_id_window`` (300 s), it is not published again, and the offset is the first one's.

        Raises:
            NotSerializableError: the data has no JSON form.
            EventError: the channel's name is empty or too long.
        """
        self.check_name(channel)
        sent = self._client.call(pb.VERB_CHANNEL_PUBLISH, name=channel, value=pack(data), message_id=id or "")
        return Publication(sent, self._tasks, channel)

    def publish_for_client(self, channel: str, data: Any) -> asyncio.Future[bytes]:
        """Publish what a client sent: a value, ``msgspec.Raw`` of its JSON, or ``msgspec.UNSET`` if that is nothing.

        The caller checked the name and whether clients may, and tells the client of whatever is raised.
        """
        return self._client.call(pb.VERB_CHANNEL_PUBLISH, name=channel, value=pack_message(data))

    def check_name(self, channel: object) -> None:
        """Raise ``EventError`` unless ``channel`` can be a channel's name; the workers' own begin with a NUL."""
        if not isinstance(channel, str) or not 0 < len(channel) <= self._max_name_length or channel[0] == "\0":
            raise EventError(
                f"a channel's name is a text of 1 to {self._max_name_length} characters", name="InvalidChannel"
            )

    def check_publisher(self, channel: str) -> None:
        """Raise ``EventError`` if the option ``client_publish`` does not let clients publish to a channel."""
        if self._client_publish is not None and not any(fnmatchcase(channel, one) for one in self._client_publish):
            raise EventError("clients may not publish to this channel", name="InvalidActionError")

    async def history(self, channel: str, since: Offset | int | str | None = None, limit: int = 100) -> ChannelHistory:
        """Return messages of a channel that has a history, by the store's option ``channel_history``.

        Args:
            channel: its name.
            since: the first messages after this offset are wanted; ``None``: the newest are. A plain number is an
                offset of the present epoch, a text what ``Offset.text`` gives.
            limit: how many messages at most, up to 10,000; there are fewer if they would have more than 1 MiB.

        Raises:
            EventError: the channel's name or ``since`` is malformed.
            LinkError: the store did not answer (``StoreUnavailableError``), or refused the limit.
        """
        self.check_name(channel)
        position = None if since is None else position_of(since)
        page = await self._client.history(channel, position, limit)
        messages = [
            Message(Offset(offset, page.epoch), unpack_message(packed))
            for offset, packed in enumerate(page.messages, page.start)
        ]
        missing: range | None = range(0)
        if position is not None:
            missing = range(position.offset + 1, page.start) if page.known else None
        return ChannelHistory(messages, Offset(page.offset, page.epoch), missing)

    async def subscribe(
        self, channel: str, handler: Callable[..., Any], since: Offset | int | str | None = None
    ) -> Channel:
        """Call ``handler(data)`` or ``handler(data, offset)``, plain or async, with what is published to a channel.

        Args:
            channel: its name.
            handler: gets the offset if it has a second parameter without a default.
            since: what came after this offset comes first, in order and once; ``gap`` of the result tells what the
                history no longer had. ``None``: from now on. See ``history``.

        Raises:
            StoreUnavailableError: the store did not answer in time; nothing is subscribed.
            EventError: the channel's name or ``since`` is malformed.
            TypeError: the handler is no function, or wants more than that.
        """
        self.check_name(channel)
        position = None if since is None else position_of(since)
        subscription = Channel(channel, self, make_handler(handler, given=2), resumes=position is not None)
        self._channels.setdefault(channel, []).append(subscription)  # at once, so that no message is missed
        try:
            await self._client.subscribe(channel)
            if position is not None:
                await subscription.start(position)
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

    def filter_by(self, filter_: Filter) -> None:
        """Have each client's messages go by a filter; for the namespace to which clients with channels belong."""
        self._subscribers.filter = filter_

    def add(self, socket: Subscriber, channel: str) -> asyncio.Future[bytes]:
        """Subscribe a client at once; awaiting the result means that the store sends what is published.

        Raises:
            EventError: the name is malformed, or the client has too many channels.
        """
        self.check_name(channel)
        if channel in socket.channels or not socket.connected:  # nobody would ever take a closed socket out again
            done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            done.set_result(b"")
            return done
        self._check_limit(socket)
        self._subscribers.add(socket, channel)  # before the store does, so that nothing is missed

        def finish(sent: asyncio.Future[bytes]) -> None:
            if sent.cancelled() or sent.exception() is not None:
                self.discard(socket, channel)

        sent = self._client.subscribe(channel)
        sent.add_done_callback(finish)
        return sent

    def follow(self, socket: Subscriber, channel: str, since: str | None, answer: Answer) -> Coroutine[Any, Any, None]:
        """Subscribe a client at once that is to get each message's offset; the result is to be run.

        Args:
            socket: the client.
            channel: the channel's name.
            since: what came after this offset comes first, in order and once; ``None``: from now on.
            answer: is called before the first message with ``offset``, where the client is, and if something after
                ``since`` is gone, with ``missing``, the first and last such offset, or ``reset``: true, if ``since``
                is of another epoch; with ``skips``: true, if messages may be left out on purpose.

        Raises:
            EventError: the name or ``since`` is malformed, or the client has too many channels.
        """
        self.check_name(channel)
        position = None if since is None else position_of(since)
        if not socket.connected:
            raise EventError("the client is gone", name="BrokerError")
        if channel in socket.channels:
            self._subscribers.discard(socket, channel)
        self._check_limit(socket)
        skips = self._subscribers.filters or (self.policy_of(channel) or self._slow_consumer) != "disconnect"
        follower = self._subscribers.follow(socket, channel, answer, skips=skips)
        follower.feed = self.make_feed(channel, follower.deliver, follower.missed)
        return self._start(follower, self._client.subscribe(channel), position)

    async def _start(self, follower: Follower, subscribed: asyncio.Future[bytes], since: Position | None) -> None:
        try:
            now = read_channel_position(await subscribed)
            if not self._subscribers.follows(follower) or follower.feed is None:
                raise EventError("the subscription has ended meanwhile", name="BrokerError")
            if since is not None:
                await follower.start(since)
                if not follower.answered:
                    raise EventError("the subscription has ended meanwhile", name="BrokerError")
            else:
                follower.begin(Position(now.epoch, now.offset))
                feed, follower.feed = follower.feed, None
                feed.opened(now)
        except BaseException:
            if self._subscribers.follows(follower):
                self.discard(follower.socket, follower.channel)
            raise

    def _check_limit(self, socket: Subscriber) -> None:
        if len(socket.channels) >= self._limit:
            raise EventError(f"a client may have {self._limit} channels", name="LimitError")

    def discard(self, socket: Subscriber, channel: str) -> bool:
        """Unsubscribe a client; return whether it was subscribed."""
        if channel not in socket.channels:
            return False
        self._subscribers.discard(socket, channel)
        self._leave(channel)
        return True

    def discard_all(self, socket: Subscriber) -> None:
        """Unsubscribe a client that is gone."""
        for channel in tuple(socket.channels):
            self.discard(socket, channel)

    def publish_inside(self, channel: str, packed: bytes) -> asyncio.Future[bytes]:
        """Publish to the workers themselves; for the namespaces."""
        sent = self._client.call(pb.VERB_CHANNEL_PUBLISH, name=channel, value=packed)
        self._tasks.watch(sent, "a broadcast to the other workers")
        return sent

    def listen_inside(
        self,
        channel: str,
        receive: Callable[[bytes, Position], None],
        missed: Callable[[Position], None],
        begun: Callable[[Position], None],
    ) -> asyncio.Future[bytes]:
        """Hear what workers publish to each other; for the namespaces.

        ``missed`` is called when something was not heard, with the position after which it goes on; ``begun`` first,
        with where the channel is when it begins to be heard. The result tells that, unless it failed for the moment.
        """
        self._inside[channel] = _Inside(receive, missed)
        subscribed = self._client.subscribe(channel, begun)
        self._tasks.watch(subscribed, "subscribing to the other workers' broadcasts", is_told_again=True)
        return subscribed

    def deliver(self, channel: str, packed: bytes, position: Position) -> None:
        """Send what the store says was published to all who are subscribed here."""
        inside = self._inside.get(channel)
        if inside is not None:
            inside.receive(packed, position)
            return
        if channel in self._subscribers:
            self._subscribers.deliver(channel, packed, position)
        for subscription in tuple(self._channels.get(channel, ())):
            try:
                subscription.take(packed, position)
            except Exception as error:  # the other subscriptions get it
                self._tasks.report(error, f"a subscription to channel {channel!r}")

    def missed(self, gap: Gap) -> None:
        """Tell of messages that did not reach this worker."""
        inside = self._inside.get(gap.channel)
        if inside is not None:
            inside.missed(gap.now)
            return
        handlers = self.handlers("gap")
        for handler in handlers:
            self._tasks.run(handler.call, ((gap,),), "a handler of the exchange's 'gap'")
        if gap.missing is not None and not handlers:
            log.warning("messages of a channel are missing", channel=gap.channel, count=len(gap.missing))

    def make_feed(
        self, channel: str, deliver: Callable[[str, bytes, int, int], None], missed: Callable[[Gap], None]
    ) -> ChannelFeed:
        """Return what puts a channel's messages in order for one subscriber."""
        return ChannelFeed(channel, self._client.history, deliver, missed)

    def run(self, handler: Handler, args: tuple[Any, ...], channel: str) -> None:
        """Call the handler of a subscription."""
        self._tasks.run(handler.call, (args,), f"a handler of channel {channel!r}")

    async def remove(self, subscription: Channel) -> None:
        """End a subscription of the worker's own; for ``Channel``."""
        subscriptions = self._channels.get(subscription.name, [])
        if subscription in subscriptions:
            subscriptions.remove(subscription)
            if not subscriptions:
                self._channels.pop(subscription.name, None)
                self._leave(subscription.name)

    def _leave(self, channel: str) -> None:
        if channel not in self._subscribers and channel not in self._channels:
            left = self._client.unsubscribe(channel)
            self._tasks.watch(left, f"unsubscribing from {channel!r}", is_told_again=True)
