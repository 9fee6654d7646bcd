"""A partition that its store is to own and cannot open, as a worker knows it."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from support.store_client.links import HandLink, make_client

from socketcluster_proto.v1 import store_pb2
from socketcluster_store_client.client import StoreClient
from socketcluster_store_client.errors import PartitionUnavailableError
from socketcluster_store_client.messages import Result
from socketcluster_store_client.partitioning import partition_of

PARTITION = partition_of("s")


@pytest.fixture
async def client() -> StoreClient:
    return make_client()


def say_broken(client: StoreClient, link: HandLink) -> None:
    broken = store_pb2.Broken(partition=PARTITION, reason="the disk is full")
    announcement = store_pb2.Announcement(store_id=link.address, broken=[broken])
    client.on_reply(link, store_pb2.LinkReply(announcement=announcement))


def get(client: StoreClient) -> asyncio.Future[bytes]:
    return client.call(store_pb2.VERB_GET, session_id="s", keys=["k"])


async def test_nobody_refuses_for_a_store_whose_link_broke(client: StoreClient) -> None:
    link = HandLink(client)
    say_broken(client, link)
    with pytest.raises(PartitionUnavailableError, match="the disk is full"):
        await get(client)
    link.break_()
    waiting = get(client)
    assert not waiting.done()
    other = HandLink(client, "b:1")
    other.announce(PARTITION, 1)
    assert [operation.verb for operation in other.write()] == [store_pb2.VERB_GET]
    await client.close()
    assert waiting.exception() is not None


async def test_what_could_not_be_said_is_said_when_it_opens(client: StoreClient) -> None:
    link = HandLink(client)
    link.announce(PARTITION, 1)
    told = client.attach("s"), client.watch("s", ("k",), b"tag")
    link.answer(Result(operation.id, msgspec.msgpack.encode(False)) for operation in link.write())
    await asyncio.gather(*told)
    say_broken(client, link)
    for refused in (client.detach("s"), client.unwatch("s", ("k",))):
        with pytest.raises(PartitionUnavailableError):
            await refused
    link.announce(PARTITION, 2)
    said = {operation.verb for operation in link.write()}
    assert said >= {store_pb2.VERB_SESSION_DETACH, store_pb2.VERB_UNWATCH}
    await client.close()


async def test_a_watch_that_was_refused_is_not_begun_when_it_opens(client: StoreClient) -> None:
    """Who asked for it was told that there is none."""
    link = HandLink(client)
    say_broken(client, link)
    with pytest.raises(PartitionUnavailableError):
        await client.watch("s", ("k",), b"tag")
    link.announce(PARTITION, 1)
    assert store_pb2.VERB_WATCH not in {operation.verb for operation in link.write()}
    await client.close()
