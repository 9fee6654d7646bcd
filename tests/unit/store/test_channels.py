"""Channels of one partition, on each engine that remembers: offsets, histories, ids, and a model of all of it."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from pydantic import SecretStr, ValidationError

from socketcluster_proto.v1 import store_pb2
from socketcluster_store import channels as channels_module
from socketcluster_store.channel_log import ANSWER_BYTES, OFFSET_AGE
from socketcluster_store.channel_rules import ChannelRules, parse_rule
from socketcluster_store.channels import HISTORY, PUBLISH, SUBSCRIBE, UNSUBSCRIBE, Channels
from socketcluster_store.documents import Documents
from socketcluster_store.engines.base import Command, Engine, EnginePartition, Outcome
from socketcluster_store.engines.lmdb import LmdbEngine
from socketcluster_store.engines.memory import MemoryEngine
from socketcluster_store.errors import EngineError, InvalidError
from socketcluster_store.settings import StoreSettings

encode = msgspec.msgpack.encode
decode: Callable[[Any], Any] = msgspec.msgpack.decode

RULES = ChannelRules([parse_rule("kept*: 5, 10.25, 100"), parse_rule("kept-long*: 10000, 100000.25, 100000000")])
ID_WINDOW = 300.0


class Listener:
    """A worker's link that remembers what it was told."""

    def __init__(self) -> None:
        self.channels: set[str] = set()
        self.told: list[tuple[str, bytes, int, int]] = []

    def tell(self, event: bytes) -> None:
        for one in store_pb2.LinkReply.FromString(event).events:
            message = one.channel_message
            self.told.append((message.channel, message.value, message.epoch, message.offset))


class Bench:
    """Channels on an engine's partition, with a clock of its own; it does to them what ``Partition`` does."""

    def __init__(self, engine: EnginePartition) -> None:
        self.engine = engine
        self.now = 1_700_000_000.0
        self.apply: Callable[[list[Command]], Any] = engine.apply
        self.start()

    def start(self) -> None:
        """Begin with what the engine remembers alone."""
        self.channels: Channels[Listener] = Channels(RULES, ID_WINDOW, self._apply, lambda: self.now)

    async def _apply(self, batch: Any) -> list[Outcome]:
        outcomes: list[Outcome] = await self.apply(batch)
        return outcomes

    async def do(self, listener: Listener, *operations: store_pb2.Operation) -> list[Any]:
        """Carry out a batch; return the decoded answers."""
        commands = [self.channels.prepare(listener, operation, self.now) for operation in operations]
        outcomes = iter(await self.apply([command for command in commands if command is not None]))
        answers = []
        for operation, command in zip(operations, commands, strict=True):
            outcome = b"" if command is None else next(outcomes)
            answer = self.channels.finish(operation, outcome, self.now)
            answers.append(decode(answer) if answer else None)
        return answers

    async def publish(self, name: str, value: Any, message_id: str = "") -> Any:
        (answer,) = await self.do(Listener(), publication(name, value, message_id))
        return answer

    async def history(self, name: str, limit: int = 100, **since: int) -> Any:
        (answer,) = await self.do(Listener(), query(name, limit, **since))
        return answer

    async def remove_old(self) -> None:
        """Do what the timer does, as often as it would."""
        await self.channels.load()
        while self.channels._due is not None and self.channels._due <= self.now:
            await self.channels._expire()

    async def keys(self) -> list[bytes]:
        """Return what the engine holds of channels."""
        found: list[bytes] = []

        def scan(kv: Any, _command: Command) -> bytes:
            found.extend(key for key, _ in kv.scan(b"c"))
            return b""

        trees: Any = self.engine._trees  # type: ignore[attr-defined]
        trees._verbs[-999] = scan
        await self.engine.apply([Command(-999, b"")])
        return found


def operation(verb: Any, name: str, **fields: Any) -> store_pb2.Operation:
    return store_pb2.Operation(verb=verb, name=name, **fields)


def publication(name: str, value: Any, message_id: str = "") -> store_pb2.Operation:
    return operation(PUBLISH, name, value=encode(value), message_id=message_id)


def query(name: str, limit: int = 100, **since: int) -> store_pb2.Operation:
    return operation(HISTORY, name, value=encode({"limit": limit, **since}))


def values(answer: Any) -> list[Any]:
    return [decode(value) for value in answer["messages"]]


def make_engine(name: str, folder: Path) -> Engine:
    trees = Documents(1024)
    return MemoryEngine(trees) if name == "memory" else LmdbEngine(folder, trees)


