"""Channels of one partition beside lists and dictionaries: histories, ids, subscribers, time, restarts."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.store.channels import ID_WINDOW, Bench, Listener, encode, make_engine, operation, values

from socketcluster_store.data.channel_log import OFFSET_AGE
from socketcluster_store.partition.channels import SUBSCRIBE, UNSUBSCRIBE


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
        self.run(self.bench.channels.load())
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
            channel = ModelChannel(answer["epoch"])
            if name.startswith("kept"):  # nothing is kept of another one that nobody listens to
                self.model[name] = channel
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
        self.forget_old()

    def forget_old(self) -> None:
        for name in [name for name in self.model if name.startswith("kept")]:
            if self.model[name].time + OFFSET_AGE <= self.bench.now:
                del self.model[name]

    @rule()
    def restart(self) -> None:
        self.run(self.bench.channels.close())
        self.bench.start()
        self.run(self.bench.channels.load())
        self.forget_old()
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
