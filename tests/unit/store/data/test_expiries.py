"""What one thing costs does not grow with how much else waits: counted, not timed."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any

import pytest

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.data.channel_rules import ChannelRules
from socketcluster_store.data.expiries import Expiries
from socketcluster_store.engines.sorted_map import SortedMap
from socketcluster_store.links import WorkerLink, pack_event
from socketcluster_store.partition.channels import Channels
from socketcluster_store.partition.watchers import GRACE, Watchers
from socketcluster_store_client.messages import Result, decode_results

MANY = 1000


class Chain(tuple[str, ...]):
    """A key chain that counts how often one is looked into."""

    __slots__ = ()
    looks = 0

    def __getitem__(self, index: Any) -> Any:
        Chain.looks += 1
        return super().__getitem__(index)


class Moment(float):
    """A time that counts how often one is compared."""

    comparisons = 0

    def __lt__(self, other: float) -> bool:
        Moment.comparisons += 1
        return super().__lt__(other)

    def __gt__(self, other: float) -> bool:
        Moment.comparisons += 1
        return super().__gt__(other)


class Results(list[Result]):
    """Results that count how many are copied into another list."""

    copied = 0

    def __add__(self, other: Any) -> Any:
        Results.copied += len(self) + len(other)
        return Results(super().__add__(other))


@pytest.fixture
def expiries() -> Expiries:
    """Many key chains expire, of other top-level keys."""
    made = Expiries()
    made.load(SortedMap())
    for number in range(MANY):
        made.set(b"", Chain((f"k{number}", "x")), float(number))
    return made


def test_a_change_looks_at_the_expiries_of_its_own_top_level_key(expiries: Expiries) -> None:
    kv = SortedMap()
    Chain.looks = 0
    assert expiries.remove_below(kv, b"", ("k1", "x", "y"), itself=True) == 0
    assert expiries.remove_below(kv, b"", ("other",), itself=True) == 0
    assert expiries.remove_below(kv, b"", ("k2",), itself=True) > 0
    assert Chain.looks < 10
    assert expiries.get(b"", ("k2", "x")) is None
    assert expiries.remove_below(kv, b"", (), itself=True) > 0
    assert b"" not in expiries


def test_what_is_undone_does_not_sort_all_expiries_anew(expiries: Expiries, monkeypatch: pytest.MonkeyPatch) -> None:
    def rebuild() -> None:
        raise AssertionError("all are sorted anew")

    monkeypatch.setattr(expiries, "_rebuild", rebuild)
    kv = SortedMap()
    for _ in range(20):
        expiries.begin()
        expiries.undo()
    expiries.begin()
    expiries.remove(kv, b"", ("k0", "x"))
    expiries.set(b"", ("k1", "x"), 5000.0)
    assert expiries.next() == 2.0
    expiries.undo()
    for number in range(3):
        assert expiries.due(number) == (b"", (f"k{number}", "x"))
        expiries.remove(kv, b"", (f"k{number}", "x"))


async def test_the_watch_that_ends_first_is_found_at_once() -> None:
    watchers = Watchers()
    for number in range(MANY):
        watchers.load([(b"", (f"k{number}",))], Moment(number))
    Moment.comparisons = 0
    assert watchers.next() == GRACE
    assert Moment.comparisons == 0
    assert watchers.due(GRACE + 1) == [(b"", ("k0",)), (b"", ("k1",))]
    assert watchers.next() == GRACE + 2
    link = WorkerLink("worker", "incarnation", 1 << 20)
    watchers.add(link, (b"", ("k2",)))
    watchers.load([(b"", ("k2",))], 0.0)  # it could not be forgotten, and is watched again
    assert watchers.next() == GRACE + 3


async def test_answers_between_events_are_put_together_once() -> None:
    link = WorkerLink("worker", "incarnation", 1 << 20)
    event = pack_event(store_pb2.Event(channel_message=store_pb2.ChannelMessage(channel="c")))
    for number in range(MANY):
        link.answer(Results([Result(number)]))
        link.tell(event)
    Results.copied = 0
    replies: list[bytes] = []

    async def write(reply: bytes) -> None:
        replies.append(reply)
        link.close(*closing)

    closing: Any = (None, "")
    writing = asyncio.create_task(link.write(write))
    await link.closing
    writing.cancel()
    await asyncio.wait({writing})
    reply = store_pb2.LinkReply.FromString(replies[0])
    assert [result.id for result in decode_results(reply.results)] == list(range(MANY))
    assert len(reply.events) == MANY
    assert Results.copied == 0


async def test_what_is_taken_from_the_front_is_found_past_nothing() -> None:
    kept: Any = None
    channels: Channels[Any] = Channels(ChannelRules(()), 300, kept, lambda: 0.0)
    # the first key of a dict is found past all that were taken away before it; no count shows that
    assert isinstance(channels._ids, OrderedDict)
    assert isinstance(channels._idle, OrderedDict)
