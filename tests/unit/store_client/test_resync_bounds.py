"""What a worker remembers of what no store knows is bounded by what lives, and a new owner is told it in portions."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice

import pytest
from support.store_client.hand_fed import HandFed, sent

from socketcluster_proto.v1 import store_pb2
from socketcluster_store_client import client, resync, routes
from socketcluster_store_client.messages import Error, Operation, Result
from socketcluster_store_client.partitioning import partition_of
from socketcluster_store_client.routes import Route

ATTACH = store_pb2.VERB_SESSION_ATTACH
DETACH = store_pb2.VERB_SESSION_DETACH
CHECK = store_pb2.VERB_SESSION_CHECK
UNSUBSCRIBE = store_pb2.VERB_CHANNEL_UNSUBSCRIBE
NUMBER = 7


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "MAX_OVER", 20)
    monkeypatch.setattr(routes, "TOLD_TO_NEW_OWNER", 4)
    monkeypatch.setattr(resync, "RETRY_PAUSE", 3600)  # the tests ask for each portion
    monkeypatch.setattr(resync, "TOLD_AT_ONCE", 6)


def names() -> Iterator[str]:
    return (name for name in map("n{}".format, count()) if partition_of(name) == NUMBER)


def route_of(fed: HandFed) -> Route:
    return fed.client._routes[NUMBER]


def come_and_go(fed: HandFed, monkeypatch: pytest.MonkeyPatch, sessions: list[str]) -> None:
    """Have sessions come and go while nothing can be sent."""
    with monkeypatch.context() as patch:
        patch.setattr(client, "MAX_PENDING", 0)
        for name in sessions:
            fed.client.attach(name).exception()
            fed.client.detach(name).exception()


def told(operations: list[Operation]) -> list[tuple[int, str]]:
    return [(operation.verb, operation.session_id or operation.name) for operation in operations]


async def test_sessions_that_came_and_went_without_a_store_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    fed = HandFed()
    sessions = list(islice(names(), 500))
    stay, go = sessions[:5], sessions[5:]
    with monkeypatch.context() as patch:
        patch.setattr(client, "MAX_PENDING", 0)
        for name in stay:
            fed.client.attach(name).exception()
    come_and_go(fed, monkeypatch, go)
    route = route_of(fed)
    assert len(route.untold) <= 20
    assert len(route.sessions.states) <= 25
    link = fed.link()
    fed.announce(link, NUMBER, 3)
    operations = sent(link)
    assert told(operations)[:5] == [(ATTACH, name) for name in stay]
    seen = told(operations)[5:]
    while route.untold:
        fed.answer(link, *fed.results(operations, lambda _operation: True))
        fed.client._untold._on_timer()
        operations = sent(link)
        seen += told(operations)
    fed.answer(link, *fed.results(operations, lambda _operation: True))
    assert 10 <= len(seen) <= 20
    assert seen == [(DETACH, name) for name in go[-len(seen) :]]  # the last ones
    assert sorted(route.sessions.states) == sorted(stay)


async def test_channels_that_were_left_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    fed = HandFed()
    with monkeypatch.context() as patch:
        patch.setattr(client, "MAX_PENDING", 0)
        for name in islice(names(), 300):
            fed.client.subscribe(name).exception()
            fed.client.unsubscribe(name).exception()
    assert len(route_of(fed).untold) <= 20
    assert route_of(fed).channels == {}


async def test_a_session_that_a_store_said_to_exist_is_asked_for_though_its_detachment_was_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fed = HandFed()
    known, *others = islice(names(), 200)
    first, second = fed.link(), fed.link()
    fed.announce(first, NUMBER, 3)
    fed.client.attach(known)
    fed.answer(first, *fed.results(sent(first), lambda _operation: True))
    fed.client.on_broken(first)
    come_and_go(fed, monkeypatch, [known, *others])
    fed.announce(second, NUMBER, 4)
    operations = sent(second)
    assert operations[0].verb == CHECK
    assert known not in [name for _verb, name in told(operations)]
    fed.answer(second, *fed.results(operations[:1], lambda _operation: [known]))
    assert fed.destroyed == [known]


async def test_an_owner_that_refuses_all_is_told_what_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is here is never forgotten, however much is over."""
    fed = HandFed()
    link = fed.link()
    fed.announce(link, NUMBER, 3)
    sessions = list(islice(names(), 200))
    full = Error(store_pb2.Error.CODE_INTERNAL, "the disk is full", "")
    for name in sessions:
        fed.client.attach(name).add_done_callback(lambda done: done.exception())
        if name in sessions[50:]:
            fed.client.detach(name).add_done_callback(lambda done: done.exception())
        fed.answer(link, *[Result(operation.id, b"", full) for operation in sent(link)])
    route = route_of(fed)
    assert route.attached_sessions() == sessions[:50]
    assert len(route.untold) <= 50 + 20
    for _ in range(20):
        fed.client._untold._on_timer()
        fed.answer(link, *fed.results(sent(link), lambda _operation: True))
    assert not route.untold
    assert sorted(route.sessions.states) == sorted(sessions[:50])


async def test_without_an_owner_only_what_is_over_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    fed = HandFed()
    with monkeypatch.context() as patch:
        patch.setattr(client, "MAX_PENDING", 0)
        for name in islice(names(), 5):
            fed.client.attach(name).exception()
    assert not route_of(fed).untold
    assert fed.client._untold._timer is None
