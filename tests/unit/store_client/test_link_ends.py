"""Links that end by themselves: their owner hears of it, so that what was sent is sent again elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.worker.running import until

from socketcluster_proto.v1 import store_pb2, store_pb2_grpc
from socketcluster_runtime import rpc
from socketcluster_store_client.link import StoreLink
from socketcluster_store_client.links import StoreLinks
from socketcluster_store_client.messages import Operation
from socketcluster_store_client.streams.dialing import GrpcDialer

SECRET = "a secret of the tests"


class Owner:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.replies = 0
        self.broken: list[StoreLink] = []

    def on_reply(self, link: StoreLink, reply: store_pb2.LinkReply) -> None:
        self.replies += 1

    def on_broken(self, link: StoreLink) -> None:
        self.broken.append(link)


class Store(store_pb2_grpc.StoreServicer):
    """Announces itself and reads."""

    async def Hello(self, request: Any, context: Any) -> Any:  # noqa: N802
        return store_pb2.HelloReply()

    async def Link(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]  # noqa: N802
        await context.write(store_pb2.LinkReply(announcement=store_pb2.Announcement()))
        async for _ in request_iterator:
            pass


@pytest.fixture
async def address(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    server, _health = rpc.server(SECRET)
    store_pb2_grpc.add_StoreServicer_to_server(Store(), server)
    address = f"unix:{tmp_path_factory.mktemp('s')}/s"
    rpc.listen(server, address)
    await server.start()
    yield address
    await server.stop(None)


async def test_a_link_that_cannot_send_an_operation_begins_anew(address: str) -> None:
    """It would hear its store and never speak, and all that is sent on it would be overdue."""
    owner = Owner()
    link = StoreLink(address, store_pb2.LinkOpen(), owner, GrpcDialer(SECRET, None))
    link.start()
    await until(lambda: owner.replies == 1)
    link.send(Operation(1, keys=("\udc00",)))
    await until(lambda: owner.broken == [link])
    await until(lambda: owner.replies == 2)
    link.send(Operation(2))
    await until(lambda: not link.waiting)
    assert owner.broken == [link]
    await link.close()


async def test_a_link_that_is_to_begin_anew_breaks_once_and_links_again(address: str) -> None:
    owner = Owner()
    link = StoreLink(address, store_pb2.LinkOpen(), owner, GrpcDialer(SECRET, None))
    link.restart()
    link.start()
    await until(lambda: owner.replies == 1)
    link.send(Operation(1))
    link.restart()
    link.restart()
    await until(lambda: owner.replies == 2)
    assert owner.broken == [link]
    assert not link.waiting
    link.send(Operation(2))
    await until(lambda: not link.waiting)
    assert owner.broken == [link]
    await link.close()


async def test_a_link_that_comes_up_while_its_host_goes_is_told_as_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    class Channel:
        async def channel_ready(self) -> None:
            await asyncio.Event().wait()

        async def close(self) -> None:
            pass

    monkeypatch.setattr(rpc, "connect", lambda *_: Channel())
    owner = Owner()
    links = StoreLinks(["dns:///stores:1"], store_pb2.LinkOpen(), owner, GrpcDialer(SECRET, None))
    links._found("dns:///stores:1", ["10.0.0.1:1", "10.0.0.2:1"])
    first, second = links
    links._found("dns:///stores:1", [])
    first.linked = True
    await until(lambda: not links._tasks)
    assert owner.broken == [first]
    assert second not in links
    await links.close()
