"""The clients that are subscribed to channels, on one worker: those that follow offsets, and those that do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from socketcluster_store_client.channel_feed import ChannelFeed, Gap
from socketcluster_store_client.messages import Position
from socketcluster_worker.api.channels.channel_message import ChannelMessage
from socketcluster_worker.api.data.values import message_for_clients
from socketcluster_worker.api.position import write_position
from socketcluster_worker.connection import Line, SlowConsumer

Answer = Callable[[dict[str, Any]], None]
"""Takes what a client is told of its subscription, before any message of it."""


class Subscriber(Protocol):
    """What is asked of a client's socket."""

    connected: bool
    channels: set[str]
    """Those that it is subscribed to."""
    line: Line
    """The straight way to the client for what is framed already; there is one if there is a ``frame_kind``."""
    frame_kind: str | None
    """Which of the frames of one message goes there."""

    @property
    def protocol(self) -> str:
        """The message protocol that the client speaks."""

    def deliver(self, message: ChannelMessage, policy: SlowConsumer | None) -> None:
        """Send a message of a channel."""

    def disconnect(self, code: int = ..., reason: str = ...) -> None:
        """End the connection."""


class Filter(Protocol):
    """Who decides of each message and subscriber whether it is sent, and how: the middleware, by ``PublishOut``."""

    @property
    def active(self) -> bool:
        """Is it to be asked?"""

    def deliver(self, socket: Subscriber, channel: str, packed: bytes, offset: str | None = None) -> None:
        """Send a message, if it is to be sent."""

    def discard(self, socket: Subscriber, channel: str) -> None:
        """Drop what waits of a subscription that has ended."""


class Follower:
    """A client that is sent offsets, so that it can take up where it was.

    Args:
        socket: the client.
        channel: the channel's name.
        answer: is called once.
        send: sends it a message, with its offset.
        skips: may messages be left out on purpose?
    """

    def __init__(
        self,
        socket: Subscriber,
        channel: str,
        answer: Answer,
        send: Callable[[Follower, bytes, str], None],
        *,
        skips: bool,
    ) -> None:
        self.socket = socket
        self.channel = channel
        self.feed: ChannelFeed | None = None
        """As long as the client is not where the channel is."""
        self._answer: Answer | None = answer
        self._send = send
        self._skips = skips
        self._gap: Gap | None = None
        self._since = Position(0, 0)

    async def start(self, since: Position) -> None:
        """Send what came after a position; return when that is all."""
        feed = self.feed
        if feed is None:
            return
        self._since = since
        await feed.start(since)
        if self.feed is feed:
            self._tell()
            self.feed = None

    def begin(self, now: Position) -> None:
        """Send what comes after the channel's present position."""
        self._since = now
        self._tell()

    def deliver(self, _channel: str, packed: bytes, offset: int, epoch: int) -> None:
        """Send one message; for the feed."""
        self._tell()
        self._send(self, packed, write_position(Position(epoch, offset)))

    def missed(self, gap: Gap) -> None:
        """Note what is gone; for the feed."""
        if self._gap is None:
            self._gap = gap

    def close(self) -> None:
        """Send nothing more."""
        if self.feed is not None:
            self.feed.close()
            self.feed = None

    @property
    def answered(self) -> bool:
        """Has the client been told that it is subscribed?"""
        return self._answer is None

    def _tell(self) -> None:
        if self._answer is None:
            return
        answer, self._answer = self._answer, None
        gap = self._gap
        told: dict[str, Any] = {"offset": write_position(self._since if gap is None else gap.now)}
        if gap is not None and gap.missing is None:
            told["reset"] = True
        elif gap is not None and gap.missing:
            told["missing"] = [gap.missing.start, gap.missing.stop - 1]
        if self._skips:
            told["skips"] = True
        answer(told)


