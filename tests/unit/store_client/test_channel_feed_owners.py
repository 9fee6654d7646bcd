"""Which words of which owner count, when a channel's partition goes from one to the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from support.store_client.hand_fed import HandFed, sent

from socketcluster_proto.v1 import store_pb2
from socketcluster_store_client import client, resync
from socketcluster_store_client.channel_feed import Gap
from socketcluster_store_client.errors import StoreUnavailableError
from socketcluster_store_client.messages import Operation, Position
from socketcluster_store_client.partitioning import partition_of

NEWS = partition_of("news")


class Head:
    """Where a channel without a history is, as its owner says."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.offset = 0

    def answer(self, operation: Operation) -> Any:
        head = {"epoch": self.epoch, "offset": self.offset, "first": self.offset + 1}
        if operation.verb == store_pb2.VERB_CHANNEL_HISTORY:
            asked = msgspec.msgpack.decode(operation.value)
            known = asked["epoch"] in (0, self.epoch) and asked["offset"] <= self.offset
            return head | {"start": self.offset + 1, "known": known, "messages": []}
        return head if operation.verb == store_pb2.VERB_CHANNEL_SUBSCRIBE else None


async def subscribed(fed: HandFed, link: Any, answer: Callable[[Operation], Any]) -> None:
    fed.announce(link, NEWS, 3)
    future = fed.client.subscribe("news")
    await fed.serve(link, answer)
    await future


async def test_what_a_former_owner_said_and_its_link_brings_late_does_not_count() -> None:
    fed = HandFed()
    first, second = fed.link(), fed.link()
    old, new = Head(1000), Head(2000)
    await subscribed(fed, first, old.answer)
    fed.tell(first, "news", "a1", 1, 1000)
    fed.announce(second, NEWS, 4)
    fed.tell(first, "news", "a2", 2, 1000)  # before the subscription is answered
    await fed.serve(second, new.answer)
    for offset in (1, 2, 3):
        new.offset = offset
        fed.tell(second, "news", f"b{offset}", offset, 2000)
        fed.tell(first, "news", f"a{offset + 2}", offset + 2, 1000)  # after it
        await fed.serve(second, new.answer)
    assert fed.messages == [("a1", 1, 1000), ("b1", 1, 2000), ("b2", 2, 2000), ("b3", 3, 2000)]
    assert [(tuple(gap.seen), tuple(gap.now)) for gap in fed.gaps] == [((1000, 1), (2000, 0))]


async def test_a_former_owner_s_first_message_does_not_begin_its_epoch_again() -> None:
    """The first of an epoch has nothing before it that could be missed, so only its link tells that it is late."""
    fed = HandFed()
    first, second = fed.link(), fed.link()
    await subscribed(fed, first, Head(1000).answer)
    fed.announce(second, NEWS, 4)
    new = Head(2000)
    await fed.serve(second, new.answer)
    fed.tell(first, "news", "a1", 1, 1000)
    fed.tell(second, "news", "b1", 1, 2000)
    assert fed.messages == [("b1", 1, 2000)]
    assert fed.client._feeds["news"].position == (2000, 1)


async def test_what_an_owner_said_before_it_lost_and_got_back_a_partition_does_not_count() -> None:
    fed = HandFed()
    link = fed.link()
    old, new = Head(1000), Head(2000)
    await subscribed(fed, link, old.answer)
    fed.tell(link, "news", "a1", 1, 1000)
    fed.announce(link, NEWS, 0)
    fed.announce(link, NEWS, 5)
    fed.tell(link, "news", "a2", 2, 1000)  # its reply had the announcement too, which counts first
    new.offset = 1
    await fed.serve(link, new.answer)
    fed.tell(link, "news", "a3", 3, 1000)
    fed.tell(link, "news", "b2", 2, 2000)
    await fed.serve(link, new.answer)
    assert fed.messages == [("a1", 1, 1000), ("b2", 2, 2000)]
    assert [(tuple(gap.seen), tuple(gap.now)) for gap in fed.gaps] == [((1000, 1), (2000, 1))]


async def test_a_late_answer_to_an_earlier_sending_opens_nothing() -> None:
    fed = HandFed()
    first, second = fed.link(), fed.link()
    fed.announce(first, NEWS, 3)
    future = fed.client.subscribe("news")
    (asked,) = first._gather()
    fed.announce(second, NEWS, 4)
    fed.answer(first, *fed.results([asked], Head(1000).answer))
    fed.tell(first, "news", "a1", 1, 1000)
    assert not future.done()
    await fed.serve(second, Head(2000).answer)
    await future
    fed.tell(second, "news", "b1", 1, 2000)
    assert fed.messages == [("b1", 1, 2000)]
    assert fed.gaps == []


