"""A channel's feed: whatever the link does, every message comes once and in order, or is named as missing."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.store_client.channel_feeds import Channel

from socketcluster_store_client import channel_feed
from socketcluster_store_client.channel_feed import Gap
from socketcluster_store_client.errors import OperationError, StoreUnavailableError
from socketcluster_store_client.messages import ChannelPosition, Position

steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 4)),
        st.tuples(st.just("carry"), st.integers(1, 6)),
        st.tuples(st.sampled_from(["read", "answer", "late"]), st.integers(1, 2)),
        st.tuples(st.sampled_from(["break", "relink", "move", "return"]), st.just(1)),
    ),
    max_size=40,
)


@given(kept=st.sampled_from([0, 2, 5, 1000]), held=st.sampled_from([500, 1_000_000]), steps=steps)
@settings(max_examples=600, deadline=None, derandomize=True)
def test_every_message_is_delivered_once_or_named_as_missing(
    kept: int, held: int, steps: list[tuple[str, int]]
) -> None:
    async def play() -> None:
        channel = Channel(kept)
        for step, count in steps:
            if step == "publish":
                for _ in range(count):
                    channel.publish()
            elif step == "carry":
                channel.carry(count)
                await asyncio.sleep(0)
            elif step == "read":
                channel.read()
            elif step == "answer":
                for _ in range(min(count, channel.asked.qsize() + len(channel.answers))):
                    await channel.answer()
            elif step == "late":
                channel.carry_late(count)
                await asyncio.sleep(0)
            elif step == "break":
                channel.linked = False
                channel.link.clear()
            elif not channel.linked:
                channel.linked = True
                channel.subscribe()
            elif step != "relink":
                channel.move(same_link=step == "return")
        await channel.settle()
        # where the first subscription began is its own affair; from there on nothing is unaccounted for
        channel.check()
        assert channel.feed.position == (channel.epoch, channel.offset)
        if kept == 1000:
            assert channel.gaps == []

    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
        patch.setattr(channel_feed, "MAX_HELD_BYTES", held)
        runner.run(play())


async def test_a_gap_names_what_is_missing() -> None:
    channel = Channel(kept=2)
    channel.publish()
    await channel.settle()
    channel.linked = False
    for _ in range(5):
        channel.publish()
    await channel.settle()
    assert channel.got == [(100, 1), (100, 5), (100, 6)]
    (gap,) = channel.gaps
    assert gap == Gap("c", Position(100, 1), Position(100, 4))
    assert gap.missing == range(2, 5)


async def test_what_is_not_kept_is_not_asked_for() -> None:
    channel = Channel(kept=0)
    channel.publish()
    channel.carry(9)
    channel.linked = False
    channel.publish()
    channel.linked = True
    channel.subscribe()
    channel.publish()
    channel.carry(9)
    assert channel.asked.empty()
    assert channel.got == [(100, 1), (100, 3)]
    assert [gap.missing for gap in channel.gaps] == [range(2, 3)]


async def test_what_is_here_is_not_missing_though_it_is_not_kept() -> None:
    channel = Channel(kept=0)
    channel.carry(1)
    channel.publish()
    channel.link.clear()
    channel.publish()
    channel.carry(1)
    await channel.answer()
    assert channel.got == [(100, 2)]
    assert [gap.missing for gap in channel.gaps] == [range(1, 2)]


async def test_an_answer_from_before_a_break_is_not_the_last() -> None:
    channel = Channel(kept=1000)
    channel.carry(1)
    channel.publish()
    channel.link.clear()
    channel.publish()
    channel.carry(1)
    since, limit, answer = await channel.asked.get()
    page = channel.page(since, limit)
    channel.linked = False
    channel.publish()
    channel.linked = True
    channel.subscribe()
    channel.carry(1)
    answer.set_result(page)
    await channel.answer()
    assert channel.got == [(100, 1), (100, 2), (100, 3)]


async def test_what_was_held_for_a_link_that_broke_counts_as_missed() -> None:
    channel = Channel(kept=5)
    channel.carry(1)
    channel.publish()
    channel.link.clear()
    channel.publish()
    channel.carry(1)
    since, _limit, answer = await channel.asked.get()
    assert since == Position(100, 0)
    channel.epoch = 200
    channel.messages.clear()
    channel.publish()
    channel.subscribe()
    channel.carry(1)
    answer.set_result(channel.page(since, 9))
    await channel.answer()
    channel.publish()
    channel.carry(1)
    assert channel.asked.empty()
    assert channel.got == [(200, 1), (200, 2)]
    assert channel.gaps == [Gap("c", Position(100, 0), Position(200, 0))]


async def test_another_epoch_after_a_break_is_a_gap_of_unknown_length() -> None:
    channel = Channel(kept=5)
    channel.publish()
    await channel.settle()
    channel.linked = False
    channel.epoch = 200
    channel.messages.clear()
    channel.publish()
    channel.publish()
    await channel.settle()
    assert channel.got == [(100, 1), (200, 1), (200, 2)]
    assert channel.gaps == [Gap("c", Position(100, 1), Position(200, 0))]
    assert channel.gaps[0].missing is None


async def test_another_epoch_on_an_unbroken_link_is_no_gap() -> None:
    channel = Channel(kept=5)
    channel.publish()
    channel.carry(9)
    channel.epoch = 200
    channel.messages.clear()
    channel.publish()
    channel.carry(9)
    assert channel.got == [(100, 1), (200, 1)]
    assert channel.gaps == []


async def test_a_channel_that_nobody_published_to_before() -> None:
    channel = Channel(kept=5)
    channel.link = [ChannelPosition(0, 0, 1)]
    channel.carry(1)
    channel.linked = False
    channel.publish()
    channel.publish()
    await channel.settle()
    assert channel.got == [(100, 1), (100, 2)]
    assert channel.gaps == []


async def test_what_is_held_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_feed, "MAX_HELD_BYTES", 1000)
    channel = Channel(kept=1000)
    channel.carry(1)
    channel.publish()
    channel.link.clear()
    for _ in range(100):
        channel.publish()
        channel.carry(1)
        assert len(channel.feed._held or ()) < 6
    await channel.settle()
    channel.publish()
    await channel.settle()
    assert channel.got == [(100, offset) for offset in range(1, 103)]


async def test_a_history_that_does_not_answer_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_feed, "RETRY_PAUSE", 0)
    channel = Channel(kept=5)
    channel.carry(1)
    channel.publish()
    channel.link.clear()
    channel.publish()
    channel.carry(1)
    _since, _limit, answer = await channel.asked.get()
    answer.set_exception(StoreUnavailableError("not now"))
    await channel.answer()
    assert channel.got == [(100, 1), (100, 2)]


async def test_a_history_that_cannot_be_read_is_a_gap() -> None:
    channel = Channel(kept=5)
    channel.carry(1)
    channel.publish()
    channel.link.clear()
    channel.publish()
    channel.carry(1)
    _since, _limit, answer = await channel.asked.get()
    answer.set_exception(OperationError("the disk is broken"))
    await channel.settle()
    assert channel.got == [(100, 2)]
    assert [gap.missing for gap in channel.gaps] == [range(1, 2)]


async def test_a_message_of_which_the_history_knows_nothing_is_not_waited_for() -> None:
    channel = Channel(kept=5)
    channel.carry(1)
    channel.feed.take(b"100-5", 5, 100)
    await channel.answer()
    assert channel.got == [(100, 5)]
    assert [gap.missing for gap in channel.gaps] == [range(1, 5)]


async def test_a_feed_that_starts_somewhere_else() -> None:
    channel = Channel(kept=5)
    for _ in range(3):
        channel.publish()
    starting = asyncio.ensure_future(channel.feed.start(Position(0, 1)))
    channel.feed.opening = None
    await channel.answer()
    await starting
    channel.link.clear()
    channel.publish()
    channel.carry(1)
    assert channel.got == [(100, 2), (100, 3), (100, 4)]


async def test_a_closed_feed_asks_nothing_more() -> None:
    channel = Channel(kept=5)
    starting = asyncio.ensure_future(channel.feed.start(Position(0, 1)))
    _since, _limit, answer = await channel.asked.get()
    channel.feed.close()
    await starting
    assert answer.cancelled()
    assert channel.got == []


async def test_a_handler_that_fails_harms_nothing() -> None:
    channel = Channel(kept=5)
    deliver = channel.feed._deliver

    def fail(channel: str, value: bytes, offset: int, epoch: int) -> None:
        deliver(channel, value, offset, epoch)
        raise RuntimeError("a handler's bug")

    channel.feed._deliver = fail
    for _ in range(3):
        channel.publish()
    await channel.settle()
    assert channel.got == [(100, 1), (100, 2), (100, 3)]
