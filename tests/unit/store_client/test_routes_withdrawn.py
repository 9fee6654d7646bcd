"""What a worker tells a store by itself, what it takes back or tells no more, and which answer to it counts."""

from __future__ import annotations

import asyncio

import msgspec
from support.store_client.links import HandLink, make_client

from socketcluster_proto.v1 import store_pb2
from socketcluster_store_client.messages import Error, Result
from socketcluster_store_client.partitioning import partition_of

encode = msgspec.msgpack.encode
PARTITION = partition_of("s")


async def test_what_is_told_to_each_owner_does_not_pile_up_for_a_store_that_does_not_read() -> None:
    client = make_client()
    link = HandLink(client)
    link.announce(PARTITION, 1)
    attached = client.attach("s")
    link.write()
    link.announce(PARTITION, 2)
    waiting = link.waiting
    assert waiting == 2  # the attachment that was called, and what each owner is told
    for epoch in range(3, 10):
        link.announce(PARTITION, epoch)
        assert link.waiting == waiting
    sent = link.write()
    assert {(operation.verb, operation.epoch) for operation in sent} == {(store_pb2.VERB_SESSION_ATTACH, 9)}
    assert not attached.done()
    await client.close()
    assert attached.exception() is not None


async def test_what_a_store_calls_invalid_is_not_told_again() -> None:
    client = make_client()
    link = HandLink(client)
    link.announce(PARTITION, 1)
    attached = client.attach("s")
    link.answer(Result(operation.id, encode(False)) for operation in link.write())
    await attached
    link.announce(PARTITION, 2)
    invalid = Error(store_pb2.Error.CODE_INVALID, "no id")
    (told,) = link.write()
    link.answer([Result(told.id, error=invalid)])
    route = client._routes[PARTITION]
    assert not route.untold
    assert not route.tell_again(1000)
    assert link.waiting == 0
    await client.close()


async def test_the_answer_to_a_former_subscription_opens_no_later_one() -> None:
    client = make_client()
    link = HandLink(client)
    link.announce(partition_of("c"), 1)
    told = client.subscribe("c"), client.unsubscribe("c"), client.subscribe("c")
    first, between, last = link.write()
    position = encode({"epoch": 5, "offset": 3, "first": 1})
    link.answer([Result(first.id, position)])
    feed = client._feeds["c"]
    assert feed.opening == last.id
    link.answer([Result(between.id), Result(last.id, position)])
    assert feed.opening is None
    await asyncio.gather(*told)
    await client.close()
