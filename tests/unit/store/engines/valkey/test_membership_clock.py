"""Stores whose Valkey has its clock set, or no memory: the living are not taken for silent, the silent are missed."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest
from support.store.valkey import Server, valkey_engine

from socketcluster_store.engines.valkey import scripts
from socketcluster_store.engines.valkey.engine import ValkeyEngine
from socketcluster_store.executor import ExecutorOptions

pytestmark = pytest.mark.valkey

HOUR = 3_600_000


class Stores:
    """The signs of life of an application's stores, as the server has them."""

    def __init__(self, server: Server, engine: ValkeyEngine) -> None:
        self._server = server
        self._engine = engine
        self._key = scripts.stores_key(engine._app_name)

    async def beat(self, store: str) -> tuple[int, dict[str, int]]:
        """Give a sign of life; return how long the store was silent, and how long the others are (milliseconds)."""
        silent, *others = await self._engine._servers.call(self._key, scripts.BEAT, store, 60_000, 600_000)
        return silent, {name.decode(): age for name, age, *_more in others}

    async def leave(self, store: str) -> None:
        await self._engine._servers.call(self._key, scripts.LEAVE, store)

    def set_clock(self, ahead: int) -> None:
        """Have all that was noted be of a server whose clock was ahead by milliseconds."""
        noted = self._server.ask("HGETALL", self._key)
        assert isinstance(noted, dict)
        for name, at in noted.items():
            self._server.ask("HSET", self._key, name, int(at) + ahead)


@pytest.fixture
async def stores(own: Server) -> AsyncIterator[Stores]:
    async with valkey_engine(own, ExecutorOptions(1 << 20)) as engine:
        made = Stores(own, engine)
        await made.beat("one")
        await made.beat("two")
        yield made


async def test_a_store_that_falls_silent_is_missed_although_the_clock_went_back(stores: Stores) -> None:
    stores.set_clock(HOUR)
    silent, others = await stores.beat("one")
    assert (silent, others) == (0, {"two": 0})
    began = time.monotonic()
    while not (await stores.beat("one"))[1]["two"]:
        assert time.monotonic() - began < 30


async def test_nobody_is_silent_because_the_clock_went_forward(stores: Stores) -> None:
    stores.set_clock(-HOUR // 10)
    silent, others = await stores.beat("one")
    assert (silent >= HOUR // 10, others) == (True, {"two": 0})
    assert (await stores.beat("two"))[1].keys() == {"one"}


async def test_who_lives_is_known_while_there_is_no_memory(stores: Stores, own: Server) -> None:
    own.ask("CONFIG", "SET", "maxmemory", 1)
    assert (await stores.beat("one"))[1].keys() == {"two"}
    await stores.leave("two")
    assert (await stores.beat("one"))[1] == {}
