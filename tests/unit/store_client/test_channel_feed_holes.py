"""A feed that had to drop what it held: the hole is filled or told at once, not when the next message comes."""

from __future__ import annotations

import pytest
from support.store_client.channel_feeds import Channel

from socketcluster_store_client import channel_feed
from socketcluster_store_client.errors import OperationError


@pytest.fixture(autouse=True)
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_feed, "MAX_HELD_BYTES", 500)


def publish(channel: Channel, count: int) -> None:
    for _ in range(count):
        channel.publish()


async def broken(kept: int) -> Channel:
    """Return a channel whose feed was away while one message came, and is told so."""
    channel = Channel(kept)
    publish(channel, 1)
    await channel.settle()
    channel.linked = False
    publish(channel, 1)
    channel.linked = True
    channel.subscribe()
    return channel


@pytest.mark.parametrize("kept", [0, 1000])
async def test_what_came_while_the_history_was_asked(kept: int) -> None:
    channel = await broken(1000)
    channel.carry(1)
    await channel.asked_once()
    channel.read()
    publish(channel, 3)  # more than is held, after the history was read
    channel.carry(3)
    channel.kept = kept
    await channel.answer()
    while not channel.asked.empty():
        await channel.answer()
    channel.check()
    assert channel.feed.position == (100, 5)
    if kept:
        assert channel.got == [(100, offset) for offset in range(1, 6)]
    else:
        assert [gap.missing for gap in channel.gaps] == [range(3, 6)]


@pytest.mark.parametrize("kept", [0, 1000])
async def test_what_came_before_the_answer_to_the_subscription(kept: int) -> None:
    channel = Channel(kept)
    (answer,) = channel.link
    publish(channel, 3)
    channel.link = [*channel.link[1:], answer]
    channel.carry(4)
    await channel.answer()
    channel.check()
    assert channel.feed.position == (100, 3)
    if kept:
        assert channel.got == [(100, 1), (100, 2), (100, 3)]
    else:
        assert [gap.missing for gap in channel.gaps] == [range(1, 4)]


async def test_what_a_history_that_cannot_be_read_would_have_had() -> None:
    """Nothing is held: the message that is missing was told to a link that broke."""
    channel = await broken(5)
    channel.carry(1)
    _since, _limit, answer = await channel.asked.get()
    answer.set_exception(OperationError("the disk is broken"))
    await channel.settle()
    assert channel.got == [(100, 1)]
    assert [gap.missing for gap in channel.gaps] == [range(2, 3)]


async def test_what_was_dropped_before_the_history_could_not_be_read() -> None:
    channel = await broken(1000)
    channel.carry(1)
    await channel.asked_once()
    channel.read()
    publish(channel, 3)
    channel.carry(3)
    await channel.answer()
    _since, _limit, answer = await channel.asked.get()
    answer.set_exception(OperationError("the disk is broken"))
    await channel.settle()
    assert channel.got == [(100, 1), (100, 2)]
    assert [gap.missing for gap in channel.gaps] == [range(3, 6)]


async def test_a_subscription_that_is_not_answered_keeps_a_feed_from_going_on() -> None:
    """The history of a new owner may answer before its subscription: a former owner's words would count again."""
    channel = await broken(1000)
    channel.carry(1)
    await channel.asked_once()
    publish(channel, 1)
    channel.move(same_link=False)
    await channel.answer()
    channel.late.append((b"100-4", 4, 100, None))  # that the new owner does not know, as if its data were older
    channel.carry_late(2)
    assert channel.got == [(100, 1), (100, 2), (100, 3)]
    publish(channel, 1)
    await channel.settle()
    channel.check()
    assert channel.feed.position == (100, 4)
    assert channel.got == [(100, offset) for offset in range(1, 5)]
