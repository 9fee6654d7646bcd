"""Framed streams at a store: who is let in, what ends them, and that nothing is left of them."""

from __future__ import annotations

import asyncio
import socket
import struct
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from structlog.testing import capture_logs
from support.store.raw_links import SECRET, opening, request
from support.store.running import LinkWorker, RunningStore, StartStore
from support.worker.running import until

from socketcluster_proto.v1 import store_pb2, store_pb2_grpc
from socketcluster_runtime import rpc
from socketcluster_runtime.errors import AddressInUseError
from socketcluster_runtime.sockets import entrance
from socketcluster_runtime.sockets.capacity import Room
from socketcluster_runtime.sockets.framed import FramedStream
from socketcluster_store import streams as module
from socketcluster_store.streams import StreamServer, Tickets, stream_address
from socketcluster_store_client.messages import Operation, decode_results
from socketcluster_store_client.partitioning import partition_of
from socketcluster_store_client.streams.framed_dialing import STREAM_SUFFIX, status_of

encode = msgspec.msgpack.encode


class Caller:
    """A connection to where a store serves streams, and what comes on it."""

    def __init__(self) -> None:
        self.replies: list[store_pb2.LinkReply] = []
        self.ended: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self.stream = FramedStream(
            lambda message: self.replies.append(store_pb2.LinkReply.FromString(message)), self.ended.set_result
        )

    async def connect(self, address: str) -> Caller:
        path = address.removeprefix("unix:") + STREAM_SUFFIX
        await asyncio.get_running_loop().create_unix_connection(lambda: self.stream, path)
        return self

    async def status(self) -> grpc.StatusCode:
        return status_of(await self.ended)

    @property
    def results(self) -> list[int]:
        return [result.id for reply in self.replies if reply.results for result in decode_results(reply.results)]


async def ticket_of(store: RunningStore) -> bytes:
    async with rpc.connect(store.address) as channel:
        stub: Any = store_pb2_grpc.StoreStub(channel)
        hello = await stub.Hello(
            store_pb2.HelloRequest(app_name="socketcluster"), metadata=rpc.credentials(SECRET), wait_for_ready=True
        )
    assert hello.stream_port == 0
    return bytes(hello.stream_ticket)


async def let_in(store: RunningStore) -> Caller:
    """Return a caller whose link is open."""
    caller = await Caller().connect(store.address)
    caller.stream.send(await ticket_of(store))
    caller.stream.send(opening().SerializeToString())
    await until(lambda: caller.replies)
    assert caller.replies[0].HasField("announcement")
    return caller


def publish(number: int, value: object, channel: str = "news") -> Operation:
    return Operation(
        id=number,
        verb=store_pb2.VERB_CHANNEL_PUBLISH,
        name=channel,
        value=encode(value),
        partition=partition_of(channel),
    )


def exists(path: str) -> bool:
    return Path(path).exists()


def replace(path: str) -> None:
    """Put something else where a socket's file is."""
    Path(path).unlink()
    Path(path).write_text("somebody else's")


async def test_a_ticket_is_good_once_and_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TICKETS", 3)
    tickets = Tickets()
    given = [tickets.give() for _ in range(4)]
    assert len({*given}) == 4
    assert [tickets.take(ticket) for ticket in (given[0], given[1], given[1], b"", b"another")] == [
        False, True, False, False, False,
    ]  # fmt: skip
    monkeypatch.setattr(module, "TICKET_TIME", -1.0)
    expired = tickets.give()
    assert not tickets.take(expired)


async def test_strangers_are_not_let_in(start_store: StartStore) -> None:
    store = await start_store(engine="memory")
    used = await ticket_of(store)
    first = await Caller().connect(store.address)
    first.stream.send(used)
    for shown in (b"x" * 32, b"", used):
        caller = await Caller().connect(store.address)
        caller.stream.send(shown)
        caller.stream.send(opening().SerializeToString())
        assert await caller.status() is grpc.StatusCode.UNAUTHENTICATED
        assert not caller.replies
    too_much = await Caller().connect(store.address)
    too_much.stream.send(bytes(33))
    assert await too_much.ended is None
    first.stream.abort()


