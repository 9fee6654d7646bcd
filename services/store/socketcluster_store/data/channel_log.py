"""Channels that keep a history, on top of an ordered key-value transaction.

A message and its channel's new position are written by one command, so an acknowledged publication is in the history
whatever happens to the store, and offsets go on where they ended. Keys, ``#`` being 16 bytes of hash::

    c m <#channel>                  epoch, oldest and newest offset, bytes, and times: see ``_Meta``
    c h <#channel> <offset>         a message: its time and its value
    c x <milliseconds> <#channel>   when to look at the channel next; one entry a channel
    c y <milliseconds> <#channel>   the same, if the channel has no messages any more: it may be forgotten before
    c n                             how many channels there are, and how many entries of ``c y``
    c i <#channel> <#id>            an id that was published: its number, time, epoch and offset
    c j <number>                    #channel and #id of the ids, in the order in which they came
    c w                             the first and the next number of those
    c b                             what names the time in which the partition was opened last, or ``_CLEAN``
    c e                             the first epoch that no opening has reserved
    c l                             the last opening that found something missing, before these epochs

A power cut may take what was not synced with it, and a failover of Valkey what had not arrived, and offsets would be
given twice. So every channel gets a new epoch unless this is the time, by ``EnginePartition.life``, in which the store
before opened the partition, or that one had the time to sync; and if the engine found something missing all the same.

Nothing is held in memory, and time alone costs nothing: a channel has one entry in the queue of ``c x`` however often
it is published to, which is moved on when its turn comes. An age is exact all the same, because what is too old is left
out of every answer.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from itertools import islice
from struct import Struct
from typing import NamedTuple

import msgspec

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.commands import (
    CHANNEL_POSITION,
    CLOSE_CHANNELS,
    EXPIRE_CHANNELS,
    OPEN_CHANNELS,
    RESERVE_EPOCHS,
    Command,
)
from socketcluster_store.data.channel_rules import HistoryRule
from socketcluster_store.data.key_value import KeyValue
from socketcluster_store.errors import TooManyChannelsError
from socketcluster_store_client.messages import ChannelPosition, HistoryPage, Published
from socketcluster_store_client.partitioning import PARTITION_COUNT

OFFSET_AGE = 86_400.0
"""Seconds after its last message for which a channel's epoch and offset are kept, if its history is not kept longer."""
MAX_IDS = 65_536
"""Ids of messages that are remembered in a partition, whatever their age."""
ANSWER_BYTES = 1024 * 1024
"""What an answer of the history has, unless its first message is larger."""
MAX_LIMIT = 10_000
"""Messages in one answer."""
_CHANNELS_AT_ONCE = 100
"""Channels that are looked at in one batch."""
_MESSAGES_AT_ONCE = 2_000
"""Messages that are removed in one batch because their time is over."""
_REMOVED_AT_ONCE = 100
"""Messages that one publication may remove; usually it is one."""
_FORGOTTEN_AT_ONCE = 64
"""Channels without messages that make room for new ones."""

_CLEAN = b"clean"
_U64 = Struct(">Q")
_TIME = Struct(">d")
_META = Struct(">QQQQddQ")
_ID = Struct(">QdQQ")
_RING = Struct(">QQ")
_POSITION = Struct(">QQ?")
_COUNTS = Struct(">QQ")
_encode = msgspec.msgpack.Encoder().encode


class OpenDetail(NamedTuple):
    """The detail of the command OPEN_CHANNELS."""

    life: bytes
    """Names the time in which nothing can be lost: see ``EnginePartition``; empty: it is not known."""
    epoch: int
    """The first one that the opening reserves, at least; all channels get it if offsets may have been lost."""
    epochs: int
    """How many it reserves."""
    losses: bytes = b""
    """Names the last opening that found something missing: see ``EnginePartition``."""


class CloseDetail(NamedTuple):
    """The detail of the command CLOSE_CHANNELS."""

    epoch: int
    """The first one that was not given."""


class PublishDetail(NamedTuple):
    """The detail of the command VERB_CHANNEL_PUBLISH; its outcome is read by ``read_outcome``."""

    rule: HistoryRule
    now: float
    epoch: int
    """The channel's, if it is new."""
    message_id: str
    """Empty: none."""
    id_window: float
    """Seconds for which ids are remembered."""
    max_channels: int
    """Channels that the partition may remember."""


class HistoryQuery(NamedTuple):
    """The detail of the command VERB_CHANNEL_HISTORY."""

    now: float
    limit: int
    epoch: int
    """0: whatever the channel's is."""
    offset: int | None
    """What comes after it is asked for; ``None``: the newest messages are."""


