"""The channels of one partition: who is subscribed, offsets, and what channels without a history keep, in memory.

A channel that has a history, by the option ``channel_history``, is kept by ``channel_log``; its messages are told to
subscribers after their commit. Any other channel has an epoch and an offset in memory for as long as it has
subscribers, and ``IDLE_TIME`` longer; it begins a new epoch if it comes back after that. Of one that nobody listened to
nothing is kept, however often it is published to.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.clock import BOOT_ID as BOOT_ID
from socketcluster_store.clock import boot_id
from socketcluster_store.commands import (
    CHANNEL_POSITION,
    CLOSE_CHANNELS,
    EXPIRE_CHANNELS,
    OPEN_CHANNELS,
    RESERVE_EPOCHS,
    Command,
    Outcome,
)
from socketcluster_store.data.channel_log import (
    MAX_IDS,
    MAX_LIMIT,
    CloseDetail,
    HistoryQuery,
    OpenDetail,
    PublishDetail,
    channel_command,
    hash_of,
    read_deadline,
    read_epoch,
    read_outcome,
)
from socketcluster_store.data.channel_rules import ChannelRules
from socketcluster_store.errors import EngineError, InternalError, InvalidError
from socketcluster_store.links import pack_event
from socketcluster_store.partition.channel_troubles import ChannelTroubles
from socketcluster_store.partition.timer import DeadlineTimer
from socketcluster_store_client.messages import (
    ChannelPosition,
    HistoryPage,
    HistoryRequest,
    Operation,
    Published,
    read_history_request,
)

IDLE_TIME = 300.0
"""Seconds for which the offset of a channel without history is remembered after its last subscriber."""
MAX_IDLE = 1024
"""Such channels that are remembered in a partition; of more, those idle for longest are forgotten."""
EPOCHS = 1 << 24
"""Epochs that are reserved at a time: at an opening, and when half of them are given."""
RETRY_PAUSE = 1.0
"""Seconds until it is tried again to remove what is too old, or to reserve epochs."""

SUBSCRIBE = store_pb2.VERB_CHANNEL_SUBSCRIBE
UNSUBSCRIBE = store_pb2.VERB_CHANNEL_UNSUBSCRIBE
PUBLISH = store_pb2.VERB_CHANNEL_PUBLISH
HISTORY = store_pb2.VERB_CHANNEL_HISTORY
VERBS = frozenset((SUBSCRIBE, UNSUBSCRIBE, PUBLISH, HISTORY))

_encode = msgspec.msgpack.Encoder().encode


class Subscriber(Protocol):
    """What is subscribed to channels: a worker's link."""

    channels: set[str]
    """The channels that it is subscribed to, of all partitions."""

    def tell(self, event: bytes) -> None:
        """Send a packed event."""


class ChannelStorage(Protocol):
    """What keeps the channels: a partition of an engine."""

    epoch: int
    life: bytes | None
    losses: bytes
    """See ``EnginePartition`` of both."""

    async def apply(self, batch: Sequence[Command]) -> list[Outcome]:
        """Apply a batch."""

    async def sync(self) -> None:
        """Force what was applied to the disk."""


S = TypeVar("S", bound=Subscriber)


class _Channel(Generic[S]):
    """A channel in memory."""

    __slots__ = ("epoch", "offset", "subscribers")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch  # 0: it has a history, which knows better
        self.offset = 0
        self.subscribers: dict[S, None] = {}


