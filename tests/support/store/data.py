"""A partition of a store without any link, and what tests do to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.commands import CHANGES, Command, Outcome
from socketcluster_store.data.procedures import Procedures, Store
from socketcluster_store.data.watches import KeyChange
from socketcluster_store.engine import EnginePartition
from socketcluster_store.errors import Refusal

MAX_VALUE = 2000
MAX_SESSION = 4000
PARTITION = 7
HERE, ELSEWHERE = "key26", "key0"
"""Top-level keys that belong to the partition, and to another."""
encode = msgspec.msgpack.encode
decode: Callable[[Any], Any] = msgspec.msgpack.decode
decode_changes = msgspec.msgpack.Decoder(list[KeyChange]).decode


class Clock:
    """A time that tests set."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Data:
    """A partition, with what tests do to it."""

    def __init__(self, partition: EnginePartition, clock: Clock, procedures: Procedures) -> None:
        self.partition = partition
        self.clock = clock
        self.procedure = Store(procedures).procedure
        self._told: list[KeyChange] = []

    async def apply(self, *commands: Command) -> list[Outcome]:
        """Apply commands."""
        *outcomes, told = await self.partition.apply([*commands, Command(CHANGES, b"")])
        assert isinstance(told, bytes)
        self._told += decode_changes(told)
        return outcomes

    async def do(self, verb: str, *keys: str, value: Any = b"", name: str = "", session: bytes = b"s") -> Any:
        """Apply one verb; return its decoded result, or raise its refusal."""
        value = value if value == b"" else encode(value)
        (outcome,) = await self.apply(Command(number(verb), session, keys, value, name))
        if isinstance(outcome, Refusal):
            raise outcome
        return decode(outcome) if outcome else None

    async def transaction(self, *steps: tuple[Any, ...], session: bytes = b"s") -> Any:
        """Apply (verb, keys, value) as one."""
        value = [(number(verb), keys, encode(value[0]) if value else b"") for verb, keys, *value in steps]
        return await self.do("transaction", value=value, session=session)

    def changes(self) -> list[tuple[Any, ...]]:
        """Return what watchers were to be told since the last call."""
        return [(change.watched, change.keys, change.operation, decode(change.value)) for change in self.numbered()]

    def numbered(self) -> list[KeyChange]:
        """Return the same with everything about them."""
        told, self._told = self._told, []
        return told


def number(verb: str) -> int:
    """Return a verb's number."""
    return store_pb2.Verb.Value(f"VERB_{verb.upper()}")


async def watch(data: Data, *chains: tuple[str, ...], session: bytes = b"s") -> None:
    """Watch key chains."""
    for chain in chains:
        assert await data.do("watch", *chain, value="tag", session=session) is None
    begun = data.changes()
    assert begun == [(chain, chain, "", "tag") for chain in chains]
