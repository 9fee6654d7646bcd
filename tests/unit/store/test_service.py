"""Stores and workers over real links: sessions, channels and ownership."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from grpc_health.v1 import health_pb2
from support.store.raw_links import SECRET, attach, opening, raw_link, request
from support.store.running import LinkWorker, StartStore
from support.worker.running import until

from socketcluster_proto.v1 import store_pb2
from socketcluster_runtime import rpc
from socketcluster_runtime.errors import AddressInUseError
from socketcluster_store_client.errors import (
    InvalidOperationError,
    TooLargeError,
    WrongTypeError,
)
from socketcluster_store_client.messages import Operation
from socketcluster_store_client.partitioning import PARTITION_COUNT, partition_of

ENGINES = pytest.mark.parametrize("engine", ["memory", "lmdb"])
encode = msgspec.msgpack.encode
decode: Callable[[bytes], Any] = msgspec.msgpack.decode


@ENGINES
async def test_a_value_is_seen_by_every_worker(start_store: StartStore, link_worker: LinkWorker, engine: str) -> None:
    store = await start_store(engine=engine)
    one = await link_worker(store.address, worker_id="worker01")
    two = await link_worker(store.address, worker_id="worker02")
    await one.set("s", "user", "name", value=encode("Ada"))
    assert await two.get("s", "user") == encode({"name": "Ada"})
    assert decode(await two.client.call(store_pb2.VERB_REMOVE, session_id="s", keys=["user", "name"])) is True
    assert await one.get("s", "user") == encode({})


async def test_a_store_tells_how_many_partitions_it_owns(start_store: StartStore) -> None:
    store = await start_store()
    assert store.lifecycle.metrics.get_sample_value("socketcluster_store_partitions") == PARTITION_COUNT


@ENGINES
async def test_operations_of_a_link_keep_their_order(
    start_store: StartStore, link_worker: LinkWorker, engine: str
) -> None:
    store = await start_store(engine=engine)
    worker = await link_worker(store.address)
    calls = []
    for number in range(500):
        calls.append(worker.client.call(store_pb2.VERB_SET, session_id="s", keys=["n"], value=encode(number)))
        calls.append(worker.client.call(store_pb2.VERB_GET, session_id="s", keys=["n"]))
    results = await asyncio.gather(*calls)
    assert results[1::2] == [encode(number) for number in range(500)]


async def test_the_whole_of_the_applications_tree(start_store: StartStore, link_worker: LinkWorker) -> None:
    worker = await link_worker((await start_store()).address)
    for number in range(100):
        await worker.set("", f"key{number}", value=encode(number))
    parts = [decode(await worker.client.call(store_pb2.VERB_GET_ALL, partition=p)) for p in range(PARTITION_COUNT)]
    assert {key: value for part in parts for key, value in part.items()} == {f"key{n}": n for n in range(100)}
    assert all(partition_of(key) == number for number, part in enumerate(parts) for key in part)


async def test_refusals_have_their_errors(start_store: StartStore, link_worker: LinkWorker) -> None:
    client = (await link_worker((await start_store(max_value_bytes=1024)).address)).client
    await client.call(store_pb2.VERB_SET, session_id="s", keys=["a"], value=encode(1))
    with pytest.raises(WrongTypeError, match=r"SET \['a', 'b'\]: a number stands at \['a'\]"):
        await client.call(store_pb2.VERB_SET, session_id="s", keys=["a", "b"], value=encode(1))
    with pytest.raises(TooLargeError, match="1024"):
        await client.call(store_pb2.VERB_SET, session_id="s", keys=["a"], value=encode("x" * 2000))
    with pytest.raises(TooLargeError, match="1024"):
        await client.call(store_pb2.VERB_CHANNEL_PUBLISH, name="c", value=encode("x" * 2000))
    with pytest.raises(TooLargeError, match="session id"):
        await client.attach("s" * 200)
    with pytest.raises(TooLargeError, match="name"):
        await client.subscribe("c" * 5000)
    with pytest.raises(InvalidOperationError, match="MessagePack"):
        await client.call(store_pb2.VERB_CHANNEL_PUBLISH, name="c", value=b"\xc1")
    with pytest.raises(InvalidOperationError, match="verb"):
        await client.call(store_pb2.Verb.ValueType(99), session_id="s")
    with pytest.raises(InvalidOperationError, match="session"):
        await client.call(store_pb2.VERB_SESSION_ATTACH, partition=0)
    with pytest.raises(InvalidOperationError, match="session"):
        await client.call(store_pb2.VERB_SESSION_EMIT, name="e", value=encode([]), partition=0)
    with pytest.raises(InvalidOperationError, match="name"):
        await client.call(store_pb2.VERB_CHANNEL_PUBLISH, value=encode(1))
    with pytest.raises(InvalidOperationError, match="belongs to partition"):
        await client.call(
            store_pb2.VERB_GET, session_id="s", keys=["a"], partition=(partition_of("s") + 1) % PARTITION_COUNT
        )


async def test_emit_reaches_the_other_workers_that_have_the_session(
    start_store: StartStore, link_worker: LinkWorker
) -> None:
    store = await start_store()
    one, two, three = [await link_worker(store.address, worker_id=f"worker0{n}") for n in range(3)]
    await asyncio.gather(one.client.attach("s"), two.client.attach("s"), three.client.attach("other"))
    await one.client.call(store_pb2.VERB_SESSION_EMIT, session_id="s", name="rand", value=encode([7]))
    assert await two.session_messages.get() == ("s", "rand", encode([7]))
    await asyncio.gather(*(worker.barrier() for worker in (one, two, three)))
    assert one.session_messages.empty()
    assert two.session_messages.empty()
    assert three.session_messages.empty()


async def test_a_channels_messages_have_one_order(start_store: StartStore, link_worker: LinkWorker) -> None:
    store = await start_store()
    workers = [await link_worker(store.address, worker_id=f"worker0{n}") for n in range(3)]
    one, two, three = workers
    await asyncio.gather(one.client.subscribe("c"), two.client.subscribe("c"))
    replies = await asyncio.gather(
        *(
            worker.client.call(store_pb2.VERB_CHANNEL_PUBLISH, name="c", value=encode([index, number]))
            for number in range(100)
            for index, worker in enumerate(workers)
        )
    )
    at_one = [await one.channel_messages.get() for _ in range(300)]
    at_two = [await two.channel_messages.get() for _ in range(300)]
    assert at_one == at_two
    assert [offset for _channel, _value, offset, _epoch in at_one] == list(range(1, 301))
    assert len({epoch for *_, epoch in at_one}) == 1
    for index in range(3):
        sent = [decode(value) for _channel, value, _offset, _epoch in at_one]
        assert [number for sender, number in sent if sender == index] == list(range(100))
    assert sorted(decode(reply)["offset"] for reply in replies) == list(range(1, 301))
    assert three.channel_messages.empty()
    await one.client.unsubscribe("c")
    await three.client.call(store_pb2.VERB_CHANNEL_PUBLISH, name="c", value=encode("last"))
    assert (await two.channel_messages.get())[1] == encode("last")
    await one.barrier()
    assert one.channel_messages.empty()


@ENGINES
async def test_every_worker_hears_of_a_sessions_end(
    start_store: StartStore, link_worker: LinkWorker, engine: str
) -> None:
    store = await start_store(session_timeout=0.05, engine=engine)
    one = await link_worker(store.address, worker_id="worker01")
    two = await link_worker(store.address, worker_id="worker02")
    await one.client.attach("s")
    await one.set("s", "k", value=encode(1))
    await one.client.detach("s")
    assert await one.destroyed.get() == "s"
    assert await two.destroyed.get() == "s"
    assert await two.get("s", "k") == encode(None)


async def test_a_session_without_sockets_ends_after_its_last_write(
    start_store: StartStore, link_worker: LinkWorker
) -> None:
    worker = await link_worker((await start_store(session_timeout=0.05)).address)
    await worker.set("s", "k", value=encode(1))
    assert await worker.destroyed.get() == "s"
    assert await worker.get("s", "k") == encode(None)


async def test_a_session_lives_while_one_of_two_workers_has_it(
    start_store: StartStore, link_worker: LinkWorker
) -> None:
    store = await start_store(session_timeout=0.05)
    one = await link_worker(store.address, worker_id="worker01")
    two = await link_worker(store.address, worker_id="worker02")
    await asyncio.gather(one.client.attach("s"), two.client.attach("s"))
    await one.set("s", "k", value=encode(1))
    await one.client.detach("s")
    await one.client.attach("canary")  # its end comes later than that of "s" would have come
    await one.client.detach("canary")
    assert await two.destroyed.get() == "canary"
    assert two.destroyed.empty()
    assert await two.get("s", "k") == encode(1)
    await two.client.detach("s")
    assert await one.destroyed.get() == "canary"
    assert await one.destroyed.get() == "s"


async def test_sessions_of_a_worker_that_does_not_come_back_end(
    start_store: StartStore, link_worker: LinkWorker
) -> None:
    store = await start_store(session_timeout=0.05, link_grace=0.05)
    one = await link_worker(store.address, worker_id="worker01")
    two = await link_worker(store.address, worker_id="worker02")
    await asyncio.gather(one.client.attach("mine"), one.client.attach("ours"), two.client.attach("ours"))
    await one.client.close()
    assert await two.destroyed.get() == "mine"
    assert two.destroyed.empty()


async def test_a_later_link_of_a_worker_takes_the_earlier_ones_place(
    start_store: StartStore, link_worker: LinkWorker
) -> None:
    store = await start_store()
    other = await link_worker(store.address, worker_id="worker02")
    channel, first = raw_link(store.address)
    await first.write(opening())
    await first.read()
    await first.write(request(attach(1, "s")))
    await first.read()
    later_channel, later = raw_link(store.address)
    await later.write(opening())
    await later.read()
    assert await first.code() is grpc.StatusCode.ABORTED
    await later.write(request(attach(2, "s")))
    await later.read()
    await other.client.call(store_pb2.VERB_SESSION_EMIT, session_id="s", name="e", value=encode([]))
    reply = await later.read()
    assert [event.session_message.name for event in reply.events] == ["e"]
    await channel.close()
    await later_channel.close()


@ENGINES
async def test_a_restart_keeps_what_is_promised(
    start_store: StartStore, link_worker: LinkWorker, engine: str, folder: Path
) -> None:
    address = f"unix:{folder}/same"
    store = await start_store(engine=engine, listen=address)
    worker = await link_worker(address)
    await worker.client.attach("s")
    await worker.client.subscribe("c")
    await worker.set("s", "k", value=encode(1))
    await worker.client.call(store_pb2.VERB_CHANNEL_PUBLISH, name="c", value=encode(1))
    _channel, _value, offset, epoch = await worker.channel_messages.get()
    await store.stop()
    reading = asyncio.ensure_future(worker.get("s", "k"))
    await start_store(engine=engine, listen=address)
    assert await reading == (encode(1) if engine == "lmdb" else encode(None))
    await worker.client.wait_ready()
    other = await link_worker(address, worker_id="worker02")
    await other.client.call(store_pb2.VERB_SESSION_EMIT, session_id="s", name="again", value=encode([]))
    assert (await worker.session_messages.get())[1] == "again"
    await other.client.call(store_pb2.VERB_CHANNEL_PUBLISH, name="c", value=encode(2))
    message = await worker.channel_messages.get()
    assert message[1:3] == (encode(2), offset)
    assert message[3] > epoch


async def test_a_session_whose_end_comes_around_a_restart(
    start_store: StartStore, link_worker: LinkWorker, folder: Path
) -> None:
    address = f"unix:{folder}/same"
    store = await start_store(listen=address, session_timeout=0.01)
    worker = await link_worker(address)
    await worker.set("s", "k", value=encode(1))
    await store.stop()
    await start_store(listen=address, session_timeout=0.01)
    assert await worker.destroyed.get() == "s"  # by the one store or the other, but not unheard
    assert await worker.get("s", "k") == encode(None)


async def test_a_stopping_store_sends_what_waits(start_store: StartStore, link_worker: LinkWorker) -> None:
    store = await start_store()
    publisher = await link_worker(store.address)
    channel, slow = raw_link(store.address)
    await slow.write(opening())
    await slow.read()
    subscribe = Operation(id=1, verb=store_pb2.VERB_CHANNEL_SUBSCRIBE, name="c", partition=partition_of("c"))
    await slow.write(request(subscribe))
    await slow.read()
    for _ in range(24):
        await publisher.client.call(store_pb2.VERB_CHANNEL_PUBLISH, name="c", value=encode("x" * 500_000))
    stopping = asyncio.create_task(store.stop())
    offsets: list[int] = []
    with pytest.raises(grpc.aio.AioRpcError, match="the store stops"):
        await collect_offsets(slow, offsets)
    assert offsets == list(range(1, 25))
    await stopping
    await channel.close()


# Ownership


async def test_two_stores_share_the_partitions(start_store: StartStore, link_worker: LinkWorker) -> None:
    one = await start_store()
    two = await start_store()
    worker = await link_worker(one.address, wait=False)
    both = await link_worker(one.address, two.address, worker_id="worker02")
    names = [f"s{number}" for number in range(200)]
    await asyncio.gather(*(both.set(name, "k", value=encode(name)) for name in names))
    assert await asyncio.gather(*(both.get(name, "k") for name in names)) == [encode(name) for name in names]
    await until(lambda: not worker.client.ready)


async def test_a_store_that_stops_hands_everything_over(start_store: StartStore, link_worker: LinkWorker) -> None:
    first = await start_store()
    worker = await link_worker(first.address)
    await worker.set("s", "k", value=encode(1))
    second = await start_store()
    assert await health_of(second.address) == health_pb2.HealthCheckResponse.SERVING
    later = await link_worker(first.address, second.address, worker_id="worker02")
    await first.stop()
    assert await later.get("s", "k") == encode(1)
    await later.client.wait_ready()


# Callers that do not behave


@pytest.mark.parametrize("fsync", ["everysec", "always"])
async def test_answers_may_be_more_than_may_wait(start_store: StartStore, link_worker: LinkWorker, fsync: str) -> None:
    store = await start_store(max_link_bytes=1024 * 1024, fsync=fsync)
    worker = await link_worker(store.address)
    value = encode("x" * 50_000)
    sessions = [f"s{number}" for number in range(600)]
    for start in range(0, 600, 60):
        await asyncio.gather(*(worker.set(session, "k", value=value) for session in sessions[start : start + 60]))
    assert await asyncio.gather(*(worker.get(session, "k") for session in sessions)) == [value] * 600


async def test_an_address_in_use_ends_the_store(start_store: StartStore) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(AddressInUseError, match="cannot listen"):
            await start_store(listen=f"127.0.0.1:{taken.getsockname()[1]}")


async def collect_offsets(call: Any, offsets: list[int]) -> None:
    while (reply := await call.read()) is not grpc.aio.EOF:
        offsets.extend(event.channel_message.offset for event in reply.events)


async def health_of(address: str) -> int:
    async with rpc.connect(address) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        answer = await check(health_pb2.HealthCheckRequest(), metadata=rpc.credentials(SECRET), wait_for_ready=True)
        return int(answer.status)
