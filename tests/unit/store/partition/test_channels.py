"""Channels of one partition, on each engine: offsets, histories, ids, and what is too old."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError
from support.store.channels import (
    ID_WINDOW,
    Bench,
    Listener,
    decode,
    encode,
    fire,
    make_engine,
    operation,
    publication,
    values,
)

from socketcluster_store.commands import Command, Outcome
from socketcluster_store.data.channel_log import ANSWER_BYTES, OFFSET_AGE
from socketcluster_store.data.channel_rules import ChannelRules, parse_rule
from socketcluster_store.errors import EngineError, InvalidError, TooManyChannelsError
from socketcluster_store.partition import channels as channels_module
from socketcluster_store.partition.channels import HISTORY, SUBSCRIBE, UNSUBSCRIBE, Channels
from socketcluster_store.settings import StoreSettings
from socketcluster_store_client.partitioning import PARTITION_COUNT


@pytest.fixture(params=["memory", "lmdb"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    engine = await make_engine(request.param, tmp_path).open(7)
    made = Bench(engine)
    await made.channels.load()
    yield made
    await made.channels.close()
    await engine.close()


# Without a history.


async def test_offsets_are_consecutive_and_live_as_long_as_somebody_listens(bench: Bench) -> None:
    listener = Listener()
    (position,) = await bench.do(listener, operation(SUBSCRIBE, "c"))
    assert (position["offset"], position["first"]) == (0, 1)
    bench.now += 10 * channels_module.IDLE_TIME
    answers = [await bench.publish("c", n) for n in range(3)]
    epoch = position["epoch"]
    assert answers == [{"offset": n, "epoch": epoch} for n in (1, 2, 3)]
    assert listener.told == [("c", encode(n), epoch, n + 1) for n in range(3)]
    assert await bench.history("c", epoch=epoch, offset=1) == {
        "epoch": epoch, "offset": 3, "first": 4, "start": 4, "known": True, "messages": [],
    }  # fmt: skip
    assert not (await bench.history("c", epoch=epoch, offset=4))["known"]
    assert not (await bench.history("c", epoch=epoch - 1, offset=1))["known"]
    assert await bench.keys() in ([], [b"cb", b"ce"])


async def test_an_idle_channel_is_forgotten_and_comes_back_with_another_epoch(bench: Bench) -> None:
    listener = Listener()
    await bench.do(listener, operation(SUBSCRIBE, "c"))
    first = await bench.publish("c", 1)
    await bench.do(listener, operation(UNSUBSCRIBE, "c"))
    bench.now += channels_module.IDLE_TIME - 1
    assert await bench.publish("c", 2) == {"offset": 2, "epoch": first["epoch"]}
    assert (await bench.history("c"))["offset"] == 2
    (again,) = await bench.do(listener, operation(SUBSCRIBE, "c"))
    assert (again["offset"], again["epoch"]) == (2, first["epoch"])
    await bench.do(listener, operation(UNSUBSCRIBE, "c"))
    bench.now += channels_module.IDLE_TIME + 1
    await leave(bench, "other")
    assert bench.channels._channels == {}
    assert len(bench.channels._idle) == 1
    after = await bench.publish("c", 3)
    assert after["offset"] == 1
    assert after["epoch"] > first["epoch"]


async def test_channels_that_were_left_are_bounded_in_number(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels_module, "MAX_IDLE", 3)
    await bench.do(Listener(), operation(SUBSCRIBE, "listened to"))
    for number in range(10):
        await leave(bench, f"c{number}")
    assert set(bench.channels._channels) == {"listened to"}
    assert [(await bench.history(f"c{number}"))["epoch"] > 0 for number in range(10)] == [False] * 7 + [True] * 3


async def test_a_channel_that_nobody_listens_to_leaves_nothing(bench: Bench) -> None:
    published = [await bench.publish("c", number) for number in range(3)]
    assert [each["offset"] for each in published] == [1, 1, 1]
    epochs = [each["epoch"] for each in published]
    assert epochs == sorted(set(epochs))
    assert bench.channels._channels == {}
    assert bench.channels._idle == {}
    (position,) = await bench.do(Listener(), operation(SUBSCRIBE, "c"))
    assert position["epoch"] > epochs[-1]


async def leave(bench: Bench, name: str) -> None:
    listener = Listener()
    await bench.do(listener, operation(SUBSCRIBE, name))
    await bench.do(listener, operation(UNSUBSCRIBE, name))


async def test_asking_makes_no_channel(bench: Bench) -> None:
    answer = {"epoch": 0, "offset": 0, "first": 1, "start": 1, "known": True, "messages": []}
    for name in ("c", "kept"):
        assert await bench.history(name) == answer
        assert await bench.history(name, epoch=5, offset=5) == answer | {"known": False}
    assert bench.channels._channels == {}
    assert await bench.keys() in ([], [b"cb", b"ce"])


# With one.


async def test_a_history_goes_on_where_it_ended(bench: Bench) -> None:
    before = await bench.publish("kept", "a")
    await restart(bench)
    assert await bench.publish("kept", "b") == {"offset": 2, "epoch": before["epoch"]}
    answer = await bench.history("kept")
    assert (values(answer), answer["start"], answer["known"]) == (["a", "b"], 1, True)


async def restart(bench: Bench) -> None:
    bench.start()
    await bench.channels.load()


@pytest.fixture
async def crowded(bench: Bench) -> Bench:
    """Four channels may have a history, and do."""
    bench.rules = ChannelRules([parse_rule("*: 5, 10")], max_channels=4 * PARTITION_COUNT)
    await restart(bench)
    return bench


async def fill(bench: Bench) -> list[int]:
    epochs = []
    for number in range(4):
        bench.now += 1
        epochs.append((await bench.publish(f"c{number}", number))["epoch"])
    return epochs


async def test_channels_with_a_history_are_bounded_in_number(crowded: Bench) -> None:
    epochs = await fill(crowded)
    keys = await crowded.keys()
    for _ in range(3):
        refused = await crowded.publish("c4", 4)
        assert isinstance(refused, TooManyChannelsError)
        assert "max_history_channels" in str(refused)
        assert "PUBLISH 'c4'" in str(refused)
    assert await crowded.keys() == keys
    assert await crowded.publish("c0", "again") == {"offset": 2, "epoch": epochs[0]}
    assert values(await crowded.history("c0")) == [0, "again"]


async def test_channels_without_messages_make_room_the_oldest_first(
    crowded: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socketcluster_store.data.channel_log._FORGOTTEN_AT_ONCE", 1)
    epochs = await fill(crowded)
    crowded.now += 100
    await crowded.remove_old()
    again = await crowded.publish("c0", "again")  # it has one again
    assert again == {"offset": 2, "epoch": epochs[0]}
    for number in range(4, 7):
        assert (await crowded.publish(f"c{number}", number))["offset"] == 1
    known = [(await crowded.history(f"c{number}"))["epoch"] > 0 for number in range(7)]
    assert known == [True, False, False, False, True, True, True]
    assert isinstance(await crowded.publish("c7", 7), TooManyChannelsError)
    crowded.now += OFFSET_AGE + 1000
    await crowded.remove_old()
    assert await crowded.keys() == [b"cb", b"ce"]
    await fill(crowded)
    assert isinstance(await crowded.publish("c7", 7), TooManyChannelsError)


async def test_channels_that_an_earlier_version_did_not_count_are(crowded: Bench) -> None:
    await fill(crowded)
    await crowded.forget(b"cn")
    await restart(crowded)
    assert isinstance(await crowded.publish("c4", 4), TooManyChannelsError)


async def test_messages_that_came_after_a_long_pause_are_removed_in_time(bench: Bench) -> None:
    await bench.publish("kept", 1)
    bench.now += 100
    await bench.remove_old()
    await bench.publish("kept", 2)
    bench.now += 11
    await bench.remove_old()
    assert not [key for key in await bench.keys() if key.startswith(b"ch")]


async def test_a_history_is_bounded_in_number_bytes_and_age(bench: Bench) -> None:
    for number in range(8):
        await bench.publish("kept", number)
    answer = await bench.history("kept")
    assert (values(answer), answer["first"], answer["offset"]) == ([3, 4, 5, 6, 7], 4, 8)
    await bench.publish("kept", "x" * 90)
    assert values(await bench.history("kept")) == [4, 5, 6, 7, "x" * 90]
    await bench.publish("kept", "y" * 10)
    assert values(await bench.history("kept")) == ["y" * 10]
    await bench.publish("kept", "y" * 200)
    answer = await bench.history("kept")
    assert (answer["messages"], answer["first"], answer["offset"]) == ([], 12, 11)
    await bench.publish("kept", "z")
    bench.now += 10
    await bench.publish("kept", "new")
    assert values(await bench.history("kept")) == ["z", "new"]
    bench.now += 0.5
    assert values(await bench.history("kept")) == ["new"]
    bench.now += 10
    answer = await bench.history("kept", offset=11)
    assert (answer["messages"], answer["first"], answer["known"]) == ([], 14, True)


async def test_times_rise_with_offsets_whatever_the_clock_does(bench: Bench) -> None:
    await bench.publish("kept", 1)
    bench.now -= 100
    await bench.publish("kept", 2)
    bench.now += 50
    await bench.publish("kept", 3)
    assert values(await bench.history("kept")) == [1, 2, 3]
    bench.now += 59
    assert values(await bench.history("kept")) == [1, 2, 3]  # 9 s after the time of the first, which they took over
    bench.now += 2
    assert values(await bench.history("kept")) == []


async def test_since_an_offset(bench: Bench) -> None:
    for number in range(1, 9):
        published = await bench.publish("kept", number)
    epoch = published["epoch"]
    answer = await bench.history("kept", 2, epoch=epoch, offset=4)
    assert (values(answer), answer["start"]) == ([5, 6], 5)
    answer = await bench.history("kept", epoch=epoch, offset=1)
    assert (values(answer), answer["start"]) == ([4, 5, 6, 7, 8], 4)  # 2 and 3 are gone
    answer = await bench.history("kept", epoch=epoch, offset=8)
    assert (values(answer), answer["start"], answer["known"]) == ([], 9, True)
    answer = await bench.history("kept", 1, epoch=epoch, offset=9)
    assert (values(answer), answer["known"]) == ([4], False)
    answer = await bench.history("kept", epoch=epoch - 1, offset=6)
    assert (values(answer), answer["known"]) == ([4, 5, 6, 7, 8], False)
    answer = await bench.history("kept", 2)
    assert (values(answer), answer["start"]) == ([7, 8], 7)
    assert (await bench.history("kept", 0))["start"] == 9


async def test_an_answer_is_bounded_in_bytes(bench: Bench) -> None:
    chunk = "x" * (ANSWER_BYTES // 3)
    for _ in range(8):
        await bench.publish("kept-long", chunk)
    got = 0
    while True:
        answer = await bench.history("kept-long", offset=got)
        assert answer["start"] == got + 1
        if not answer["messages"]:
            break
        assert len(answer["messages"]) <= 3
        got += len(answer["messages"])
    assert got == 8
    newest = await bench.history("kept-long")
    assert newest["start"] + len(newest["messages"]) == 9
    assert 1 <= len(newest["messages"]) <= 3


async def test_what_is_told_comes_after_the_commit_and_only_then(bench: Bench) -> None:
    listener = Listener()
    await bench.do(listener, operation(SUBSCRIBE, "kept"))
    committed = bench.apply
    told_before = []

    async def apply(batch: list[Command]) -> list[Outcome]:
        outcomes: list[Outcome] = await committed(batch)
        told_before.append(list(listener.told))
        return outcomes

    bench.apply = apply
    published = await bench.publish("kept", "a")
    assert told_before == [[]]
    assert listener.told == [("kept", encode("a"), published["epoch"], 1)]

    async def fail(_batch: list[Command]) -> list[Outcome]:
        raise EngineError("the disk is full")

    bench.apply = fail
    with pytest.raises(EngineError):
        await bench.publish("kept", "b")
    assert len(listener.told) == 1
    bench.apply = committed


async def test_one_batch_is_carried_out_in_order(bench: Bench) -> None:
    for name in ("c", "kept"):
        listener = Listener()
        first, position, second, _, third = await bench.do(
            listener,
            publication(name, 1),
            operation(SUBSCRIBE, name),
            publication(name, 2),
            operation(UNSUBSCRIBE, name),
            publication(name, 3),
        )
        assert [answer["offset"] for answer in (first, second, third)] == [1, 2, 3]
        assert position["offset"] == 1
        assert listener.channels == set()


# Ids.


@pytest.mark.parametrize("name", ["c", "kept-long"])
async def test_an_id_is_published_once_within_its_window(bench: Bench, name: str) -> None:
    listener = Listener()
    await bench.do(listener, operation(SUBSCRIBE, name))
    first = await bench.publish(name, "a", "id")
    await bench.publish(name, "b", "another")
    bench.now += ID_WINDOW - 1
    assert await bench.publish(name, "c", "id") == first
    assert (await bench.publish(name, "d"))["offset"] == 3
    bench.now += 2
    assert (await bench.publish(name, "e", "id"))["offset"] == 4
    assert (await bench.publish(name, "f", "id"))["offset"] == 4
    assert [decode(value) for _, value, *_ in listener.told] == ["a", "b", "d", "e"]
    assert (await bench.publish(name + "2", "a", "id"))["offset"] == 1


async def test_ids_of_a_history_outlive_the_process(bench: Bench) -> None:
    first = await bench.publish("kept", "a", "id")
    await restart(bench)
    assert await bench.publish("kept", "b", "id") == first
    assert values(await bench.history("kept")) == ["a"]


@pytest.mark.parametrize("name", ["c", "kept"])
async def test_ids_are_bounded_in_number_and_time(bench: Bench, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socketcluster_store.data.channel_log.MAX_IDS", 4)
    monkeypatch.setattr(channels_module, "MAX_IDS", 4)

    async def count() -> int:
        return len(bench.channels._ids) + sum(key.startswith(b"ci") for key in await bench.keys())

    await bench.do(Listener(), operation(SUBSCRIBE, name))
    for number in range(20):
        await bench.publish(name, number, str(number))
    assert await count() == 4
    assert (await bench.publish(name, "again", "19"))["offset"] == 20
    assert (await bench.publish(name, "again", "1"))["offset"] == 21
    bench.now += ID_WINDOW + 1
    for number in range(4):
        await bench.publish(name, number, f"later {number}")
    assert await count() == 4
    assert len([key for key in await bench.keys() if key.startswith(b"cj")]) in (0, 4)


@pytest.mark.parametrize("name", ["c", "kept-long"])
async def test_an_id_that_was_published_again_is_no_older_than_that(
    bench: Bench, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socketcluster_store.data.channel_log.MAX_IDS", 4)
    monkeypatch.setattr(channels_module, "MAX_IDS", 4)
    await bench.publish(name, 0, "again")
    bench.now += ID_WINDOW + 1
    latest = await bench.publish(name, 1, "again")
    for number in range(3):
        await bench.publish(name, number, f"other {number}")
    assert await bench.publish(name, 2, "again") == latest


# What is too old.


async def test_what_is_published_while_old_messages_are_removed_has_its_time_too(bench: Bench) -> None:
    await bench.publish("kept", 1)
    bench.now += OFFSET_AGE + 1
    applied = bench.apply
    removed, go_on = asyncio.Event(), asyncio.Event()

    async def slow(batch: list[Command]) -> list[Outcome]:
        outcomes: list[Outcome] = await applied(batch)
        removed.set()
        await go_on.wait()
        return outcomes

    bench.apply = slow
    expiring = asyncio.create_task(fire(bench.channels._expiry))
    await removed.wait()
    bench.apply = applied
    await bench.publish("kept", 2)
    go_on.set()
    await expiring
    assert bench.channels._expiry.deadline == bench.now + 10.25


async def test_what_is_too_old_is_removed_and_then_forgotten(bench: Bench) -> None:
    for number in range(3):
        await bench.publish(f"kept{number}", "a")
        await bench.publish(f"kept{number}", "b")
    await bench.remove_old()
    assert len(await bench.keys()) == 3 + 3 * (1 + 1 + 2)
    bench.now += 11
    await bench.remove_old()
    assert len(await bench.keys()) == 3 + 3 * (1 + 2)
    assert (await bench.publish("kept0", "c"))["offset"] == 3
    bench.now += OFFSET_AGE - 1
    await bench.remove_old()
    assert (await bench.history("kept0"))["offset"] == 3
    assert (await bench.history("kept1"))["epoch"] == 0
    bench.now += 2
    await bench.remove_old()
    assert await bench.keys() in ([], [b"cb", b"ce"])
    assert (await bench.publish("kept0", "d"))["offset"] == 1


async def test_many_old_messages_are_removed_in_several_batches(bench: Bench) -> None:
    await bench.do(Listener(), *(publication("kept-long", number) for number in range(5000)))
    bench.now += 100_001
    batches = 0
    apply = bench.apply

    async def counted(batch: list[Command]) -> list[Outcome]:
        nonlocal batches
        batches += 1
        outcomes: list[Outcome] = await apply(batch)
        return outcomes

    bench.apply = counted
    await bench.channels.load()
    while (due := bench.channels._expiry.deadline) is not None and due <= bench.now + 0.01:
        bench.now += 0.01
        await fire(bench.channels._expiry)
    assert batches > 2
    assert await bench.keys() in ([], [b"cb", b"ce"])


async def test_what_is_too_old_goes_by_itself(bench: Bench) -> None:
    await bench.channels.close()
    rules = ChannelRules([parse_rule("*: 10, 0.05")])
    bench.channels = Channels(rules, ID_WINDOW, bench, time.time)
    await bench.channels.load()
    bench.now = time.time()
    await bench.publish("c", 1)
    while any(key.startswith(b"ch") for key in await bench.keys()):  # noqa: ASYNC110  # nothing tells
        await asyncio.sleep(0.01)
    bench.now = time.time()
    answer = await bench.history("c")
    assert (answer["offset"], answer["messages"]) == (1, [])


# Rules.


def test_the_longest_pattern_that_matches_counts() -> None:
    rules = ChannelRules(
        [parse_rule(text) for text in ("*: 1, 1", "chat:*: 2, 2.5, 3", "chat:[ab]?: 3, 3", "chat:secret*: 0, 1")]
    )
    found = {name: rules.find(name) for name in ("x", "chat:1", "chat:a1", "chat:secret1", "\0namespace\0/")}
    assert [rule and rule.count for rule in found.values()] == [1, 2, 3, None, None]
    chat = found["chat:1"]
    assert chat is not None
    assert (chat.pattern, chat.age, chat.size) == ("chat:*", 2.5, 3)
    assert ChannelRules([]).find("x") is None


@pytest.mark.parametrize(
    "text", ["x", "x: 1", ": 1, 2", "x: a, 1", "x: 1, 2, 3, 4", "x: -1, 1", "x: 1, 0", "x: 1, nan"]
)
def test_a_malformed_rule_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="channel_history"):
        StoreSettings(secret=SecretStr("s" * 16), channel_history=text)


@pytest.mark.parametrize(
    "value", [b"", b"\xc1", encode([]), encode({}), encode({"limit": -1}), encode({"limit": 1, "offset": -1})]
)
async def test_a_malformed_request_is_refused(bench: Bench, value: bytes) -> None:
    for name in ("c", "kept"):
        with pytest.raises(InvalidError, match=f"history of '{name}'"):
            await bench.do(Listener(), operation(HISTORY, name, value=value))
