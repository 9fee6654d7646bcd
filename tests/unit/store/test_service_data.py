"""Data over real links: who is told of its changes, and what expires in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from support.store.running import LinkWorker, StartStore

from socketcluster_proto.v1 import store_pb2
from socketcluster_store_client.errors import ChainTooDeepError, InvalidOperationError

ENGINES = pytest.mark.parametrize("engine", ["memory", "lmdb"])
encode = msgspec.msgpack.encode
decode: Callable[[bytes], Any] = msgspec.msgpack.decode


async def told(worker: Any) -> tuple[Any, ...]:
    """Return the next change that a worker is told of."""
    change = await worker.data_changes.get()
    return (
        tuple(change.watched),
        tuple(change.keys),
        change.operation,
        decode(change.value or encode(None)),
        change.count,
    )


@ENGINES
async def test_every_watcher_is_told_of_every_change(
    start_store: StartStore, link_worker: LinkWorker, engine: str
) -> None:
    store = await start_store(engine=engine)
    one, two, three = [await link_worker(store.address, worker_id=f"worker0{n}") for n in range(3)]
    await asyncio.gather(one.client.watch("s", ("a",), b"1"), two.client.watch("s", (), b"2"))
    assert (await one.data_changes.get()).value == b"1"
    assert (await two.data_changes.get()).value == b"2"
    await three.set("s", "a", "b", value=encode(1))
    await one.set("s", "c", value=encode(2))
    assert await told(one) == (("a",), ("a", "b"), "set", 1, 1)
    assert await told(two) == ((), ("a", "b"), "set", 1, 1)
    assert await told(two) == ((), ("c",), "set", 2, 2)
    await one.client.unwatch("s", ("a",))
    await three.set("s", "a", value=encode(3))
    assert await told(two) == ((), ("a",), "set", 3, 3)
    await asyncio.gather(*(worker.barrier("s") for worker in (one, two, three)))
    assert one.data_changes.empty()
    assert three.data_changes.empty()


async def test_a_watcher_that_links_again_learns_what_it_missed(
    start_store: StartStore, link_worker: LinkWorker
) -> None:
    store = await start_store()
    one = await link_worker(store.address, worker_id="worker01")
    await one.client.watch("s", ("a",), b"")
    begun = await one.data_changes.get()
    await one.client.close()
    two = await link_worker(store.address, worker_id="worker02")
    for number in range(3):
        await two.set("s", "a", value=encode(number))
    again = await link_worker(store.address, worker_id="worker01")
    await again.client.watch("s", ("a",), b"")
    change = await again.data_changes.get()
    assert (change.operation, change.count, change.generation) == ("", 3, begun.generation)


async def test_what_nobody_watches_for_long_is_not_counted(
    start_store: StartStore, link_worker: LinkWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socketcluster_store.partition.watchers.GRACE", 0.02)
    store = await start_store()
    generations: set[int] = set()
    while len(generations) < 3:  # it is still counted if somebody was quick to come back
        worker = await link_worker(store.address)
        await worker.client.watch("s", ("a",), b"")
        generations.add((await worker.data_changes.get()).generation)
        await worker.client.close()
        await asyncio.sleep(0.03)


async def test_watches_that_are_refused(start_store: StartStore, link_worker: LinkWorker) -> None:
    worker = await link_worker((await start_store()).address)
    with pytest.raises(ChainTooDeepError, match=r"WATCH \['k', ") as deep:
        await worker.client.watch("s", ("k",) * 33, b"")
    assert (deep.value.operation, deep.value.keys) == ("watch", ("k",) * 33)
    await worker.client.unwatch("s", ("k",) * 33)
    with pytest.raises(InvalidOperationError, match="neither a session"):
        await worker.client.watch("", (), b"")
    await worker.barrier()
    assert worker.data_changes.empty()


@ENGINES
async def test_values_expire_in_time(start_store: StartStore, link_worker: LinkWorker, engine: str) -> None:
    store = await start_store(engine=engine)
    worker = await link_worker(store.address)
    await worker.client.watch("s", (), b"")
    await worker.data_changes.get()
    loop = asyncio.get_running_loop()
    began = {}
    for name, seconds in (("b", 60), ("a", 0.05), ("c", 0.1)):
        await worker.set("s", name, value=encode(0))
        began[name] = loop.time()
        assert await worker.client.call(
            store_pb2.VERB_EXPIRE, session_id="s", keys=[name], value=encode(seconds)
        ) == encode(True)
    await worker.client.call(store_pb2.VERB_EXPIRE, session_id="s", keys=["b"], value=encode(0.15))
    expired: list[str] = []
    while len(expired) < 3:
        _watched, keys, operation, _value, _count = await told(worker)
        if operation == "expire":
            expired.append(keys[0])
            assert loop.time() - began[keys[0]] >= {"a": 0.05, "b": 0.15, "c": 0.1}[keys[0]]
    assert expired == ["a", "c", "b"]
    assert decode(await worker.client.call(store_pb2.VERB_GET_ALL, session_id="s")) == {}


async def test_expiries_outlive_a_store(start_store: StartStore, link_worker: LinkWorker) -> None:
    first = await start_store()
    worker = await link_worker(first.address)
    await worker.set("s", "gone", value=encode(0))
    await worker.set("s", "later", value=encode(0))
    await worker.client.call(store_pb2.VERB_EXPIRE, session_id="s", keys=["gone"], value=encode(0.01))
    await worker.client.call(store_pb2.VERB_EXPIRE, session_id="s", keys=["later"], value=encode(100))
    await first.stop()
    await asyncio.sleep(0.01)  # until it is due
    second = await start_store()
    heir = await link_worker(second.address, worker_id="worker02")
    assert decode(await heir.client.call(store_pb2.VERB_GET_ALL, session_id="s")) == {"later": 0}
    left = decode(await heir.client.call(store_pb2.VERB_GET_EXPIRY, session_id="s", keys=["later"]))
    assert 0 < left <= 100


async def test_a_write_that_changes_nothing_makes_no_session(start_store: StartStore, link_worker: LinkWorker) -> None:
    store = await start_store(session_timeout=0.05)
    worker = await link_worker(store.address)
    for verb in (store_pb2.VERB_POP, store_pb2.VERB_UNEXPIRE, store_pb2.VERB_REMOVE):
        await worker.client.call(verb, session_id="nobody", keys=["a"])
    await worker.client.call(store_pb2.VERB_ADD, session_id="somebody", keys=["a"], value=encode(1))
    assert await worker.destroyed.get() == "somebody"
    assert worker.destroyed.empty()