@pytest.fixture(params=["memory", "lmdb"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    engine = await make_engine(request.param, tmp_path).open(7)
    made = Bench(engine)
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
    assert await bench.keys() == []


async def test_an_idle_channel_is_forgotten_and_comes_back_with_another_epoch(bench: Bench) -> None:
    listener = Listener()
    await bench.do(listener, operation(SUBSCRIBE, "c"))
    first = await bench.publish("c", 1)
    await bench.do(listener, operation(UNSUBSCRIBE, "c"))
    bench.now += channels_module.IDLE_TIME - 1
    assert await bench.publish("c", 2) == {"offset": 2, "epoch": first["epoch"]}
    bench.now += channels_module.IDLE_TIME + 1
    await bench.publish("other", 0)
    assert list(bench.channels._channels) == ["other"]
    again = await bench.publish("c", 3)
    assert again["offset"] == 1
    assert again["epoch"] > first["epoch"]


async def test_idle_channels_are_bounded_in_number(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels_module, "MAX_IDLE", 3)
    await bench.do(Listener(), operation(SUBSCRIBE, "listened to"))
    for number in range(10):
        await bench.publish(f"c{number}", 0)
    assert set(bench.channels._channels) == {"listened to", "c7", "c8", "c9"}
    assert set(bench.channels._idle) == {"c7", "c8", "c9"}


async def test_asking_makes_no_channel(bench: Bench) -> None:
    answer = {"epoch": 0, "offset": 0, "first": 1, "start": 1, "known": True, "messages": []}
    for name in ("c", "kept"):
        assert await bench.history(name) == answer
        assert await bench.history(name, epoch=5, offset=5) == answer | {"known": False}
    assert bench.channels._channels == {}
    assert await bench.keys() == []


# With one.


async def test_a_history_goes_on_where_it_ended(bench: Bench) -> None:
    before = await bench.publish("kept", "a")
    bench.start()
    assert await bench.publish("kept", "b") == {"offset": 2, "epoch": before["epoch"]}
    answer = await bench.history("kept")
    assert (values(answer), answer["start"], answer["known"]) == (["a", "b"], 1, True)


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
    bench.start()
    assert await bench.publish("kept", "b", "id") == first
    assert values(await bench.history("kept")) == ["a"]


@pytest.mark.parametrize("name", ["c", "kept"])
async def test_ids_are_bounded_in_number_and_time(bench: Bench, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socketcluster_store.channel_log.MAX_IDS", 4)
    monkeypatch.setattr(channels_module, "MAX_IDS", 4)

    async def count() -> int:
        return len(bench.channels._ids) + sum(key.startswith(b"ci") for key in await bench.keys())

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


# What is too old.


async def test_what_is_too_old_is_removed_and_then_forgotten(bench: Bench) -> None:
    for number in range(3):
        await bench.publish(f"kept{number}", "a")
        await bench.publish(f"kept{number}", "b")
    await bench.remove_old()
    assert len(await bench.keys()) == 3 * (1 + 1 + 2)
    bench.now += 11
    await bench.remove_old()
    assert len(await bench.keys()) == 3 * (1 + 1)
    assert (await bench.publish("kept0", "c"))["offset"] == 3
    bench.now += OFFSET_AGE - 1
    await bench.remove_old()
    assert (await bench.history("kept0"))["offset"] == 3
    assert (await bench.history("kept1"))["epoch"] == 0
    bench.now += 2
    await bench.remove_old()
    assert await bench.keys() == []
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
    while bench.channels._due is not None and bench.channels._due <= bench.now + 0.01:
        bench.now += 0.01
        await bench.channels._expire()
    assert batches > 2
    assert await bench.keys() == []


async def test_what_is_too_old_goes_by_itself(bench: Bench) -> None:
    await bench.channels.close()
    rules = ChannelRules([parse_rule("*: 10, 0.05")])
    bench.channels = Channels(rules, ID_WINDOW, bench._apply, time.time)
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


# All of it.


@dataclass
class ModelChannel:
    epoch: int
    offset: int = 0
    kept: list[tuple[int, str, float]] = field(default_factory=list)
    time: float = 0.0


NAMES = ("c", "kept1", "kept2")
IDS = ("", "id1", "id2")


class Model(RuleBasedStateMachine):
    """Channels beside lists and dictionaries."""

    engine_name: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        engine = self.run(make_engine(self.engine_name, Path(self.folder.name)).open(7))
        self.bench = Bench(engine)
        self.model: dict[str, ModelChannel] = {}
        self.ids: dict[tuple[str, str], tuple[float, dict[str, int]]] = {}
        self.listener = Listener()
        self.expected: list[tuple[str, bytes, int, int]] = []

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(coroutine)

    def teardown(self) -> None:
        self.run(self.bench.channels.close())
        self.run(self.bench.engine.close())
        self.runner.close()
        self.folder.cleanup()

    @rule(name=st.sampled_from(NAMES), text=st.text(max_size=60), message_id=st.sampled_from(IDS))
    def publish(self, name: str, text: str, message_id: str) -> None:
        now = self.bench.now
        answer = self.run(self.bench.publish(name, text, message_id))
        known = self.ids.get((name, message_id))
        if message_id and known is not None and known[0] + ID_WINDOW > now:
            assert answer == known[1]
            return
        channel = self.model.get(name)
        if channel is None:
            assert answer["offset"] == 1
            channel = self.model[name] = ModelChannel(answer["epoch"])
        channel.offset += 1
        channel.time = now
        assert answer == {"offset": channel.offset, "epoch": channel.epoch}
        if message_id:
            self.ids[name, message_id] = (now, answer)
        if name in self.listener.channels:
            self.expected.append((name, encode(text), channel.epoch, channel.offset))
        if name.startswith("kept"):
            channel.kept.append((channel.offset, text, now))
            while len(channel.kept) > 5 or sum(len(encode(one[1])) for one in channel.kept) > 100:
                channel.kept.pop(0)

    @rule(name=st.sampled_from(NAMES), limit=st.integers(0, 7), back=st.integers(-2, 9), wrong=st.booleans())
    def since(self, name: str, limit: int, back: int, wrong: bool) -> None:
        channel = self.model.get(name)
        if channel is None:
            assert self.run(self.bench.history(name, limit))["offset"] == 0
            return
        since = max(0, channel.offset - back)
        epoch = channel.epoch - 1 if wrong else channel.epoch
        answer = self.run(self.bench.history(name, limit, epoch=epoch, offset=since))
        kept = [one for one in channel.kept if one[2] + 10.25 > self.bench.now]
        assert (answer["epoch"], answer["offset"]) == (channel.epoch, channel.offset)
        assert answer["first"] == (kept[0][0] if kept else channel.offset + 1)
        assert answer["known"] is (not wrong and since <= channel.offset)
        wanted = [one for one in kept if one[0] > since or not answer["known"]]
        assert values(answer) == [one[1] for one in wanted][:limit]
        assert answer["start"] == (wanted[0][0] if wanted else channel.offset + 1)

    @rule(name=st.sampled_from(NAMES), limit=st.integers(0, 7))
    def newest(self, name: str, limit: int) -> None:
        channel = self.model.get(name) or ModelChannel(0)
        answer = self.run(self.bench.history(name, limit))
        kept = [one[1] for one in channel.kept if one[2] + 10.25 > self.bench.now]
        assert values(answer) == kept[max(0, len(kept) - limit) :]
        assert answer["start"] + len(answer["messages"]) == channel.offset + 1

    @rule(name=st.sampled_from(NAMES))
    def subscribe(self, name: str) -> None:
        (position,) = self.run(self.bench.do(self.listener, operation(SUBSCRIBE, name)))
        channel = self.model.get(name)
        if channel is None and not name.startswith("kept"):
            channel = self.model[name] = ModelChannel(position["epoch"], time=self.bench.now)
        assert (position["epoch"], position["offset"]) == ((channel.epoch, channel.offset) if channel else (0, 0))

    @precondition(lambda self: self.listener.channels)
    @rule(data=st.data())
    def unsubscribe(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.listener.channels)))
        self.run(self.bench.do(self.listener, operation(UNSUBSCRIBE, name)))
        if name in self.model:
            self.model[name].time = max(self.model[name].time, 0 if name.startswith("kept") else self.bench.now)

    @rule(seconds=st.sampled_from([0.5, 3.1, 7.7, 290.3, 90_000.9]))
    def wait(self, seconds: float) -> None:
        self.bench.now += seconds

    @rule()
    def remove_old(self) -> None:
        self.run(self.bench.remove_old())
        for name in [name for name in self.model if name.startswith("kept")]:
            if self.model[name].time + OFFSET_AGE <= self.bench.now:
                del self.model[name]

    @rule()
    def restart(self) -> None:
        self.run(self.bench.channels.close())
        self.bench.start()
        self.listener = Listener()
        self.expected.clear()
        self.model.pop("c", None)
        self.ids = {key: value for key, value in self.ids.items() if key[0] != "c"}

    @invariant()
    def told_exactly_what_was_published(self) -> None:
        assert self.listener.told == self.expected


class MemoryModel(Model):
    engine_name = "memory"


class LmdbModel(Model):
    engine_name = "lmdb"


MODEL_SETTINGS = settings(
    max_examples=60, stateful_step_count=40, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
TestMemoryModel = MemoryModel.TestCase
TestMemoryModel.settings = MODEL_SETTINGS
TestLmdbModel = LmdbModel.TestCase
TestLmdbModel.settings = MODEL_SETTINGS