async def test_who_shows_nothing_is_shown_out(monkeypatch: pytest.MonkeyPatch, start_store: StartStore) -> None:
    store = await start_store(engine="memory")
    monkeypatch.setattr(module, "TICKET_TIME", 0.05)
    silent = await Caller().connect(store.address)
    assert await silent.ended is None
    monkeypatch.setattr(module, "TICKET_TIME", 60.0)
    monkeypatch.setattr(entrance, "MAX_STRANGERS", 2)
    known = await let_in(store)
    many = [await Caller().connect(store.address) for _ in range(3)]
    assert await many[0].ended is None
    assert not many[1].ended.done()
    assert known.stream.open
    for caller in (known, *many):
        caller.stream.abort()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (store_pb2.LinkRequest().SerializeToString(), grpc.StatusCode.INVALID_ARGUMENT),
        (opening(app_name="another").SerializeToString(), grpc.StatusCode.FAILED_PRECONDITION),
        (b"\xff\xff", grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_a_stream_that_begins_wrongly_is_told_so(
    start_store: StartStore, sent: bytes, status: grpc.StatusCode
) -> None:
    store = await start_store(engine="memory")
    caller = await Caller().connect(store.address)
    caller.stream.send(await ticket_of(store))
    caller.stream.send(sent)
    assert await caller.status() is status


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\xff\xff", grpc.StatusCode.INVALID_ARGUMENT),
        (store_pb2.LinkRequest(operations=b"\xc1").SerializeToString(), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_garbage_on_a_link_ends_it(start_store: StartStore, sent: bytes, status: grpc.StatusCode) -> None:
    store = await start_store(engine="memory")
    with capture_logs() as log:
        caller = await let_in(store)
        caller.stream.send(sent)
        assert await caller.status() is status
        await until(lambda: any(line["event"] == "worker's link ended" for line in log))
    assert not [line for line in log if line["log_level"] in ("error", "warning")]


async def test_operations_are_answered_in_order_on_every_way(start_store: StartStore) -> None:
    store = await start_store(engine="lmdb")
    caller = await let_in(store)
    caller.stream.send(request(publish(1, 1)).SerializeToString())  # in the turn in which it comes
    await until(lambda: caller.results == [1])
    caller.stream.send(request(*(publish(n, n) for n in range(2, 302))).SerializeToString())  # in portions
    for number in range(302, 402):  # behind those
        caller.stream.send(request(publish(number, number)).SerializeToString())
    await until(lambda: len(caller.results) == 401)
    assert caller.results == list(range(1, 402))
    caller.stream.abort()


async def test_a_worker_that_does_not_read_loses_its_link(start_store: StartStore, link_worker: LinkWorker) -> None:
    store = await start_store(engine="memory", max_link_bytes=1024 * 1024)
    slow = await let_in(store)
    subscribe = Operation(id=1, verb=store_pb2.VERB_CHANNEL_SUBSCRIBE, name="news", partition=partition_of("news"))
    slow.stream.send(request(subscribe).SerializeToString())
    await until(lambda: slow.results == [1])
    slow.stream.pause_reading()
    other = await link_worker(store.address, framed=True)
    with capture_logs() as log:
        for _ in range(30):
            await other.publish("news", bytes(200_000))
            if any(line["event"] == "a worker does not read, its link is closed" for line in log):
                break
        else:
            raise AssertionError(log)
    slow.stream.resume_reading()
    assert await slow.status() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_no_more_is_read_than_is_applied(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(module, "READ_AHEAD", 100_000)
    served = asyncio.Event()
    taken: list[Any] = []

    async def serve(requests: Any, _context: Any) -> None:
        taken.append(await anext(requests))
        await served.wait()
        async for each in requests:
            taken.append(each)  # noqa: PERF401  # one by one

    address = f"unix:{folder}/store"
    server = StreamServer(serve, None, Room())
    await server.listen(address + STREAM_SUFFIX)
    caller = await Caller().connect(address)
    caller.stream.send(server.tickets.give())
    message = store_pb2.LinkRequest(operations=bytes(50_000)).SerializeToString()
    sent = 0
    while caller.stream.writable is None:
        caller.stream.send(message)
        sent += 1
        await asyncio.sleep(0)
    served.set()
    await caller.stream.writable
    await until(lambda: len(taken) == sent)
    caller.stream.abort()
    await server.close()


async def test_what_is_being_applied_is_not_broken_off_with_the_stream(folder: Path) -> None:
    begun, may_end, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def serve(_requests: Any, _context: Any) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await may_end.wait()
            ended.set()

    address = f"unix:{folder}/store"
    server = StreamServer(serve, None, Room())
    await server.listen(address + STREAM_SUFFIX)
    caller = await Caller().connect(address)
    caller.stream.send(server.tickets.give())
    await begun.wait()
    caller.stream.abort()
    closing = asyncio.create_task(server.close())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not ended.is_set()
    assert not closing.done()
    may_end.set()
    await closing
    assert ended.is_set()
    assert not list(folder.iterdir())  # noqa: ASYNC240


async def test_a_live_stores_socket_stays_and_a_dead_ones_is_replaced(folder: Path, start_store: StartStore) -> None:
    store = await start_store(engine="memory")
    path = store.address.removeprefix("unix:") + STREAM_SUFFIX
    second = await start_store(engine="memory", listen=store.address, wait=False)
    with pytest.raises(AddressInUseError, match="cannot listen on unix:"):
        await second.task
    (await let_in(store)).stream.abort()  # by gRPC, too
    await store.stop()
    assert not exists(path)

    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    third = await start_store(engine="memory", listen=store.address)
    (await let_in(third)).stream.abort()
    replace(path)
    await third.stop()
    assert exists(path)
    fourth = await start_store(engine="memory", listen=store.address, wait=False)
    with pytest.raises(AddressInUseError):
        await fourth.task


async def test_streams_are_found_by_the_hello_wherever_they_are(
    start_store: StartStore, link_worker: LinkWorker
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    store = await start_store(engine="memory", listen=f"127.0.0.1:{port}", stream_listen="0.0.0.0:0")
    worker = await link_worker(store.address, framed=True)
    await worker.client.subscribe("news")
    await worker.publish("news", "hello")
    assert (await worker.channel_messages.get())[:2] == ("news", encode("hello"))


def test_the_address_beside_that_of_grpc() -> None:
    assert stream_address("0.0.0.0:7000") == "0.0.0.0:7001"
    assert stream_address("[::1]:7000") == "[::1]:7001"
    assert stream_address("127.0.0.1:0") == "127.0.0.1:0"
    assert stream_address("127.0.0.1:65535") == "127.0.0.1:0"
    assert stream_address("unix:/run/store") == "unix:/run/store.stream"


async def test_a_huge_frame_is_refused_before_it_is_read(start_store: StartStore) -> None:
    store = await start_store(engine="memory")
    caller = await let_in(store)
    assert caller.stream._transport is not None
    caller.stream._transport.write(struct.pack("!BI", 1, rpc.MAX_MESSAGE_BYTES + 1))
    assert await caller.ended is None
