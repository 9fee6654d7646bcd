"""A session's end that a former owner tells late: the next one was asked by then, and said that it is gone."""

from __future__ import annotations

import asyncio

import pytest
from support.store_client.hand_fed import HandFed, sent

from socketcluster_proto.v1 import store_pb2
from socketcluster_store_client import held_sessions
from socketcluster_store_client.link import StoreLink
from socketcluster_store_client.messages import Operation
from socketcluster_store_client.partitioning import partition_of

NUMBER = partition_of("s")


def end(fed: HandFed, link: StoreLink, *, on_purpose: bool = False) -> None:
    event = store_pb2.Event(session_destroyed=store_pb2.SessionDestroyed(session_id="s", on_purpose=on_purpose))
    fed.client.on_reply(link, store_pb2.LinkReply(events=[event]))


async def attached(fed: HandFed, link: StoreLink) -> None:
    fed.announce(link, NUMBER, 3)
    fed.client.attach("s")
    fed.answer(link, *fed.results(sent(link), lambda _operation: True))
    await asyncio.sleep(0)


def says_gone(operation: Operation) -> object:
    return ["s"] if operation.verb == store_pb2.VERB_SESSION_CHECK else False


@pytest.mark.parametrize("has_sockets", [True, False])
async def test_an_end_that_the_next_owner_told_of_is_told_once(has_sockets: bool) -> None:
    fed = HandFed()
    first, second = fed.link(), fed.link()
    await attached(fed, first)
    if not has_sockets:
        fed.client.detach("s")
        fed.answer(first, *fed.results(sent(first), lambda _operation: None))
    fed.announce(second, NUMBER, 4)
    fed.answer(second, *fed.results(sent(second), says_gone))
    assert fed.destroyed == ["s"]
    end(fed, first)
    assert fed.destroyed == ["s"]
    end(fed, second)  # it began anew there, and has ended
    assert fed.destroyed == ["s", "s"]


async def test_an_end_that_is_heard_of_before_the_next_owner_answers_is_told_once() -> None:
    fed = HandFed()
    first, second = fed.link(), fed.link()
    await attached(fed, first)
    fed.announce(second, NUMBER, 4)
    end(fed, first)
    fed.answer(second, *fed.results(sent(second), says_gone))
    assert fed.destroyed == ["s"]


async def test_an_end_that_only_the_former_owner_tells_of_is_told() -> None:
    """The worker never had the session, so the next owner is not asked."""
    fed = HandFed()
    first, second = fed.link(), fed.link()
    fed.announce(first, NUMBER, 3)
    fed.announce(second, NUMBER, 4)
    end(fed, first)
    assert fed.destroyed == ["s"]


@pytest.mark.parametrize("on_purpose", [True, False])
async def test_an_end_that_comes_after_two_changes_of_owner_is_told_once(on_purpose: bool) -> None:
    fed = HandFed()
    first, second, third = fed.link(), fed.link(), fed.link()
    await attached(fed, first)
    fed.announce(second, NUMBER, 4)
    fed.answer(second, *fed.results(sent(second), says_gone))
    assert fed.destroyed == ["s"]
    fed.announce(third, NUMBER, 5)
    end(fed, first, on_purpose=on_purpose)
    assert fed.destroyed == ["s"]
    end(fed, third)  # it began anew
    assert fed.destroyed == ["s", "s"]


async def test_an_end_that_comes_from_who_is_taken_for_the_owner_again_is_told_once() -> None:
    """The next owner's link breaks, and the former one has not said yet that it is no owner any more."""
    fed = HandFed()
    first, second = fed.link(), fed.link()
    await attached(fed, first)
    fed.announce(second, NUMBER, 4)
    fed.answer(second, *fed.results(sent(second), says_gone))
    fed.client.on_broken(second)
    end(fed, first)
    assert fed.destroyed == ["s"]


async def test_an_end_of_a_session_that_began_anew_is_told_though_its_owner_is_a_former_one() -> None:
    fed = HandFed()
    first, second, third = fed.link(), fed.link(), fed.link()
    await attached(fed, first)
    fed.announce(second, NUMBER, 4)
    fed.answer(second, *fed.results(sent(second), says_gone))
    fed.announce(third, NUMBER, 6)
    fed.announce(first, NUMBER, 5)  # it was the owner once more in between
    end(fed, first)
    assert fed.destroyed == ["s", "s"]


async def test_ends_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_sessions, "MAX_GONE", 1)
    fed = HandFed()
    first, second = fed.link(), fed.link()
    await attached(fed, first)
    other = next(name for name in (f"o{number}" for number in range(1000)) if partition_of(name) == NUMBER)
    fed.client.attach(other)
    fed.answer(first, *fed.results(sent(first), lambda _operation: True))
    fed.announce(second, NUMBER, 4)
    fed.answer(second, *fed.results(sent(second), lambda _operation: False))
    assert fed.destroyed == ["s", other]
    assert list(fed.client._routes[NUMBER].sessions._gone) == [other]