class _Meta:
    """What is remembered of a channel beside its messages."""

    __slots__ = ("age", "epoch", "first", "last", "queued", "size", "time")

    def __init__(self, epoch: int, first: int, last: int, size: int, time: float, age: float, queued: int) -> None:
        self.epoch = epoch
        self.first = first
        self.last = last
        self.size = size
        self.time = time  # of the newest message
        self.age = age
        self.queued = queued  # the time of its entry in the queue; 0: it has none

    def pack(self) -> bytes:
        return _META.pack(self.epoch, self.first, self.last, self.size, self.time, self.age, self.queued)


def read_outcome(outcome: bytes) -> tuple[int, int, bool]:
    """Return the epoch and offset of a publication, and whether it is new: not so if its id was published before."""
    epoch, offset, new = _POSITION.unpack(outcome)
    return epoch, offset, new


def answer_of(outcome: bytes) -> bytes:
    """Return the answer to a publication, from the outcome of its command; of one that is not known any more, zeros."""
    epoch, offset, _is_new = read_outcome(outcome) if outcome else (0, 0, False)
    return _encode(Published(epoch, offset))


def read_deadline(outcome: bytes) -> float | None:
    """Return when EXPIRE_CHANNELS is due next, from its outcome; ``None``: not until something is published."""
    return _U64.unpack(outcome)[0] / 1000 if outcome else None


def read_epoch(outcome: bytes) -> int:
    """Return the first epoch that is reserved, from the outcome of OPEN_CHANNELS."""
    epoch: int = _U64.unpack(outcome)[0]
    return epoch


def channel_command(verb: int, channel: str, detail: object = None, value: bytes = b"") -> Command:
    """Return a command on a channel."""
    return Command(verb, b"", (channel,), value, detail=detail)


def _open(kv: KeyValue, command: Command) -> bytes:
    opening = command.detail
    assert isinstance(opening, OpenDetail)  # noqa: S101
    reserved = kv.get(b"ce")
    epoch = opening.epoch if reserved is None else max(opening.epoch, _U64.unpack(reserved)[0])
    kv.put(b"ce", _U64.pack(epoch + opening.epochs))
    before = kv.get(b"cb")
    lost = (kv.get(b"cl") or b"") != opening.losses
    if lost:
        kv.put(b"cl", opening.losses)
    if lost or (before not in (None, _CLEAN) and (before != opening.life or not before)):
        for key, raw in list(kv.scan(b"cm")):
            meta = _Meta(*_META.unpack(raw))
            meta.epoch = max(epoch, meta.epoch + 1)  # an earlier version reserved none
            kv.put(key, meta.pack())
    kv.put(b"cb", opening.life)
    if kv.get(b"cn") is None and (count := sum(1 for _ in kv.scan(b"cm"))):  # an earlier version did not count
        _count(kv, channels=count)
    return _U64.pack(epoch)


def _reserve(kv: KeyValue, command: Command) -> bytes:
    assert isinstance(command.detail, int)  # noqa: S101
    kv.put(b"ce", _U64.pack(command.detail))
    return b""


def _close(kv: KeyValue, command: Command) -> bytes:
    closing = command.detail
    assert isinstance(closing, CloseDetail)  # noqa: S101
    kv.put(b"cb", _CLEAN)
    kv.put(b"ce", _U64.pack(closing.epoch))
    return b""


def _publish(kv: KeyValue, command: Command) -> bytes:
    detail = command.detail
    assert isinstance(detail, PublishDetail)  # noqa: S101
    channel = hash_of(command.keys[0])
    id_key = b""
    if detail.message_id:
        id_key = channel + hash_of(detail.message_id)
        found = kv.get(b"ci" + id_key)
        if found is not None:
            _number, at, epoch, offset = _ID.unpack(found)
            if at + detail.id_window > detail.now:
                return _POSITION.pack(epoch, offset, False)
    rule = detail.rule
    meta = _load(kv, channel)
    if meta is None:
        _make_room(kv, command.keys[0], detail.max_channels)
        meta = _Meta(detail.epoch, 1, 0, 0, 0.0, 0.0, 0)
        _count(kv, channels=1)
    elif meta.first > meta.last and meta.queued:
        _unqueue(kv, channel, meta)
    meta.last += 1
    meta.time = max(detail.now, meta.time)  # so that times rise with offsets, whatever the clock does
    meta.age = rule.age
    meta.size += len(command.value)
    kv.put(_message_key(channel, meta.last), _TIME.pack(meta.time) + command.value)
    _trim(kv, channel, meta, rule)
    if not meta.queued:
        _queue(kv, channel, meta, meta.time + meta.age)
    kv.put(b"cm" + channel, meta.pack())
    if id_key:
        _keep_id(kv, id_key, detail, meta)
    return _POSITION.pack(meta.epoch, meta.last, True)


