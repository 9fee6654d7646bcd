"""How a link gets its stream: framed ones behave as gRPC's do, and say what keeps them from a store."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs
from support.worker.running import until

from socketcluster_proto.v1 import store_pb2, store_pb2_grpc
from socketcluster_runtime import rpc
from socketcluster_runtime.sockets import framed
from socketcluster_runtime.sockets.framed import FramedStream, FrameError
from socketcluster_store_client.link import StoreLink
from socketcluster_store_client.messages import Operation, decode_operations
from socketcluster_store_client.streams import framed_dialing
from socketcluster_store_client.streams.dialing import StreamEndedError
from socketcluster_store_client.streams.framed_dialing import (
    STREAM_SUFFIX,
    FramedCall,
    FramedDialer,
    reason_of,
    status_of,
)

SECRET = "a secret of the tests"
TICKET = b"the ticket"


class Store(store_pb2_grpc.StoreServicer):
    """Gives tickets, and takes one stream at a time, as the test wants it."""

    def __init__(self) -> None:
        self.ticket = TICKET
        self.received: list[bytes] = []
        self.stream = FramedStream(self.received.append, lambda _reason: None)

    async def Hello(self, request: Any, context: Any) -> Any:  # noqa: N802
        return store_pb2.HelloReply(stream_ticket=self.ticket)

    async def Link(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]  # noqa: N802
        await context.write(store_pb2.LinkReply(announcement=store_pb2.Announcement(store_id="by gRPC")))
        async for _ in request_iterator:
            pass

    def accept(self) -> FramedStream:
        self.stream = FramedStream(self.received.append, lambda _reason: None)
        return self.stream

    @property
    def operations(self) -> list[int]:
        requests = [store_pb2.LinkRequest.FromString(message) for message in self.received[2:]]
        return [operation.id for request in requests for operation in decode_operations(request.operations)]


class Owner:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.replies: list[store_pb2.LinkReply] = []
        self.broken = 0

    def on_reply(self, _link: StoreLink, reply: store_pb2.LinkReply) -> None:
        self.replies.append(reply)
        if reply.results == b"bad":
            raise ZeroDivisionError("a bug")

    def on_broken(self, _link: StoreLink) -> None:
        self.broken += 1


@pytest.fixture
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"unix:{tmp_path_factory.mktemp('s')}/s"


@pytest.fixture
async def store(address: str) -> AsyncIterator[Store]:
    store = Store()
    server, _health = rpc.server(SECRET)
    store_pb2_grpc.add_StoreServicer_to_server(store, server)
    rpc.listen(server, address)
    await server.start()
    path = address.removeprefix("unix:") + STREAM_SUFFIX
    streams = await asyncio.get_running_loop().create_unix_server(store.accept, path)
    yield store
    streams.close()
    store.stream.abort()
    await server.stop(None)


async def linked(address: str, store: Store) -> tuple[StoreLink, Owner]:
    owner = Owner()
    link = StoreLink(address, store_pb2.LinkOpen(worker_id="w"), owner, FramedDialer("app", SECRET, None))
    link.start()
    await until(lambda: len(store.received) == 2)
    assert store.received[0] == TICKET
    assert store_pb2.LinkRequest.FromString(store.received[1]).open.worker_id == "w"
    store.stream.send(store_pb2.LinkReply(announcement=store_pb2.Announcement()).SerializeToString())
    await until(lambda: link.linked)
    return link, owner


async def test_what_is_sent_in_a_turn_is_one_request(address: str, store: Store) -> None:
    with capture_logs() as log:
        link, _owner = await linked(address, store)
        for number in range(3):
            link.send(Operation(number))
        await until(lambda: len(store.received) == 3)
        await link.close()
    assert store.operations == [0, 1, 2]
    assert {line["log_level"] for line in log} == {"debug"}  # the link by gRPC says the same


async def test_operations_keep_their_order_while_the_store_does_not_read(
    address: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(framed, "WRITE_AHEAD", 1000)
    link, _owner = await linked(address, store)
    store.stream.pause_reading()
    for number in range(200):
        link.send(Operation(number, value=bytes(10_000)))
        await asyncio.sleep(0)
    assert link.waiting  # they are not made bytes of before they can be sent
    link.forget([199])
    store.stream.resume_reading()
    number = 200
    while len(store.operations) < 199:
        link.send(Operation(number))
        number += 1
        await asyncio.sleep(0)
    await until(lambda: len(store.operations) == number - 1)
    assert store.operations == [each for each in range(number) if each != 199]
    await link.close()


async def test_a_reply_that_cannot_be_handled_ends_the_stream_as_grpcs(address: str, store: Store) -> None:
    link, owner = await linked(address, store)
    with capture_logs() as log:
        store.stream.send(store_pb2.LinkReply(results=b"bad").SerializeToString())
        store.stream.send(store_pb2.LinkReply(results=b"more").SerializeToString())
        await until(lambda: owner.broken)
    assert [reply.results for reply in owner.replies[1:]] == [b"bad"]
    assert isinstance(next(line["exc_info"] for line in log if line["event"] == "store link failed"), bool | Exception)
    await link.close()


async def test_what_a_store_says_last_is_why(address: str, store: Store) -> None:
    link, owner = await linked(address, store)
    with capture_logs() as log:
        store.stream.end(reason_of(grpc.StatusCode.ALREADY_EXISTS, "another process"))
        await until(lambda: owner.broken)
    assert next(line["status"] for line in log if line["event"] == "store link broke") == "ALREADY_EXISTS"
    await link.close()


async def test_a_store_without_streams_is_linked_by_grpc(address: str, store: Store) -> None:
    store.ticket = b""
    owner = Owner()
    link = StoreLink(address, store_pb2.LinkOpen(), owner, FramedDialer("app", SECRET, None))
    link.start()
    await until(lambda: owner.replies)
    assert owner.replies[0].announcement.store_id == "by gRPC"
    await link.close()


async def test_a_port_that_is_not_reached_is_told_once(address: str) -> None:
    store = Store()
    server, _health = rpc.server(SECRET)
    store_pb2_grpc.add_StoreServicer_to_server(store, server)
    rpc.listen(server, address)
    await server.start()
    dialer = FramedDialer("app", SECRET, None)
    with capture_logs() as log:
        for _ in range(2):
            async with dialer.dial(address) as call:
                assert call is grpc.StatusCode.UNAVAILABLE
    (line,) = log
    assert line["event"] == "the store's port for channels is not reached"
    assert line["store"] == address
    async with FramedDialer("app", "another secret", None).dial(address) as call:
        assert call is grpc.StatusCode.UNAUTHENTICATED
    await server.stop(None)


@pytest.mark.parametrize("is_closed", [True, False])
async def test_a_port_at_which_something_else_listens_is_told_once_and_not_waited_at_for_ever(
    address: str, store: Store, monkeypatch: pytest.MonkeyPatch, is_closed: bool
) -> None:
    monkeypatch.setattr(framed_dialing, "ANSWER_TIMEOUT", 60.0 if is_closed else 0.01)
    dialer = FramedDialer("app", SECRET, None)
    with capture_logs() as log:
        for _ in range(2):
            async with dialer.dial(address) as call:
                assert isinstance(call, FramedCall)
                await until(lambda: store.received)
                if is_closed:
                    store.stream.abort()
                assert await call.serve(lambda _reply: None) is grpc.StatusCode.UNAVAILABLE
            store.received.clear()
    (line,) = log
    assert line["event"] == "the store's port for channels is not reached"
    assert line["error"] == "the connection ends without a word"
    assert "what_to_do" in line


async def test_what_is_no_frame_ends_a_call(address: str, store: Store) -> None:
    async with FramedDialer("app", SECRET, None).dial(address) as call:
        assert isinstance(call, FramedCall)
        serving = asyncio.create_task(call.serve(lambda _reply: None))
        await until(lambda: store.received)
        assert store.stream._transport is not None
        store.stream._transport.write(struct.pack("!BI", 7, 0))
        with pytest.raises(FrameError):
            await serving
        with pytest.raises(StreamEndedError):
            call.write(store_pb2.LinkRequest())


def test_why_a_stream_ended() -> None:
    for status in grpc.StatusCode:
        assert status_of(reason_of(status, "why so")) is status
    for reason in (None, b"", b"what", b"\xff \xff"):
        assert status_of(reason) is grpc.StatusCode.UNAVAILABLE
