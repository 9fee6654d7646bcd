"""Random histories of one channel's subscriber: owners move, links break, and the words of several owners cross.

A seed that fails is run alone by ``FUZZ_SEEDS=<seed> pytest tests/unit/store_client/test_channel_feed_model.py``;
a range of them by ``FUZZ_SEEDS=<first>-<last>``.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import msgspec
import pytest
from support.store_client.hand_fed import HandFed, encode
from support.store_client.simulated_stores import SimulatedStores, Store, tried

from socketcluster_proto.v1 import store_pb2
from socketcluster_store_client import channel_feed, resync
from socketcluster_store_client.channel_feed import Gap
from socketcluster_store_client.messages import Operation
from socketcluster_store_client.partitioning import partition_of

SUBSCRIBE = store_pb2.VERB_CHANNEL_SUBSCRIBE
UNSUBSCRIBE = store_pb2.VERB_CHANNEL_UNSUBSCRIBE
HISTORY = store_pb2.VERB_CHANNEL_HISTORY
PAGE = 2
decode = msgspec.msgpack.decode


class Channel(SimulatedStores):
    """The stores of one channel, which keep its last messages, or none."""

    def __init__(self, random: Random, fed: HandFed, kept: int) -> None:
        super().__init__(random, fed, partition_of("news"))
        self.kept = kept
        self.epoch = 100
        self.offset = 0
        self.subscribed = False

    def begin(self) -> None:
        """Forget who is subscribed; without a history another owner begins a new epoch."""
        self.subscribed = False

    def move(self) -> None:
        super().move()
        if not self.kept:
            self.epoch, self.offset = self.epoch + 100, 0

    def publish(self) -> None:
        """Publish a message, which says where it is."""
        assert self.owner is not None
        self.offset += 1
        if self.subscribed:
            value = encode(f"{self.epoch}-{self.offset}")
            message = store_pb2.ChannelMessage(channel="news", value=value, offset=self.offset, epoch=self.epoch)
            self.owner.out.append(store_pb2.Event(channel_message=message))

    @property
    def position(self) -> dict[str, int]:
        """Where the channel is."""
        return {"epoch": self.epoch, "offset": self.offset, "first": max(1, self.offset + 1 - self.kept)}

    def may_fail(self, operation: Operation) -> bool:
        return operation.verb in (SUBSCRIBE, UNSUBSCRIBE)

    def carry_out(self, store: Store, operation: Operation) -> Any:
        if operation.verb == SUBSCRIBE:
            self.subscribed = True
            return self.position
        if operation.verb == UNSUBSCRIBE:
            self.subscribed = False
            return None
        assert operation.verb == HISTORY
        asked = decode(operation.value)
        known = asked["epoch"] in (0, self.epoch) and asked["offset"] <= self.offset
        first = self.position["first"]
        start = max(first, asked["offset"] + 1) if known else first
        messages = [encode(f"{self.epoch}-{each}") for each in range(start, self.offset + 1)][:PAGE]
        return self.position | {"start": start, "known": known, "messages": messages}


class Subscriber:
    """Who subscribes and leaves, and what it was told since it came."""

    def __init__(self, fed: HandFed) -> None:
        self._client = fed.client
        self._client._on_channel_message = self._message
        self._client._on_channel_gap = lambda gap: self.told.append(gap)
        self.told: list[tuple[int, int, str] | Gap] = []
        self.promised: list[tuple[int, int]] = []
        """The positions from which on all is to be told."""
        self.stint = 0
        self.is_here = False

    def _message(self, _channel: str, value: bytes, offset: int, epoch: int) -> None:
        self.told.append((epoch, offset, decode(value)))

    def subscribe(self) -> None:
        """Come, or subscribe once more."""
        if not self.is_here:
            self.told.clear()
            self.promised.clear()
            self.is_here = True
        stint = self.stint

        def answered(subscribed: asyncio.Future[bytes]) -> None:
            if not subscribed.cancelled() and subscribed.exception() is None and stint == self.stint:
                now = decode(subscribed.result())
                self.promised.append((now["epoch"], now["offset"]))

        self._client.subscribe("news").add_done_callback(answered)

    def unsubscribe(self) -> None:
        """Go, if it is here."""
        if self.is_here:
            self.is_here = False
            self.stint += 1
            self._client.unsubscribe("news").add_done_callback(lambda done: done.exception())

    def wrong(self, epoch: int, offset: int) -> str:
        """Return what is wrong with what was told, if the channel is at a position; empty: nothing."""
        where = tuple(self._client._feeds["news"].position)
        if where != (epoch, offset):
            return f"it is at {where}, and the channel at {(epoch, offset)}"
        before: tuple[int, int] | None = None
        heard: set[int] = set()  # of the last epoch
        unknown = False
        for each in self.told:
            if before is not None and (each.now.epoch if isinstance(each, Gap) else each[0]) < before[0]:
                return f"{each} goes back behind {before}"
            if isinstance(each, Gap):
                before = each.now.epoch, each.now.offset
                unknown = unknown or each.missing is None
                heard.update(each.missing or () if each.now.epoch == epoch else ())
                continue
            if each[2] != f"{each[0]}-{each[1]}":
                return f"{each} is not what was published there"
            if before is not None and each[:2] != (before[0], before[1] + 1) and (each[0] == before[0] or each[1] != 1):
                return f"{each} follows on {before}"
            before = each[:2]
            heard.update((each[1],) if each[0] == epoch else ())
        for promised in self.promised:
            if promised[0] == epoch and not unknown:
                lost = set(range(promised[1] + 1, offset + 1)) - heard
                if lost:
                    return f"{sorted(lost)} were never told, though {promised} was promised"
        return ""


async def history(seed: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """Play a history; return what was wrong."""
    random = Random(seed)
    kept = random.choice([0, 0, 3, 1000])
    monkeypatch.setattr(channel_feed, "MAX_HELD_BYTES", 450 if random.random() < 0.3 else 1 << 20)
    fed = HandFed()
    stores = Channel(random, fed, kept)
    subscriber = Subscriber(fed)
    stores.move()
    for _ in range(random.randint(10, 120)):
        at = random.random()
        if at < 0.25:
            stores.publish()
        elif at < 0.45:
            stores.serve(stores.any(), random.randint(1, 3))
        elif at < 0.7:
            stores.deliver(stores.any(), random.randint(1, 4))
        elif at < 0.76:
            subscriber.subscribe()
        elif at < 0.8:
            subscriber.unsubscribe()
        elif at < 0.86:
            stores.move()
        elif at < 0.88:
            stores.break_link(stores.any())
        elif at < 0.94:
            stores.tell_again()
        else:
            await asyncio.sleep(0)
    if not subscriber.is_here:
        subscriber.subscribe()
    for store in stores.stores:
        store.announce()
    for _ in range(150):
        stores.settle()
        await asyncio.sleep(0)
    wrong = subscriber.wrong(stores.epoch, stores.offset) or stores.left()
    await fed.client.close()
    return wrong


async def test_all_is_told_in_order_and_once_or_named_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_feed, "RETRY_PAUSE", 0)
    monkeypatch.setattr(resync, "RETRY_PAUSE", 3600)  # the history says when it is told again
    assert await tried(lambda seed: history(seed, monkeypatch), 400) == {}