class Channels(Generic[S]):
    """The channels of one partition.

    An operation is carried out in two steps: ``prepare`` before the partition's batch is committed, which may add a
    command to the batch, and ``finish`` after it, in the same order. Times are seconds since the Unix epoch.

    Args:
        rules: which channels have a history.
        id_window: seconds for which ids of messages are remembered.
        storage: keeps them.
        clock: tells the time.
        troubles: what of them is told by the log, for all partitions of a store together.
    """

    def __init__(
        self,
        rules: ChannelRules,
        id_window: float,
        storage: ChannelStorage,
        clock: Callable[[], float],
        troubles: ChannelTroubles | None = None,
    ) -> None:
        self._troubles = troubles or ChannelTroubles()
        self._rules = rules
        self._id_window = id_window
        self._storage = storage
        self._clock = clock
        self._channels: dict[str, _Channel[S]] = {}
        # Without subscribers and history, by the hash of the name: since when, in that order, epoch and offset
        self._idle: OrderedDict[bytes, tuple[float, int, int]] = OrderedDict()
        # In the order of their times; a dict's first key is found past all that were taken away before it
        self._ids: OrderedDict[tuple[str, str], tuple[float, Published]] = OrderedDict()
        # What comes after it, below the end, was reserved: no owner before or after gives it
        self._last_epoch = 0
        self._epochs_end = 0
        self._reserve_at = 0.0  # not before, after it failed
        self._reserving: asyncio.Task[None] | None = None
        self._expiry = DeadlineTimer(self._expire, clock)

    async def load(self) -> None:
        """Take over the channels that the partition remembers; call it once, first.

        Raises:
            EngineError: the engine failed.
        """
        life = self._storage.life
        # an ownership's epoch may be milliseconds by a better clock than the partition's
        least = max(int(self._clock() * 1_000_000), self._storage.epoch * 1000)
        opening = OpenDetail(boot_id(BOOT_ID) if life is None else life, least, EPOCHS, self._storage.losses)
        (outcome,) = await self._storage.apply([channel_command(OPEN_CHANNELS, "", opening)])
        if not isinstance(outcome, bytes):
            raise outcome
        self._last_epoch = read_epoch(outcome)
        self._epochs_end = self._last_epoch + EPOCHS
        await self._storage.sync()  # else a power cut leaves that the channels were closed, and offsets are given again
        await self._expire_due()

    async def close(self) -> None:
        """Give the channels up; the engine is to be synced then.

        Raises:
            EngineError: the engine failed.
        """
        await self._expiry.close()
        if self._reserving is not None:
            await asyncio.wait({self._reserving})
        for trouble in (self._troubles.reserving, self._troubles.expiring):
            trouble.end(self)
        if self._storage.life is None:
            await self._storage.apply([channel_command(CLOSE_CHANNELS, "", CloseDetail(self._last_epoch + 1))])

    def prepare(self, subscriber: S, operation: Operation, now: float) -> Command | None:
        """Begin an operation; return what the engine is to do for it.

        Raises:
            InvalidError: the operation is malformed.
            InternalError: it may need an epoch, and no more could be reserved.
        """
        verb = operation.verb
        name = operation.name
        rule = self._rules.find(name)
        if verb in (PUBLISH, SUBSCRIBE) and self._epochs_end - self._last_epoch <= EPOCHS // 2:
            self._reserve_more(operation)
        if verb == PUBLISH:
            if rule is None:
                return None
            self._expiry.set(now + rule.age)
            epoch, most = self._next_epoch(), self._rules.max_channels
            detail = PublishDetail(rule, now, epoch, operation.message_id, self._id_window, most)
            return channel_command(PUBLISH, name, detail, operation.value)
        if verb == HISTORY:
            request = _request(operation)
            if rule is None:
                return None
            return channel_command(HISTORY, name, HistoryQuery(now, request.limit, request.epoch, request.offset))
        if verb == UNSUBSCRIBE:
            self.unsubscribe(name, subscriber, now)
            return None
        # before its position is read, so that nothing is told to nobody in between
        subscriber.channels.add(name)
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = _Channel(0) if rule else self._begin(name)
        channel.subscribers[subscriber] = None
        return channel_command(CHANNEL_POSITION, name, now) if rule else None

    def finish(self, operation: Operation, outcome: bytes, now: float) -> bytes:
        """Complete an operation whose command, if it had one, had that outcome; return the answer."""
        verb = operation.verb
        name = operation.name
        if verb == PUBLISH:
            return self._publish(operation, outcome, now)
        if outcome or verb == UNSUBSCRIBE:
            return outcome
        channel = self._channels.get(name)
        if channel is None:
            _since, epoch, offset = self._idle.get(hash_of(name), (0.0, 0, 0))
        else:
            epoch, offset = channel.epoch, channel.offset
        if verb == SUBSCRIBE:
            return _encode(ChannelPosition(epoch, offset, offset + 1))
        request = _request(operation)
        known = request.epoch in (0, epoch) and (request.offset is None or request.offset <= offset)
        return _encode(HistoryPage(epoch, offset, offset + 1, offset + 1, known, []))

    def forget_subscribers(self) -> None:
        """Have no subscribers any more: the partition is not this store's now."""
        for name, channel in self._channels.items():
            for subscriber in channel.subscribers:
                subscriber.channels.discard(name)
            channel.subscribers.clear()

    def unsubscribe(self, name: str, subscriber: S, now: float) -> None:
        """Remove a subscriber."""
        subscriber.channels.discard(name)
        channel = self._channels.get(name)
        if channel is None or subscriber not in channel.subscribers:
            return
        del channel.subscribers[subscriber]
        if channel.subscribers:
            return
        del self._channels[name]
        if channel.epoch:
            self._note_idle(hash_of(name), now, channel.epoch, channel.offset)

    def _publish(self, operation: Operation, outcome: bytes, now: float) -> bytes:
        name = operation.name
        channel = self._channels.get(name)
        if outcome:
            epoch, offset, is_new = read_outcome(outcome)
            published = Published(epoch, offset)
            if not is_new:
                return _encode(published)
        else:
            if operation.message_id and (first := self._published_before(operation, now)) is not None:
                return _encode(first)
            if channel is None:
                published = self._publish_to_nobody(name, now)
            else:
                channel.offset += 1
                published = Published(channel.epoch, channel.offset)
            if operation.message_id:
                self._remember_id(operation, published, now)
        if channel is not None and channel.subscribers:
            message = store_pb2.ChannelMessage(
                channel=name, value=operation.value, offset=published.offset, epoch=published.epoch
            )
            packed = pack_event(store_pb2.Event(channel_message=message))
            for subscriber in channel.subscribers:
                subscriber.tell(packed)
        return _encode(published)

    def _publish_to_nobody(self, name: str, now: float) -> Published:
        if self._idle:
            key = hash_of(name)
            if (known := self._idle.get(key)) is not None:
                _since, epoch, offset = known
                self._note_idle(key, now, epoch, offset + 1)
                return Published(epoch, offset + 1)
        return Published(self._next_epoch(), 1)  # the names that can be published to have no end

    def _begin(self, name: str) -> _Channel[S]:
        """Return the channel, without a history, of somebody who begins to listen."""
        known = self._idle.pop(hash_of(name), None) if self._idle else None
        if known is None:
            return _Channel(self._next_epoch())
        channel: _Channel[S] = _Channel(known[1])
        channel.offset = known[2]
        return channel

    def _note_idle(self, key: bytes, now: float, epoch: int, offset: int) -> None:
        """Note where a channel is that has no subscribers any more, and forget those that had none for long."""
        idle = self._idle
        idle.pop(key, None)
        idle[key] = now, epoch, offset
        while idle[oldest := next(iter(idle))][0] < now - IDLE_TIME or len(idle) > MAX_IDLE:
            del idle[oldest]

    def _published_before(self, operation: Operation, now: float) -> Published | None:
        found = self._ids.get((operation.name, operation.message_id))
        return found[1] if found is not None and found[0] + self._id_window > now else None

    def _remember_id(self, operation: Operation, published: Published, now: float) -> None:
        """Remember an id, and forget up to two whose time is over, so that they never become more."""
        ids = self._ids
        key = (operation.name, operation.message_id)
        ids.pop(key, None)
        ids[key] = (now, published)
        for _ in range(2):
            oldest = next(iter(ids))
            if ids[oldest][0] + self._id_window > now and len(ids) <= MAX_IDS:
                return
            del ids[oldest]

    def _next_epoch(self) -> int:
        """Return an epoch that no channel had before: below 2**53, so that JavaScript can count it too."""
        self._last_epoch += 1
        return self._last_epoch

    def _reserve_more(self, operation: Operation) -> None:
        """Reserve more epochs; refuse the operation if too few are left for what is under way."""
        if (self._reserving is None or self._reserving.done()) and self._clock() >= self._reserve_at:
            self._reserving = asyncio.create_task(self._reserve())
        if self._epochs_end - self._last_epoch < EPOCHS // 4:
            raise InternalError(f"{operation.name!r}: no epoch is left for a channel; the store's log says why")

    async def _reserve(self) -> None:
        end = self._epochs_end + EPOCHS
        try:
            await self._storage.apply([channel_command(RESERVE_EPOCHS, "", end)])
            await self._storage.sync()  # before any of them is given
        except EngineError as error:
            self._reserve_at = self._clock() + RETRY_PAUSE
            self._troubles.reserving.add(self, error)
        else:
            self._epochs_end = end
            self._troubles.reserving.end(self)

    # What is too old.

    async def _expire(self) -> None:
        """Remove from histories what is too old; the timer's."""
        try:
            await self._expire_due()
            self._troubles.expiring.end(self)
        except EngineError as error:
            self._troubles.expiring.add(self, error)
            self._expiry.set(self._clock() + RETRY_PAUSE)

    async def _expire_due(self) -> None:
        (outcome,) = await self._storage.apply([channel_command(EXPIRE_CHANNELS, "", self._clock())])
        if not isinstance(outcome, bytes):
            raise outcome
        self._expiry.set(read_deadline(outcome))


def _request(operation: Operation) -> HistoryRequest:
    try:
        request = read_history_request(operation.value)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidError(f"history of {operation.name!r}: {error}") from None
    if not 0 <= request.limit <= MAX_LIMIT or request.epoch < 0 or (request.offset is not None and request.offset < 0):
        raise InvalidError(f"history of {operation.name!r}: the limit is 0 to {MAX_LIMIT}, numbers are not negative")
    return request