def _make_room(kv: KeyValue, name: str, max_channels: int) -> None:
    """Have room for a new channel; those that have no messages any more are forgotten for it, the oldest first.

    Raises:
        TooManyChannelsError: there are none of them.
    """
    channels, empty = _counts(kv)
    if channels < max_channels:
        return
    if not empty:
        raise TooManyChannelsError(
            f"PUBLISH {name!r}: a new channel with a history, and {channels} of this partition have messages, a "
            f"{PARTITION_COUNT}th of what the store's option max_history_channels allows"
        )
    for key, _ in list(islice(kv.scan(b"cy"), _FORGOTTEN_AT_ONCE)):
        _forget(kv, key[10:])


def _forget(kv: KeyValue, channel: bytes) -> None:
    meta = _load(kv, channel)
    if meta is not None:
        _unqueue(kv, channel, meta)
        kv.delete(b"cm" + channel)
        _count(kv, channels=-1)


def _counts(kv: KeyValue) -> tuple[int, int]:
    """Return how many channels are remembered, and how many of them have no messages and wait to be forgotten."""
    raw = kv.get(b"cn")
    channels, empty = (0, 0) if raw is None else _COUNTS.unpack(raw)
    return channels, empty


def _count(kv: KeyValue, *, channels: int = 0, empty: int = 0) -> None:
    all_channels, all_empty = _counts(kv)
    if all_channels + channels:
        kv.put(b"cn", _COUNTS.pack(all_channels + channels, all_empty + empty))
    else:
        kv.delete(b"cn")


def _trim(kv: KeyValue, channel: bytes, meta: _Meta, rule: HistoryRule) -> None:
    """Remove what a history has too much of, from its oldest message on."""
    for _ in range(min(meta.last + 1 - meta.first, _REMOVED_AT_ONCE)):
        too_much = meta.last - meta.first >= rule.count or meta.size > rule.size
        if not too_much and _time(kv, channel, meta.first) + rule.age > meta.time:
            return
        _remove_oldest(kv, channel, meta)


def _remove_oldest(kv: KeyValue, channel: bytes, meta: _Meta) -> None:
    key = _message_key(channel, meta.first)
    meta.size -= len(kv.get(key) or b"") - _TIME.size
    meta.first += 1
    kv.delete(key)


def _keep_id(kv: KeyValue, id_key: bytes, detail: PublishDetail, meta: _Meta) -> None:
    """Remember an id, and forget up to two whose time is over, so that they never become more."""
    first, number = _RING.unpack(kv.get(b"cw") or bytes(_RING.size))
    kv.put(b"ci" + id_key, _ID.pack(number, detail.now, meta.epoch, meta.last))
    kv.put(b"cj" + _U64.pack(number), id_key)
    number += 1
    for _ in range(2):
        slot = b"cj" + _U64.pack(first)
        oldest = kv.get(slot)
        if oldest is None:
            break
        its_number, at, _epoch, _offset = _ID.unpack(kv.get(b"ci" + oldest) or bytes(_ID.size))
        if its_number == first:  # else it was published again since, and stands in a later slot
            if at + detail.id_window > detail.now and number - first <= MAX_IDS:
                break
            kv.delete(b"ci" + oldest)
        kv.delete(slot)
        first += 1
    kv.put(b"cw", _RING.pack(first, number))


def _position(kv: KeyValue, command: Command) -> bytes:
    now = command.detail
    assert isinstance(now, float)  # noqa: S101
    channel = hash_of(command.keys[0])
    meta = _load(kv, channel)
    if meta is None:
        return _encode(ChannelPosition(0, 0, 1))
    return _encode(ChannelPosition(meta.epoch, meta.last, _oldest(kv, channel, meta, now)))


