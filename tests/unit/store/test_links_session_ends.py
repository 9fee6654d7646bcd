"""Ends of sessions among the answers on a link: a worker takes the results of a reply before its events."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.store_client.links import HandLink, make_client

from socketcluster_proto.v1 import store_pb2
from socketcluster_store import links
from socketcluster_store.links import WorkerLink, pack_event
from socketcluster_store_client.messages import Result, decode_results, encode_results
from socketcluster_store_client.partitioning import partition_of

TRUE, FALSE = b"\xc3", b"\xc2"
DESTROYED = store_pb2.Event(session_destroyed=store_pb2.SessionDestroyed(session_id="s"))
RENEWED = store_pb2.Event(session_renewed=store_pb2.SessionRenewed(session_id="s", renewed_id="r"))
MESSAGE = store_pb2.Event(channel_message=store_pb2.ChannelMessage(channel="c"))


@pytest.fixture
async def link() -> WorkerLink:
    return WorkerLink("worker", "incarnation", 64 << 20)


def replies(link: WorkerLink) -> list[tuple[list[int], list[Any]]]:
    """Return, of each reply, its results' ids and its events' kinds."""
    sent: list[tuple[list[int], list[Any]]] = []
    while link._items:
        packed, size, answer_size = link._gather()
        link._bytes -= size
        link._answer_bytes -= answer_size
        reply = store_pb2.LinkReply.FromString(packed)
        results = decode_results(reply.results) if reply.results else []
        sent.append(([result.id for result in results], [event.WhichOneof("kind") for event in reply.events]))
    assert link._bytes == link._answer_bytes == 0
    return sent


def fill(link: WorkerLink, *items: int | store_pb2.Event) -> None:
    for item in items:
        if isinstance(item, int):
            link.answer([Result(item, TRUE)])
        else:
            link.tell(pack_event(item))


@pytest.mark.parametrize("event", [DESTROYED, RENEWED])
async def test_results_after_a_session_s_end_come_after_it(link: WorkerLink, event: store_pb2.Event) -> None:
    kind = event.WhichOneof("kind")
    fill(link, 1, MESSAGE, 2, event, event, MESSAGE, 3, 4, event)
    assert replies(link) == [
        ([1, 2], ["channel_message", kind, kind, "channel_message"]),
        ([3, 4], [kind]),
    ]
    fill(link, 5, MESSAGE, 6)
    assert replies(link) == [([5, 6], ["channel_message"])]


async def test_an_announcement_after_a_session_s_end_comes_after_it(link: WorkerLink) -> None:
    """It tells that the ownership has ended in which the session did: the worker has to know which one that was."""
    fill(link, 1, DESTROYED)
    link.announce(store_pb2.Announcement(store_id="store"))
    fill(link, MESSAGE)
    gathered = [store_pb2.LinkReply.FromString(link._gather()[0]) for _ in range(2)]
    assert [reply.HasField("announcement") for reply in gathered] == [False, True]
    assert [len(reply.events) for reply in gathered] == [1, 1]


async def test_many_ends_share_a_reply(link: WorkerLink) -> None:
    fill(link, *[DESTROYED] * 25_000, 1)
    first, second = replies(link)
    assert (len(first[1]), second) == (25_000, ([1], []))


async def test_results_after_an_end_wait_in_large_replies_too(
    link: WorkerLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "REPLY_BYTES", 100)
    fill(link, 1, 2, DESTROYED, 3, MESSAGE, 4, DESTROYED, 5)
    sent = replies(link)
    assert [number for numbers, _ in sent for number in numbers] == [1, 2, 3, 4, 5]
    ended = [place for place, (_, kinds) in enumerate(sent) if "session_destroyed" in kinds]
    where = {number: place for place, (numbers, _) in enumerate(sent) for number in numbers}
    assert where[2] <= ended[0] < where[3]
    assert where[4] <= ended[1] < where[5]


async def test_an_end_is_told_once_though_the_session_is_attached_anew(link: WorkerLink) -> None:
    """The store ended the session while the worker's link was down, and the worker has sockets of it."""
    destroyed: list[str] = []
    partition = partition_of("s")
    client = make_client(on_session_destroyed=destroyed.append)
    store = HandLink(client)
    store.announce(partition, 3)
    client.attach("s")
    store.answer([Result(operation.id, TRUE) for operation in store.write()])
    await asyncio.sleep(0)
    store.break_()
    store.announce(partition, 3)
    (attach,) = store.write()
    fill(link, DESTROYED)
    link.answer([Result(attach.id, FALSE)])
    while link._items:
        store.reply(link._gather()[0])
    assert destroyed == ["s"]
    store.break_()
    store.announce(partition, 3)
    (attach,) = store.write()
    store.reply(store_pb2.LinkReply(results=encode_results([Result(attach.id, FALSE)])).SerializeToString())
    assert destroyed == ["s", "s"]  # that one ended unheard
