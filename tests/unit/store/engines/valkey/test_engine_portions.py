"""In which portions a partition is read from Valkey, and what a store listens to: a server of the test's answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from support.worker.running import until

from socketcluster_store.engines.valkey import scripts
from socketcluster_store.engines.valkey.engine import LOADED_AT_FIRST, LOADED_AT_ONCE, LOADED_BYTES, ValkeyEngine
from socketcluster_store.engines.valkey.membership import ValkeyMembership
from socketcluster_store.engines.valkey.scripts import OWN_FIELDS
from socketcluster_store.engines.valkey.servers import Servers
from socketcluster_store.errors import FencedError
from socketcluster_store.executor import ExecutorOptions


class Fields:
    """A hash that is read in the order of its fields, as many in one call as are asked for."""

    breaks = 0

    def __init__(self, count: int, size: int) -> None:
        self.fields = [*OWN_FIELDS, *(b"key%d" % number for number in range(count))]
        self.asked: list[int] = []
        self.fenced_at = count + 100
        self._size = size

    def all(self) -> None:
        """Be asked for servers to look at; nobody does."""

    async def call(self, _key: bytes, script: scripts.Script, *args: Any, **_options: Any) -> list[Any]:
        if script is scripts.OPEN:
            return [b"OPEN", b"7", b"7", b"", b""]
        assert script is scripts.LOAD
        _store, _epoch, cursor, count = args
        self.asked.append(count)
        first = int(cursor)
        if first >= self.fenced_at:
            return [b"FENCED", b"another"]
        found = self.fields[first : first + count]
        rest = b"%d" % (first + count) if first + count < len(self.fields) else b"0"
        pairs = [each for name in found for each in (name, bytes(self._size))]
        return [rest, pairs, len(self.fields)]


def engine(fields: Fields) -> ValkeyEngine:
    return ValkeyEngine(cast(Servers, fields), ExecutorOptions(1 << 20), app_name="app", store_id="one-1")


async def test_small_values_are_read_many_at_a_time_and_no_more() -> None:
    fields = Fields(10_000, 8)
    await engine(fields).open(7)
    assert fields.asked[:5] == [LOADED_AT_FIRST * factor for factor in (1, 4, 16, 64)] + [LOADED_AT_ONCE]
    assert set(fields.asked[4:]) == {LOADED_AT_ONCE}


async def test_large_values_are_read_few_at_a_time() -> None:
    fields = Fields(100, LOADED_BYTES // 3)
    await engine(fields).open(7)
    assert fields.asked[0] == LOADED_AT_FIRST
    assert set(fields.asked[1:]) <= {1, 2, 3}


async def test_a_partition_that_is_taken_over_while_it_is_read_is_not_opened() -> None:
    fields = Fields(10_000, 8)
    fields.fenced_at = 1000
    made = engine(fields)
    with pytest.raises(FencedError, match="was taken over while it was read"):
        await made.open(7)
    assert made._open_ones == {}


class Channels:
    """A connection whose subscriptions the test confirms."""

    def __init__(self) -> None:
        self.wanted: tuple[bytes, ...] = ()
        self.messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def client_of(self, _key: bytes) -> Channels:
        return self

    def forget_slots(self) -> None: ...

    @contextlib.asynccontextmanager
    async def pubsub(self) -> AsyncIterator[Channels]:
        yield self

    async def ssubscribe(self, *names: bytes) -> None:
        self.wanted = names

    async def get_message(self, timeout: float) -> dict[str, Any]:  # as the client has it
        return await self.messages.get()


async def test_a_store_listens_when_it_is_heard_to_do_so_by_its_own_channel() -> None:
    """By how many connections listen to that one the others know that its process is there."""
    channels = Channels()
    members = ValkeyMembership(
        cast(Servers, channels),
        b"stores",
        "one-1",
        3.0,
        lambda: None,
        on_away=lambda: None,
        on_asked=lambda _number: None,
    )
    members._listener = asyncio.create_task(members._listen())
    await until(lambda: channels.wanted == (b"stores", b"storesone-1"))
    for name in channels.wanted:
        assert not members._listens.is_set()
        channels.messages.put_nowait({"type": "ssubscribe", "channel": name})
        await until(channels.messages.empty)
        await asyncio.sleep(0)
    assert members._listens.is_set()
    await members.close()
