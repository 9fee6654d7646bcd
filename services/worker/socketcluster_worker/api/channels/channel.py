"""What the exchange gives: offsets, a channel's history, and subscriptions of the worker's own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Protocol, Self

from socketcluster_store_client.channel_feed import ChannelFeed, Gap
from socketcluster_store_client.messages import Position, read_published
from socketcluster_worker.api.data.values import unpack_message
from socketcluster_worker.api.position import MAX_NUMBER, read_position, write_position
from socketcluster_worker.api.sockets.events import Handler
from socketcluster_worker.errors import EventError
from socketcluster_worker.tasks import Tasks


class Offset(int):
    """The number of a message in its channel: 1 for the first of an epoch, then consecutive.

    Attributes:
        epoch: in which it counts; it changes when the store no longer knows how far it had counted.
    """

    epoch: int

    def __new__(cls, offset: int, epoch: int) -> Self:
        """Make the offset of an epoch."""
        made = super().__new__(cls, offset)
        made.epoch = epoch
        return made

    @property
    def text(self) -> str:
        """Both numbers as clients are sent them."""
        return write_position(Position(self.epoch, int(self)))


def position_of(since: Offset | int | str) -> Position:
    """Return the position that an application names; a plain number is one of the present epoch.

    Raises:
        EventError: a text is not what ``Offset.text`` gives, or a number is negative or too large.
    """
    if isinstance(since, str):
        position = read_position(since)
        if position is None:
            raise EventError("an offset is what came with a message", name="InvalidOffset")
        return position
    if not 0 <= since <= MAX_NUMBER:
        raise EventError(f"an offset is 0 to {MAX_NUMBER}", name="InvalidOffset")
    return Position(getattr(since, "epoch", 0), int(since))


class Publication:
    """A publication on its way: awaiting it gives its ``Offset``, once the store has it.

    If it fails, that is told to whoever awaits it; else, once nobody can do so any more, as any failure in the
    background.
    """

    __slots__ = ("_awaited", "_channel", "_sent", "_tasks")

    def __init__(self, sent: asyncio.Future[bytes], tasks: Tasks, channel: str) -> None:
        self._sent = sent
        self._tasks = tasks
        self._channel = channel
        self._awaited = False

    def __await__(self) -> Generator[Any, None, Offset]:
        """Wait for the store.

        Raises:
            LinkError: the store did not take it, or did not answer.
        """
        self._awaited = True
        answer = yield from self._sent.__await__()
        published = read_published(answer)
        return Offset(published.offset, published.epoch)

    def __del__(self) -> None:
        if not self._awaited:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._tasks.watch(self._sent, f"publishing to {self._channel!r}")


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a channel's history."""

    offset: Offset
    data: Any


@dataclass(frozen=True, slots=True)
class ChannelHistory:
    """What a channel's history had."""

    messages: list[Message]
    """Consecutive, the oldest first."""
    offset: Offset
    """Of the newest message that was published; 0: none was in this epoch."""
    missing: range | None
    """The offsets between ``since`` and the first message, which are gone; empty if nothing is missing.

    ``None``: ``since`` is of another epoch, so it is not known what came after it; the messages are the oldest that
    are kept."""


class Channels(Protocol):
    """What a subscription needs of the exchange."""

    def publish(self, channel: str, data: Any, id: str | None = None) -> Publication:  # noqa: A002  # the user's word
        """Publish to a channel."""

    def make_feed(
        self, channel: str, deliver: Callable[[str, bytes, int, int], None], missed: Callable[[Gap], None]
    ) -> ChannelFeed:
        """Return what puts a channel's messages in order."""

    def run(self, handler: Handler, args: tuple[Any, ...], channel: str) -> None:
        """Call the handler of a subscription."""

    async def remove(self, subscription: Channel) -> None:
        """End a subscription."""


class Channel:
    """One subscription of this worker's own to a channel; made by ``exchange.subscribe``.

    Attributes:
        name: the channel's.
        gap: what was published after ``since`` and is gone; ``None`` if nothing is missing.
    """

    def __init__(self, name: str, exchange: Channels, handler: Handler, *, resumes: bool) -> None:
        self.name = name
        self.gap: Gap | None = None
        self._exchange = exchange
        self._handler = handler
        self._wants_offset = handler.least > 1
        self._feed = exchange.make_feed(name, self._fed, self._missed) if resumes else None

    def publish(self, data: Any, id: str | None = None) -> Publication:  # noqa: A002  # as in exchange.publish
        """Publish to the channel; see ``exchange.publish``."""
        return self._exchange.publish(self.name, data, id)

    async def unsubscribe(self) -> None:
        """End the subscription."""
        if self._feed is not None:
            self._feed.close()
        await self._exchange.remove(self)

    async def start(self, since: Position) -> None:
        """Deliver what came after a position; for the exchange."""
        if self._feed is not None:
            await self._feed.start(since)

    def take(self, packed: bytes, position: Position) -> None:
        """Take a message; for the exchange."""
        if self._feed is not None:
            self._feed.take(packed, position.offset, position.epoch)
        else:
            self._run(unpack_message(packed), position)

    def _fed(self, _channel: str, packed: bytes, offset: int, epoch: int) -> None:
        self._run(unpack_message(packed), Position(epoch, offset))

    def _run(self, data: Any, position: Position) -> None:
        # who has room for the offset gets it, but not in place of an argument with a default of its own
        args = (data, Offset(position.offset, position.epoch)) if self._wants_offset else (data,)
        self._exchange.run(self._handler, args, self.name)

    def _missed(self, gap: Gap) -> None:
        if self.gap is None:
            self.gap = gap
