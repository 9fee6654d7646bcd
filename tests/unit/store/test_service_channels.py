"""Channels over the link: what workers get, whatever happens to the store between."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.store.running import LinkWorker, StartStore, StoreProcesses

from socketcluster_proto.v1 import store_pb2
from socketcluster_store_client.errors import InvalidOperationError, TooLargeError
from socketcluster_store_client.messages import Position

encode = msgspec.msgpack.encode
decode: Callable[[Any], Any] = msgspec.msgpack.decode

ENGINES = pytest.mark.parametrize("engine", ["memory", "lmdb"])
HISTORY = {"channel_history": "kept*: 100000, 3600"}
KILLS = 3
CALLERS = 10


async def messages(worker: Any, count: int) -> list[tuple[Any, int]]:
    """Return the values and offsets of the next messages."""
    got = [await worker.channel_messages.get() for _ in range(count)]
    return [(decode(value), offset) for _channel, value, offset, _epoch in got]


@ENGINES
async def test_the_history_of_a_channel(start_store: StartStore, link_worker: LinkWorker, engine: str) -> None:
    store = await start_store(engine=engine, **HISTORY)
    worker = await link_worker(store.address)
    for number in range(1, 6):
        epoch, offset = await worker.publish("kept", number)
        assert offset == number
    page = await worker.client.history("kept", Position(epoch, 2), 2)
    assert (page.start, [decode(value) for value in page.messages], page.known) == (3, [3, 4], True)
    page = await worker.client.history("kept", None, 2)
    assert (page.start, [decode(value) for value in page.messages]) == (4, [4, 5])
    assert not (await worker.client.history("kept", Position(epoch + 1, 2), 2)).known
    assert (await worker.client.history("\0kept", None, 2)).messages == []


@ENGINES
async def test_an_id_is_published_once(start_store: StartStore, link_worker: LinkWorker, engine: str) -> None:
    store = await start_store(engine=engine, **HISTORY)
    worker = await link_worker(store.address)
    for name in ("kept", "other"):
        await worker.client.subscribe(name)
        first = await worker.publish(name, "a", "id")
        assert await worker.publish(name, "b", "id") == first
        assert await worker.publish(name, "c", "another") == (first[0], 2)
        assert await messages(worker, 2) == [("a", 1), ("c", 2)]
        with pytest.raises(TooLargeError, match="at most 128 bytes, this one has 129"):
            await worker.publish(name, "d", "x" * 129)
        with pytest.raises(InvalidOperationError):
            await worker.client.call(store_pb2.VERB_CHANNEL_HISTORY, name=name)
        assert worker.channel_messages.empty()


async def test_a_killed_store_loses_no_acknowledged_publication_and_no_delivery(
    processes: StoreProcesses, link_worker: LinkWorker
) -> None:
    rules = HISTORY["channel_history"]
    process = await processes.start(SOCKETCLUSTER_CHANNEL_HISTORY=rules)
    publisher = await link_worker(processes.address)
    subscriber = await link_worker(processes.address, worker_id="worker02")
    await subscriber.client.subscribe("kept")
    acknowledged: dict[int, tuple[int, int]] = {}  # by offset: who published what
    epochs = set()
    stop = asyncio.Event()

    async def publish(caller: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            epoch, offset = await publisher.publish("kept", [caller, number], f"{caller}-{number}")
            assert offset not in acknowledged
            acknowledged[offset] = (caller, number)
            epochs.add(epoch)

    callers = [asyncio.create_task(publish(caller)) for caller in range(CALLERS)]
    for _ in range(KILLS):
        before = len(acknowledged)
        while len(acknowledged) < before + 200:
            await publisher.barrier()
        process.send_signal(signal.SIGKILL)
        await process.wait()
        process = await processes.start(SOCKETCLUSTER_CHANNEL_HISTORY=rules)
    stop.set()
    await asyncio.gather(*callers)
    last = max(acknowledged)
    assert sorted(acknowledged) == list(range(1, last + 1))
    assert len(epochs) == 1
    expected = [(list(acknowledged[offset]), offset) for offset in range(1, last + 1)]
    assert await messages(subscriber, last) == expected
    page = await subscriber.client.history("kept", Position(epochs.pop(), 0), 10_000)
    assert [(decode(value), page.start + index) for index, value in enumerate(page.messages)] == expected[
        : len(page.messages)
    ]
    assert subscriber.gaps.empty()
    assert subscriber.channel_messages.empty()


async def test_what_was_published_while_a_worker_had_no_link(
    start_store: StartStore, link_worker: LinkWorker, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers; the link of one is taken over by another link of its name, and comes back."""
    store = await start_store(**HISTORY, listen=f"unix:{folder}/same")
    subscriber = await link_worker(store.address, worker_id="worker02")
    publisher = await link_worker(store.address)
    for name in ("kept", "other"):
        await subscriber.client.subscribe(name)
        await publisher.publish(name, 1)
    assert sorted(await messages(subscriber, 2)) == [(1, 1), (1, 1)]
    (link,) = subscriber.client._links
    release = asyncio.Event()
    run = link._stream

    async def wait_first() -> Any:
        await release.wait()
        return await run()

    monkeypatch.setattr(link, "_stream", wait_first)
    usurper = await link_worker(store.address, worker_id="worker02")
    await usurper.barrier()
    for number in (2, 3):
        for name in ("kept", "other"):
            await publisher.publish(name, number)
    await usurper.client.close()
    release.set()
    assert await messages(subscriber, 2) == [(2, 2), (3, 3)]
    gap = await subscriber.gaps.get()
    assert (gap.channel, gap.missing) == ("other", range(2, 4))
    await publisher.publish("other", 4)
    assert await messages(subscriber, 1) == [(4, 4)]


async def test_a_restart_begins_new_epochs_where_nothing_is_kept(
    start_store: StartStore, link_worker: LinkWorker, folder: Path
) -> None:
    address = f"unix:{folder}/same"
    store = await start_store(**HISTORY, listen=address)
    worker = await link_worker(address)
    await worker.client.subscribe("other")
    epoch, _offset = await worker.publish("other", 1)
    await store.stop()
    await start_store(**HISTORY, listen=address)
    gap = await worker.gaps.get()
    assert (gap.channel, gap.seen, gap.missing) == ("other", (epoch, 1), None)
    assert gap.now.offset == 0
    assert await worker.publish("other", 2) == (gap.now.epoch, 1)
    assert await messages(worker, 2) == [(1, 1), (2, 1)]


async def test_a_takeover_by_another_store_goes_on_with_the_history(
    start_store: StartStore, link_worker: LinkWorker
) -> None:
    one = await start_store(**HISTORY)
    worker = await link_worker(one.address)
    await worker.client.subscribe("kept")
    epoch, _ = await worker.publish("kept", 1)
    two = await start_store(wait=False, **HISTORY)
    both = await link_worker(one.address, two.address, worker_id="worker02")
    await both.client.subscribe("kept")
    await one.stop()
    await two.ready()
    assert await both.publish("kept", 2) == (epoch, 2)
    assert await messages(both, 1) == [(2, 2)]
    assert both.gaps.empty()
