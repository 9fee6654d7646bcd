"""Channels of a store's partition, without a store around them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.commands import Command
from socketcluster_store.data.channel_rules import ChannelRules, parse_rule
from socketcluster_store.engine import Engine, EnginePartition
from socketcluster_store.engines.lmdb.engine import LmdbEngine
from socketcluster_store.engines.memory import MemoryEngine
from socketcluster_store.errors import Refusal
from socketcluster_store.executor import Executor, ExecutorOptions
from socketcluster_store.partition.channels import HISTORY, PUBLISH, Channels
from socketcluster_store.partition.timer import DeadlineTimer
from socketcluster_store_client.messages import Operation

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
        self.rules = RULES
        self.now = 1_700_000_000.0
        self.apply: Callable[[Any], Any] = engine.apply
        self.sync = engine.sync
        self.life = engine.life
        self.losses = engine.losses
        self.epoch = engine.epoch
        self.start()

    def start(self) -> None:
        """Begin with what the engine remembers alone."""
        self.channels: Channels[Listener] = Channels(self.rules, ID_WINDOW, self, lambda: self.now)

    async def do(self, listener: Listener, *operations: Operation) -> list[Any]:
        """Carry out a batch; return the decoded answers."""
        commands = [self.channels.prepare(listener, operation, self.now) for operation in operations]
        outcomes = iter(await self.apply([command for command in commands if command is not None]))
        answers: list[Any] = []
        for operation, command in zip(operations, commands, strict=True):
            outcome = b"" if command is None else next(outcomes)
            if isinstance(outcome, Refusal):
                answers.append(outcome)
                continue
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
        while (due := self.channels._expiry.deadline) is not None and due <= self.now:
            await fire(self.channels._expiry)

    async def keys(self) -> list[bytes]:
        """Return what the engine holds of channels."""
        found: list[bytes] = []
        await self._with(lambda kv: found.extend(key for key, _ in kv.scan(b"c")))
        return found

    async def forget(self, key: bytes) -> None:
        """Remove what the engine holds at a key."""
        await self._with(lambda kv: kv.delete(key))

    async def _with(self, do: Callable[[Any], None]) -> None:
        def carry_out(kv: Any, _command: Command) -> bytes:
            do(kv)
            return b""

        executor: Executor = self.engine._executor  # type: ignore[attr-defined]
        executor._verbs[-999] = carry_out
        await self.engine.apply([Command(-999, b"")])


async def fire(timer: DeadlineTimer) -> None:
    """Do what a timer does at its deadline, which has come."""
    timer._fire()
    assert timer._running is not None
    await timer._running


def operation(verb: Any, name: str, **fields: Any) -> Operation:
    return Operation(verb=verb, name=name, **fields)


def publication(name: str, value: Any, message_id: str = "") -> Operation:
    return operation(PUBLISH, name, value=encode(value), message_id=message_id)


def query(name: str, limit: int = 100, **since: int) -> Operation:
    return operation(HISTORY, name, value=encode({"limit": limit, **since}))


def values(answer: Any) -> list[Any]:
    return [decode(value) for value in answer["messages"]]


def make_engine(name: str, folder: Path) -> Engine:
    options = ExecutorOptions(1024)
    return MemoryEngine(folder, options) if name == "memory" else LmdbEngine(folder, options)