async def test_a_subscription_is_open_when_any_subscriber_had_an_answer() -> None:
    """The first one's is given up, but not that of the second, which came meanwhile."""
    fed = HandFed()
    link = fed.link()
    fed.announce(link, NEWS, 3)
    first, second = fed.client.subscribe("news"), fed.client.subscribe("news")
    asked, again = link._gather()
    fed.client._fail(fed.client._pending[asked.id], TimeoutError("as the timer does"))  # type: ignore[arg-type]
    assert isinstance(first.exception(), TimeoutError)
    fed.answer(link, *fed.results([again], Head(1000).answer))
    await second
    fed.tell(link, "news", "a1", 1, 1000)
    assert fed.messages == [("a1", 1, 1000)]


async def test_a_subscription_that_follows_an_unsubscription_is_not_told_before_it() -> None:
    """What is published between both would be missing, and nothing would show that before the next message."""
    fed = HandFed()
    first, second = fed.link(), fed.link()
    await subscribed(fed, first, Head(1000).answer)
    fed.client.unsubscribe("news")
    again = fed.client.subscribe("news")
    first._gather()
    fed.announce(second, NEWS, 4)
    new = Head(2000)
    for operation in second._gather():
        fed.answer(second, *fed.results([operation], new.answer))
        if operation.verb == store_pb2.VERB_CHANNEL_UNSUBSCRIBE:
            new.offset = 1  # nobody is told
    assert msgspec.msgpack.decode(await again)["offset"] == 1
    assert fed.client._feeds["news"].position == (2000, 1)


async def test_what_follows_on_a_former_owner_s_last_word_is_asked_for_at_once() -> None:
    """That word fits, and begins where the history does not reach any more: it was taken for all that there is."""
    fed = HandFed()
    link = fed.link()
    await subscribed(fed, link, Head(1000).answer)
    fed.announce(link, NEWS, 0)
    fed.announce(link, NEWS, 5)
    fed.tell(link, "news", "a1", 1, 1000)  # late, and of the same epoch: the channel has a history of two messages

    def answer(operation: Operation) -> Any:
        kept = {"epoch": 1000, "offset": 9, "first": 8}
        if operation.verb == store_pb2.VERB_CHANNEL_HISTORY:
            return kept | {"start": 8, "known": True, "messages": [msgspec.msgpack.encode(f"a{n}") for n in (8, 9)]}
        return kept

    for _ in range(3):
        await fed.serve(link, answer)
    assert fed.messages == [("a1", 1, 1000), ("a8", 8, 1000), ("a9", 9, 1000)]
    assert [gap.missing for gap in fed.gaps] == [range(2, 8)]


async def test_the_answer_to_a_subscription_is_not_lost_though_telling_of_its_gap_fails() -> None:
    """All of an answer is taken in one step: what it says of the feed, and then whoever waits for it."""
    fed = HandFed()
    first, second = fed.link(), fed.link()
    old, new = Head(1000), Head(2000)
    await subscribed(fed, first, old.answer)

    def failing(gap: Gap) -> None:
        fed.gaps.append(gap)
        raise ValueError("a handler's fault")

    fed.client._feeds["news"]._missed = failing
    fed.announce(second, NEWS, 4)
    again = fed.client.subscribe("news")
    await fed.serve(second, new.answer)
    assert len(fed.gaps) == 1
    assert msgspec.msgpack.decode(await again)["epoch"] == 2000
    fed.tell(second, "news", "b1", 1, 2000)
    assert fed.messages == [("b1", 1, 2000)]


async def test_a_subscriber_begins_with_the_first_subscription_that_a_store_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though its own one failed, and before the first message, however late that comes."""
    fed = HandFed()
    link = fed.link()
    fed.announce(link, NEWS, 3)
    begun: list[tuple[Position, int]] = []
    monkeypatch.setattr(resync, "RETRY_PAUSE", 3600)
    monkeypatch.setattr(client, "MAX_PENDING", 0)
    failed = fed.client.subscribe("news", lambda position: begun.append((position, len(fed.messages))))
    assert isinstance(failed.exception(), StoreUnavailableError)
    fed.client._untold._on_timer()
    (operation,) = sent(link)
    fed.tell(link, "news", "a6", 6, 1000)  # overtakes the answer within a reply
    fed.answer(link, *fed.results([operation], lambda _operation: {"epoch": 1000, "offset": 5, "first": 6}))
    assert begun == [((1000, 5), 0)]
    assert fed.messages == [("a6", 6, 1000)]
    fed.client.subscribe("news").exception()
    assert len(begun) == 1