def _history(kv: KeyValue, command: Command) -> bytes:
    query = command.detail
    assert isinstance(query, HistoryQuery)  # noqa: S101
    channel = hash_of(command.keys[0])
    meta = _load(kv, channel)
    if meta is None:
        return _encode(HistoryPage(0, 0, 1, 1, query.epoch == 0 and not query.offset, []))
    first = _oldest(kv, channel, meta, query.now)
    known = query.epoch in (0, meta.epoch) and (query.offset is None or query.offset <= meta.last)
    if query.offset is None:
        start = max(first, meta.last + 1 - query.limit)
    else:
        start = max(first, query.offset + 1) if known else first
    end = min(meta.last, start + query.limit - 1)
    offsets = range(start, end + 1) if query.offset is not None else range(end, start - 1, -1)
    messages: list[bytes] = []
    size = 0
    for offset in offsets:
        message = (kv.get(_message_key(channel, offset)) or b"")[_TIME.size :]
        size += len(message)
        if size > ANSWER_BYTES and messages:
            break
        messages.append(message)
    if query.offset is None:
        messages.reverse()
        start = end + 1 - len(messages)
    return _encode(HistoryPage(meta.epoch, meta.last, first, start, known, messages))


def _oldest(kv: KeyValue, channel: bytes, meta: _Meta, now: float) -> int:
    """Return the offset of the oldest message whose time is not over; times rise with offsets."""
    if meta.time + meta.age <= now:
        return meta.last + 1
    low, high = meta.first, meta.last + 1
    while low < high:
        middle = (low + high) // 2
        if _time(kv, channel, middle) + meta.age <= now:
            low = middle + 1
        else:
            high = middle
    return low


def _expire(kv: KeyValue, command: Command) -> bytes:
    """Remove the messages whose time is over, and the channels to which nothing was published for long."""
    now = command.detail
    assert isinstance(now, float)  # noqa: S101
    budget = _MESSAGES_AT_ONCE
    for key, _ in list(islice(kv.scan(b"cx"), _CHANNELS_AT_ONCE)):
        if _deadline(key) > now or not budget:
            break
        channel = key[10:]
        meta = _load(kv, channel)
        if meta is None:
            kv.delete(key)
            continue
        _unqueue(kv, channel, meta)
        over = meta.time + meta.age
        if over <= now:
            while meta.first <= meta.last and budget:
                _remove_oldest(kv, channel, meta)
                budget -= 1
            if meta.first <= meta.last:
                over = now  # the rest comes next
            elif (over := max(over, meta.time + OFFSET_AGE)) <= now:
                kv.delete(b"cm" + channel)
                _count(kv, channels=-1)
                continue
        _queue(kv, channel, meta, over)
        kv.put(b"cm" + channel, meta.pack())
    upcoming = next(iter(kv.scan(b"cx")), None)
    return b"" if upcoming is None else upcoming[0][2:10]


def _queue(kv: KeyValue, channel: bytes, meta: _Meta, at: float) -> None:
    meta.queued = int(at * 1000) + 1
    entry = _U64.pack(meta.queued) + channel
    kv.put(b"cx" + entry, b"")
    if meta.first > meta.last:
        kv.put(b"cy" + entry, b"")
        _count(kv, empty=1)


def _unqueue(kv: KeyValue, channel: bytes, meta: _Meta) -> None:
    entry = _U64.pack(meta.queued) + channel
    meta.queued = 0
    kv.delete(b"cx" + entry)
    if kv.get(b"cy" + entry) is not None:
        kv.delete(b"cy" + entry)
        _count(kv, empty=-1)


def _deadline(key: bytes) -> float:
    milliseconds: int = _U64.unpack_from(key, 2)[0]
    return milliseconds / 1000


def _load(kv: KeyValue, channel: bytes) -> _Meta | None:
    raw = kv.get(b"cm" + channel)
    return None if raw is None else _Meta(*_META.unpack(raw))


def _message_key(channel: bytes, offset: int) -> bytes:
    return b"ch" + channel + _U64.pack(offset)


def _time(kv: KeyValue, channel: bytes, offset: int) -> float:
    """Return when a message came; long ago, if there is none."""
    message = kv.get(_message_key(channel, offset))
    time: float = 0.0 if message is None else _TIME.unpack_from(message)[0]
    return time


def hash_of(name: str) -> bytes:
    """Return what stands for a name, however long it is."""
    return blake2b(name.encode(), digest_size=16).digest()


VERBS: dict[int, Callable[[KeyValue, Command], bytes]] = {
    store_pb2.VERB_CHANNEL_PUBLISH: _publish,
    store_pb2.VERB_CHANNEL_HISTORY: _history,
    CHANNEL_POSITION: _position,
    OPEN_CHANNELS: _open,
    CLOSE_CHANNELS: _close,
    RESERVE_EPOCHS: _reserve,
    EXPIRE_CHANNELS: _expire,
}
"""The commands on channels with a history."""
