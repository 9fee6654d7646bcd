"""Callers of a store that do not behave, or have no right to be there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from support.store.raw_links import SECRET, attach, opening, raw_link, request
from support.store.running import LinkWorker, StartStore

from socketcluster_proto.v1 import store_pb2, store_pb2_grpc
from socketcluster_runtime import rpc
from socketcluster_store_client.errors import (
    StoreUnavailableError,
)
from socketcluster_store_client.messages import Operation, decode_results
from socketcluster_store_client.partitioning import PARTITION_COUNT, partition_of

encode = msgspec.msgpack.encode
decode: Callable[[bytes], Any] = msgspec.msgpack.decode


async def test_a_link_ends_that_brings_no_operations(start_store: StartStore) -> None:
    store = await start_store()
    for sent in (b"\xc1", b"\x91\x91\xa1x", b"\x01"):
        channel, call = raw_link(store.address)
        await call.write(opening())
        await call.read()
        await call.write(store_pb2.LinkRequest(operations=sent))
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "operations" in await call.details()
        await channel.close()


async def test_a_store_refuses_what_it_does_not_own(start_store: StartStore) -> None:
    store = await start_store()
    await start_store()
    channel, call = raw_link(store.address)
    await call.write(opening())
    owned = {ownership.partition for ownership in (await call.read()).announcement.partitions}
    mine, other = min(owned), min(set(range(PARTITION_COUNT)) - owned)
    assert len(owned) == PARTITION_COUNT // 2
    await call.write(
        request(
            Operation(id=1, verb=store_pb2.VERB_GET_ALL, partition=other),
            Operation(id=2, verb=store_pb2.VERB_GET_ALL, partition=mine),
            Operation(id=3, verb=store_pb2.VERB_GET_ALL, partition=4_000_000_000),
        )
    )
    reply = await call.read()
    codes = {result.id: result.error and result.error.code for result in decode_results(reply.results)}
    assert codes == {1: store_pb2.Error.CODE_NOT_OWNER, 2: None, 3: store_pb2.Error.CODE_NOT_OWNER}
    await channel.close()


async def test_a_wrong_secret_is_refused(start_store: StartStore, link_worker: LinkWorker) -> None:
    store = await start_store()
    channel, call = raw_link(store.address, secret="another secret, as long")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    await channel.close()
    worker = await link_worker(store.address, secret="another secret, as long", wait=False, timeout=0.2)
    with pytest.raises(StoreUnavailableError, match=r"no store answered GET .* within 0\.2 s"):
        await worker.get("s", "k")


async def test_another_application_is_refused(start_store: StartStore) -> None:
    store = await start_store(app_name="mine")
    channel, call = raw_link(store.address)
    await call.write(opening(app_name="yours"))
    with pytest.raises(grpc.aio.AioRpcError, match="'mine', not to 'yours'") as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    stub: Any = store_pb2_grpc.StoreStub(channel)
    with pytest.raises(grpc.aio.AioRpcError, match="'mine', not to ''"):
        await stub.Hello(store_pb2.HelloRequest(), metadata=rpc.credentials(SECRET))
    hello = await stub.Hello(store_pb2.HelloRequest(app_name="mine"), metadata=rpc.credentials(SECRET))
    assert (hello.engine, hello.partition_count) == ("lmdb", PARTITION_COUNT)
    await channel.close()


async def test_a_link_begins_with_its_opening(start_store: StartStore) -> None:
    store = await start_store()
    channel, call = raw_link(store.address)
    await call.write(request(attach(1, "s")))
    with pytest.raises(grpc.aio.AioRpcError, match="LinkOpen") as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    await channel.close()


async def test_garbage_on_the_port_disturbs_nobody(
    start_store: StartStore, link_worker: LinkWorker, folder: Path
) -> None:
    store = await start_store()
    worker = await link_worker(store.address)
    for garbage in (b"\0" * 1000, b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 1000):
        reader, writer = await asyncio.open_unix_connection(store.address.removeprefix("unix:"))
        writer.write(garbage)
        writer.write_eof()
        await reader.read()
        writer.close()
        await writer.wait_closed()
    await worker.set("s", "k", value=encode(1))


async def test_bytes_that_are_no_request_end_their_link_only(start_store: StartStore, link_worker: LinkWorker) -> None:
    store = await start_store()
    worker = await link_worker(store.address)
    channel = rpc.connect(store.address)
    call: Any = channel.stream_stream("/socketcluster.v1.Store/Link")(metadata=rpc.credentials(SECRET))
    await call.write(b"\xff\xff\xff garbage")
    with pytest.raises(grpc.aio.AioRpcError):
        await call.read()
    await channel.close()
    await worker.set("s", "k", value=encode(1))


async def test_a_worker_that_does_not_read_loses_its_link(start_store: StartStore, link_worker: LinkWorker) -> None:
    store = await start_store(max_link_bytes=1024 * 1024)
    worker = await link_worker(store.address)
    channel, call = raw_link(store.address, worker_id="deaf")
    await call.write(opening(worker_id="deaf"))
    await call.read()
    subscribe = Operation(id=1, verb=store_pb2.VERB_CHANNEL_SUBSCRIBE, name="c", partition=partition_of("c"))
    await call.write(request(subscribe))
    await call.read()
    message = encode("x" * 500_000)
    for _ in range(40):
        await worker.client.call(store_pb2.VERB_CHANNEL_PUBLISH, name="c", value=message)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read_to_the_end(call)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await worker.set("s", "k", value=encode(1))
    await channel.close()


async def read_to_the_end(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_no_link_is_forgotten_however_it_ends(start_store: StartStore, link_worker: LinkWorker) -> None:
    store = await start_store(session_timeout=0.05, link_grace=0.05)
    witness = await link_worker(store.address, worker_id="witness")
    count = 150

    async def come_and_go(number: int) -> None:
        channel, call = raw_link(store.address)
        await call.write(opening(worker_id=f"raw{number}"))
        await call.read()
        await call.write(request(attach(1, f"s{number}")))
        while not (await call.read()).results:
            pass  # the end of another link's session
        if number % 3 == 0:
            await call.done_writing()
        elif number % 3 == 1:
            call.cancel()
        await channel.close()

    await asyncio.gather(*(come_and_go(number) for number in range(count)))
    ended = {await witness.destroyed.get() for _ in range(count)}
    assert ended == {f"s{number}" for number in range(count)}
