"""Which stores live, told by signs of life in Valkey, whose clock judges them, and by news on a channel of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from redis.exceptions import RedisError

from socketcluster_runtime.logs.logging import get_logger
from socketcluster_store.engines.valkey import scripts
from socketcluster_store.engines.valkey.servers import Servers, command
from socketcluster_store.errors import EngineError
from socketcluster_store.ownership.membership import HEARTBEAT, Membership

log = get_logger(__name__)

GONE_AFTER = 3 * HEARTBEAT
"""Seconds without a sign of life, and without a connection, after which a store's process is no more."""
PAUSED_AFTER = 4 * HEARTBEAT
"""Seconds without a sign of life of any store that count as a pause of the server."""
FORGOTTEN_AFTER = 60.0
"""Seconds without a sign of life after which a store is no longer remembered."""
LISTEN_AGAIN = 0.25
"""Seconds between two attempts to listen."""
PING_INTERVAL = 5.0
"""Seconds between two looks at whether the connection that listens is alive."""


class ValkeyMembership(Membership):
    """The live stores of an application.

    Args:
        servers: where they are known.
        key: of their hash and their channel.
        store_id: this one's; no store before had it.
        hang_timeout: seconds without a sign of life after which a store counts as hung.
        on_change: called after the live stores are others than before, or a partition is free.
        on_away: called when this store gave no sign of life for so long that others may have taken its partitions.
        on_asked: called with a partition that this store is said to own.
    """

    def __init__(
        self,
        servers: Servers,
        key: bytes,
        store_id: str,
        hang_timeout: float,
        on_change: Callable[[], None],
        *,
        on_away: Callable[[], None],
        on_asked: Callable[[int], None],
    ) -> None:
        self._servers = servers
        self._key = key
        self._store_id = store_id
        self._hang_timeout = hang_timeout
        self._on_change = on_change
        self._on_away = on_away
        self._on_asked = on_asked
        self._member = False
        self._said = 0  # of this store itself: see ``scripts.SAY``
        self._listens = asyncio.Event()
        self._listener: asyncio.Task[None] | None = None
        self._signs: set[asyncio.Task[None]] = set()  # that were given, and are not answered yet
        self._looking: asyncio.Task[None] | None = None

    async def join(self) -> None:
        self._listener = asyncio.create_task(self._listen())
        with contextlib.suppress(TimeoutError):  # it goes without, only slower
            async with asyncio.timeout(self._hang_timeout):
                await self._listens.wait()
        self._member = True
        await self._look()
        await self.tell("here")

    async def leave(self) -> None:
        self._member = False
        try:
            await self._leave()
        except EngineError as error:
            log.info("the other stores could not be told that this one stops", error=str(error))
        await self.tell("here")

    async def look(self) -> None:
        """Give a sign of life; where the answer is long on its way, the next sign does not wait for it."""
        sign = asyncio.create_task(self._look())
        self._signs.add(sign)
        sign.add_done_callback(self._answered)
        done, _ = await asyncio.wait({sign}, timeout=HEARTBEAT)
        if done:
            sign.result()

    def _answered(self, sign: asyncio.Task[None]) -> None:
        self._signs.discard(sign)
        if not sign.cancelled() and (error := sign.exception()) is not None and not isinstance(error, EngineError):
            log.error("a sign of life failed", exc_info=error)

    async def _look(self) -> None:
        if not self._member:
            return
        if (state := self.is_linked + 2 * self.is_aside) != self._said:
            await self._servers.call(self._key, scripts.SAY, self._store_id, state)
            self._said = state
        silent, *others = await self._servers.call(
            self._key,
            scripts.BEAT,
            self._store_id,
            int(PAUSED_AFTER * 1000),
            int((FORGOTTEN_AFTER + self._hang_timeout) * 1000),
            sign=True,
        )
        if not self._member:
            await self._leave()  # it left meanwhile
            return
        ages = {store.decode(): (age / 1000, listeners) for store, age, listeners, _ in others}
        states = {store.decode(): state for store, _, _, state in others}
        self.linked = frozenset(store for store, state in states.items() if state & 1)
        aside = {store for store, state in (states | {self._store_id: self._said}).items() if state & 2}
        gone = {store for store, (age, listeners) in ages.items() if age > GONE_AFTER and not listeners}
        hung = frozenset(gone | {store for store, (age, _) in ages.items() if age > self._hang_timeout})
        live = frozenset(ages) - hung | {self._store_id}
        for store in hung - self.hung:
            if store in gone:
                log.info("a store is gone", store=store)
            else:
                log.error("a store hangs; its partitions are taken over", store=store, seconds=self._hang_timeout)
        if (live, hung, live & aside) != (self.live, self.hung, self.aside):
            self.live, self.hung, self.aside = live, hung, live & aside
            self._on_change()
        if silent < 0:
            self._said = 0  # the server has forgotten it
        if silent < 0 or silent > GONE_AFTER * 1000:
            self._on_away()

    async def _leave(self) -> None:
        await self._servers.call(self._key, scripts.LEAVE, self._store_id, sign=True)

    async def tell(self, text: str) -> None:
        """Tell all stores; they find out themselves, a little later, if that fails."""
        with contextlib.suppress(RedisError, OSError, EngineError):
            await command(await self._servers.client_of(self._key), "SPUBLISH", self._key, text)

    async def close(self) -> None:
        """Listen no more."""
        for task in (self._listener, self._looking, *self._signs):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})

    async def _listen(self) -> None:
        while True:
            try:
                await self._listen_once()
            except (RedisError, OSError, EngineError) as error:
                log.debug("the news of the stores cannot be heard", error=str(error))
            self._servers.forget_slots()
            await asyncio.sleep(LISTEN_AGAIN)

    async def _listen_once(self) -> None:
        """Hear the news until the connection breaks or the channel moves to another server of the Cluster."""
        own = self._key + self._store_id.encode()
        client = await self._servers.client_of(self._key)
        async with client.pubsub() as channel:
            await channel.ssubscribe(self._key, own)
            while True:
                message = await channel.get_message(timeout=PING_INTERVAL)
                if message is None:
                    await channel.ping()
                elif message["type"] == "ssubscribe":
                    if message["channel"] == own:
                        self._listens.set()
                elif message["type"] == "smessage":
                    self._on_news(message["data"].decode())
                elif message["type"] == "sunsubscribe":
                    return

    def _on_news(self, text: str) -> None:
        kind, _, detail = text.partition(" ")
        number, _, store = detail.partition(" ")
        if kind == "here":
            if self._member and (self._looking is None or self._looking.done()):
                self._looking = asyncio.create_task(self._look_now())
        elif kind == "free":
            self._on_change()
        elif kind == "taken" and store == self._store_id:
            self._on_away()
        elif kind == "wanted" and store == self._store_id and number.isdecimal():
            self._on_asked(int(number))

    async def _look_now(self) -> None:
        try:
            await self._look()
        except EngineError as error:
            log.debug("the other stores cannot be seen", error=str(error))  # which the server's trouble says