class Subscribers:
    """The clients of every channel.

    Args:
        policy_of: tells what becomes of a channel's messages for a client that reads too slowly.
        unreachable: is told of a client that could not be sent a message.
    """

    def __init__(
        self,
        policy_of: Callable[[str], SlowConsumer | None],
        unreachable: Callable[[str, str, BaseException], None],
    ) -> None:
        self._policy_of = policy_of
        self._unreachable = unreachable
        self._sockets: dict[str, dict[Subscriber, None]] = {}
        self._followers: dict[str, dict[Subscriber, Follower]] = {}
        self.filter: Filter | None = None

    def __contains__(self, channel: object) -> bool:
        return channel in self._sockets or channel in self._followers

    def add(self, socket: Subscriber, channel: str) -> None:
        """Add a client that gets the bare messages."""
        socket.channels.add(channel)
        self._sockets.setdefault(channel, {})[socket] = None

    @property
    def filters(self) -> bool:
        """May middleware keep a message from one client, and let others have it?"""
        return self.filter is not None and self.filter.active

    def follow(self, socket: Subscriber, channel: str, answer: Answer, *, skips: bool) -> Follower:
        """Add a client that gets offsets too; ``skips``: may messages be left out on purpose?"""
        socket.channels.add(channel)
        follower = Follower(socket, channel, answer, self._send, skips=skips)
        self._followers.setdefault(channel, {})[socket] = follower
        return follower

    def follows(self, follower: Follower) -> bool:
        """Is it still there, and its client too?"""
        followers = self._followers.get(follower.channel, {})
        return followers.get(follower.socket) is follower and follower.socket.connected

    def discard(self, socket: Subscriber, channel: str) -> None:
        """Remove a client."""
        socket.channels.discard(channel)
        if self.filter is not None:
            self.filter.discard(socket, channel)
        follower = self._followers.get(channel, {}).pop(socket, None)
        if follower is not None:
            follower.close()
        self._sockets.get(channel, {}).pop(socket, None)
        for subscribed in (self._sockets, self._followers):
            if channel in subscribed and not subscribed[channel]:
                del subscribed[channel]

    def deliver(self, channel: str, packed: bytes, position: Position) -> None:
        """Send a message to all of a channel's clients; it is encoded once for each kind."""
        data = message_for_clients(packed)
        sockets = self._sockets.get(channel)
        if sockets:
            if self.filter is not None and self.filter.active:
                for socket in tuple(sockets):
                    self.filter.deliver(socket, channel, packed)
            else:
                policy = self._policy_of(channel)
                message = ChannelMessage(channel, data)
                frames = message.frames
                for socket in tuple(sockets):
                    frame = frames.get(socket.frame_kind) if socket.connected else None
                    try:
                        if frame is None or not socket.line.send_frame(frame):
                            socket.deliver(message, policy)
                    except Exception as error:  # the others get it
                        self._unreachable(socket.protocol, channel, error)
        followers = self._followers.get(channel)
        if followers:
            self._deliver_to_followers(tuple(followers.values()), channel, packed, data, position)

    def _deliver_to_followers(
        self, followers: tuple[Follower, ...], channel: str, packed: bytes, data: Any, position: Position
    ) -> None:
        policy = self._policy_of(channel)
        text = write_position(position)
        message = ChannelMessage(channel, data, text)
        for follower in followers:
            try:
                if follower.feed is not None:
                    follower.feed.take(packed, position.offset, position.epoch)
                elif self.filter is not None and self.filter.active:
                    self.filter.deliver(follower.socket, channel, packed, text)
                else:
                    follower.socket.deliver(message, policy)
            except Exception as error:  # the others get it
                self._unreachable(follower.socket.protocol, channel, error)

    def _send(self, follower: Follower, packed: bytes, offset: str) -> None:
        channel = follower.channel
        if self.filter is not None and self.filter.active:
            self.filter.deliver(follower.socket, channel, packed, offset)
        else:
            message = ChannelMessage(channel, message_for_clients(packed), offset)
            follower.socket.deliver(message, self._policy_of(channel))
