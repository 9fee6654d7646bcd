"""One partition's operations on their way to its owner, over links that send when the test wants it."""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Iterator

from socketcluster_proto.v1 import store_pb2
from socketcluster_store_client.client import StoreClient
from socketcluster_store_client.link import StoreLink
from socketcluster_store_client.messages import Error, Operation, Result
from socketcluster_store_client.partitioning import partition_of
from socketcluster_store_client.routes import Pending, Route
from socketcluster_store_client.streams.dialing import GrpcDialer

ATTACH = store_pb2.VERB_SESSION_ATTACH


class Nobody:
    """Is told of nothing."""

    def on_reply(self, link: StoreLink, reply: store_pb2.LinkReply) -> None:
        raise AssertionError(reply)

    def on_broken(self, link: StoreLink) -> None:
        raise AssertionError(link)


def make_link() -> StoreLink:
    return StoreLink("somewhere:1", store_pb2.LinkOpen(), Nobody(), GrpcDialer("a secret of the tests", None))


def sent(link: StoreLink) -> list[int]:
    """Have a link send what waits; return the ids."""
    return [operation.id for operation in link._gather()]


def pending(operation_id: int) -> Pending:
    return Pending(Operation(operation_id), asyncio.get_running_loop().create_future(), 0.0)


class Ids(list[int]):
    """Ids that count how often it is asked whether one is among them."""

    asked = 0

    def __contains__(self, item: object) -> bool:
        Ids.asked += 1
        return super().__contains__(item)

    def __iter__(self) -> Iterator[int]:
        for item in super().__iter__():
            Ids.asked += 1
            yield item


async def test_what_waits_on_the_link_to_a_former_owner_is_not_sent_before_others() -> None:
    route = Route(0, itertools.count(100), {}, lambda _: None)
    first, second = make_link(), make_link()
    route.announced(first, 1)
    route.dispatch(pending(1))
    assert sent(first) == [1]
    route.dispatch(pending(2))
    route.dispatch(pending(3))
    route.announced(second, 2)  # before the first link has sent the others
    assert first.waiting == 0
    assert sent(second) == [1, 2, 3]
    route.lost(second)
    route.announced(first, 3)  # the partition comes back
    assert sent(first) == [1, 2, 3]


async def test_a_store_is_told_who_has_a_renewed_session() -> None:
    """It gave the new id to who had the old one: not to whom that was on its way to, but to whom it was given back."""
    client = StoreClient(
        ["somewhere:1"],
        worker_id="worker01",
        app_name="socketcluster",
        secret="a secret of the tests",
        on_session_message=lambda *_: None,
        on_session_destroyed=lambda _: None,
        on_channel_message=lambda *_: None,
    )
    came, come, left, gone, *unknown = [f"s{n}" for n in range(1000) if partition_of(f"s{n}") == 0][:6]
    answers = [client.attach(came), client.attach(left), client.detach(left)]
    for old, new in ((came, come), (left, gone), unknown):
        client.session_renewed(old, new)
        client.session_renewed(old, new)  # the one who renewed it hears of it twice
    route = client._routes[0]
    operations = [(each.operation.verb, each.operation.session_id) for each in route.parked.values()]
    assert operations[3:] == [(ATTACH, come), (store_pb2.VERB_SESSION_DETACH, gone)]
    assert route.attached_sessions() == [come]
    await client.close()
    assert len(await asyncio.gather(*answers, return_exceptions=True)) == 3


async def test_a_renewal_that_a_store_did_before_it_died_is_no_end() -> None:
    """The next one refuses the old id, which is attached there first, and then answers the renewal."""
    over: list[str] = []
    renewing: dict[int, Route] = {}
    route = Route(0, itertools.count(100), renewing, lambda _: None, over.append)
    first, second = make_link(), make_link()
    route.announced(first, 1)
    route.sessions.attach("renewed")
    route.sessions.attach("ended")
    route.dispatch(Pending(Operation(1, store_pb2.VERB_SESSION_RENEW, session_id="renewed"), pending(1).future, 0.0))
    route.announced(second, 2)
    refused = [operation.id for operation in second._gather() if operation.verb == ATTACH]
    assert len(refused) == 2
    for operation_id in refused:
        route.renewed(second, Result(operation_id, error=Error(store_pb2.Error.CODE_SESSION_OVER, "over")))
    assert over == ["ended"]
    assert route.sessions.renewed("renewed", "new")
    assert route.attached_sessions() == ["new"]


async def test_each_operation_says_how_far_behind_the_first_unanswered_one_is() -> None:
    route = Route(0, itertools.count(100), {}, lambda _: None)
    route.announced(make_link(), 1)
    operations = [pending(number) for number in range(1, 6)]
    for operation in operations[:4]:
        route.dispatch(operation)
    route.in_flight.pop(3)
    route.in_flight.pop(1)
    route.dispatch(operations[4])
    assert [each.operation.behind for each in operations] == [0, 1, 2, 3, 3]
    # the first key of a dict is found past all that were taken away before it; no count shows that
    assert isinstance(route.in_flight, OrderedDict)


def test_what_is_overdue_is_withdrawn_without_a_look_at_what_else_waits() -> None:
    link = make_link()
    for number in range(1000):
        link.send(Operation(number))
    Ids.asked = 0
    for number in range(0, 1000, 2):
        link.forget(Ids([number]))
    assert Ids.asked == 500
    assert sent(link) == list(range(1, 1000, 2))
