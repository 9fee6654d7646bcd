"""When a worker counts as cut off from the stores, and what its log says of operations that fail for that."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import structlog
from support.store_client.links import HandLink, make_client
from support.worker.running import until

from socketcluster_proto.v1 import store_pb2
from socketcluster_store_client.client import StoreClient
from socketcluster_store_client.errors import StoreUnavailableError
from socketcluster_store_client.partitioning import PARTITION_COUNT, partition_of

SOON = 0.05
GET = store_pb2.VERB_GET
CUT_OFF = "this worker does not reach the stores: operations fail"
OVER = "this worker reaches the stores again"
FAILING = "operations on the stores fail"


def announce(client: StoreClient, link: HandLink, numbers: range = range(PARTITION_COUNT), epoch: int = 1) -> None:
    owned = [store_pb2.Ownership(partition=number, epoch=epoch) for number in numbers]
    client.on_reply(link, store_pb2.LinkReply(announcement=store_pb2.Announcement(partitions=owned)))


def lines(log: list[Any], *events: str) -> list[str]:
    return [line["event"] for line in log if line["event"] in (events or (CUT_OFF, OVER, FAILING))]


async def unavailable(client: StoreClient, session_id: str = "s") -> None:
    with pytest.raises(StoreUnavailableError):
        await client.call(GET, session_id=session_id, keys=["key"])


async def test_all_links_are_broken_for_the_timeout() -> None:
    client = make_client(timeout=SOON)
    link = HandLink(client)
    announce(client, link)
    told: list[int] = []
    client.reach.on_change = lambda: told.append(client.reach.unreached)
    with structlog.testing.capture_logs() as log:
        link.break_()
        assert client.reach.unreached == 0
        await until(lambda: client.reach.unreached)
        assert client.reach.unreached == PARTITION_COUNT
        for _ in range(3):
            await unavailable(client)
        assert client.reach.unreached == PARTITION_COUNT
        again = HandLink(client, "b:1")
        announce(client, again, epoch=2)
    assert told == [PARTITION_COUNT, 0]
    assert lines(log) == [CUT_OFF, OVER]
    assert next(line["times"] for line in log if line["event"] == OVER) == 3
    await client.close()


async def test_a_store_that_is_replaced_in_time_is_no_matter() -> None:
    client = make_client()
    link, other = HandLink(client), HandLink(client, "b:1")
    announce(client, link)
    link.break_()
    assert len(client.reach._missing) == PARTITION_COUNT
    announce(client, other, epoch=2)
    assert not client.reach._missing
    assert client.reach.unreached == 0
    await client.close()


async def test_links_that_swallow_everything_are_noticed_by_what_has_no_answer() -> None:
    client = make_client(timeout=SOON)
    link = HandLink(client)
    announce(client, link)
    with structlog.testing.capture_logs() as log:
        await unavailable(client)
        assert client.reach.unreached == PARTITION_COUNT
        link.break_()  # the keepalive has found out
        again = HandLink(client)
        announce(client, again, range(10), epoch=2)
        assert client.reach.unreached == PARTITION_COUNT - 10  # not until then is anything known of the others
        announce(client, again, epoch=3)
        assert client.reach.unreached == 0
    assert lines(log) == [CUT_OFF, OVER]
    await client.close()


def halves(client: StoreClient) -> tuple[HandLink, HandLink, str]:
    """Return the links to two stores with half of the partitions each, and a session that the first one has."""
    first, second = HandLink(client), HandLink(client, "b:1")
    announce(client, first, range(32))
    announce(client, second, range(32, 64))
    return first, second, next(f"s{number}" for number in range(100) if partition_of(f"s{number}") < 32)


async def test_of_several_stores_one_says_nothing() -> None:
    client = make_client(timeout=SOON)
    silent, well, session = halves(client)
    await unavailable(client, session)
    assert client.reach.unreached == 32
    client.on_reply(silent, store_pb2.LinkReply())
    assert client.reach.unreached == 0
    await unavailable(client, session)
    assert client.reach.unreached == 32
    announce(client, well, epoch=2)  # it was replaced, and its link does not know yet
    assert client.reach.unreached == 0
    silent.break_()
    assert client.reach.unreached == 0
    await client.close()


async def test_a_store_that_says_other_things_meanwhile_is_reached() -> None:
    client = make_client(timeout=SOON)
    slow, _, session = halves(client)
    with structlog.testing.capture_logs() as log:
        waiting = asyncio.ensure_future(unavailable(client, session))
        await asyncio.sleep(0)
        client.on_reply(slow, store_pb2.LinkReply())
        await waiting
    assert client.reach.unreached == 0
    assert lines(log) == [FAILING]
    await client.close()


async def test_who_was_not_asked_need_not_answer() -> None:
    client = make_client(timeout=SOON)
    link = HandLink(client)
    announce(client, link, range(1, PARTITION_COUNT))
    await unavailable(client, next(f"s{number}" for number in range(1000) if partition_of(f"s{number}") == 0))
    assert client.reach.unreached == 1
    await client.close()


async def test_some_partitions_without_an_owner() -> None:
    client = make_client(timeout=SOON)
    gone, well = HandLink(client), HandLink(client, "b:1")
    announce(client, gone, range(32))
    announce(client, well, range(32, 64))
    gone.break_()
    await until(lambda: client.reach.unreached)
    assert client.reach.unreached == 32
    announce(client, well, epoch=2)
    assert client.reach.unreached == 0
    await client.close()


async def test_a_partition_that_its_store_cannot_open_is_reached() -> None:
    client = make_client(timeout=SOON)
    link = HandLink(client)
    broken = [store_pb2.Broken(partition=0, reason="its disk is full")]
    owned = [store_pb2.Ownership(partition=number, epoch=1) for number in range(1, PARTITION_COUNT)]
    announcement = store_pb2.Announcement(partitions=owned, broken=broken)
    client.on_reply(link, store_pb2.LinkReply(announcement=announcement))
    assert not client.reach._missing
    assert client.ready
    await client.close()


async def test_what_either_of_two_clients_does_not_reach_is_told_by_the_first() -> None:
    client = make_client(timeout=SOON)
    other = make_client(timeout=SOON, beside=client.reach)
    link, others_link = HandLink(client), HandLink(other)
    announce(client, link)
    announce(other, others_link)
    told: list[int] = []
    client.reach.on_change = lambda: told.append(client.reach.unreached)
    with structlog.testing.capture_logs() as log:
        others_link.break_()
        await until(lambda: client.reach.unreached == PARTITION_COUNT)
        await unavailable(other)
        link.break_()
        await unavailable(client)
        announce(other, HandLink(other, "b:1"), epoch=2)
        assert client.reach.unreached == PARTITION_COUNT
        announce(client, HandLink(client, "b:1"), epoch=2)
    assert told == [PARTITION_COUNT, 0]
    assert lines(log) == [CUT_OFF, OVER]
    assert next(line["times"] for line in log if line["event"] == OVER) == 2
    await other.close()
    await client.close()
