"""What a store refused to know of a worker, or did not answer: it is told again until the owner knows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.log import written
from support.store_client.hand_fed import HandFed, sent
from support.worker.running import until

from socketcluster_proto.v1 import store_pb2
from socketcluster_store_client import client, resync
from socketcluster_store_client.errors import InvalidOperationError, LinkError, StoreUnavailableError
from socketcluster_store_client.link import StoreLink
from socketcluster_store_client.messages import Error, Operation, Result
from socketcluster_store_client.partitioning import partition_of
from socketcluster_store_client.routes import Route

ATTACH = store_pb2.VERB_SESSION_ATTACH
DETACH = store_pb2.VERB_SESSION_DETACH
CHECK = store_pb2.VERB_SESSION_CHECK
RENEW = store_pb2.VERB_SESSION_RENEW
SUBSCRIBE = store_pb2.VERB_CHANNEL_SUBSCRIBE
UNSUBSCRIBE = store_pb2.VERB_CHANNEL_UNSUBSCRIBE
WATCH = store_pb2.VERB_WATCH
UNWATCH = store_pb2.VERB_UNWATCH
NUMBER = partition_of("s")
RENEWED = next(name for name in (f"renewed{number}" for number in range(1000)) if partition_of(name) == NUMBER)
CHANNEL = next(name for name in (f"c{number}" for number in range(1000)) if partition_of(name) == NUMBER)
POSITION = {"epoch": 1000, "offset": 0, "first": 1}
INTERNAL = Error(store_pb2.Error.CODE_INTERNAL, "the disk is full", "")
OVER = Error(store_pb2.Error.CODE_SESSION_OVER, "the session was renewed or ended", "")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resync, "RETRY_PAUSE", 0.001)


@pytest.fixture
def fed() -> HandFed:
    return HandFed()


@pytest.fixture
async def link(fed: HandFed) -> StoreLink:  # it has the loop's timers
    link = fed.link()
    fed.announce(link, NUMBER, 3)
    return link


def route_of(fed: HandFed) -> Route:
    return fed.client._routes[NUMBER]


async def next_sent(link: StoreLink) -> list[Operation]:
    """Return what a link sends next, once there is something."""
    await until(lambda: link.waiting)
    return sent(link)


async def told(fed: HandFed, link: StoreLink) -> tuple[int, str]:
    """Return the state that is told next, and answer it."""
    (operation,) = await next_sent(link)
    answer = POSITION if operation.verb == SUBSCRIBE else True
    fed.answer(link, *fed.results([operation], lambda _operation: answer))
    return operation.verb, operation.session_id or operation.name


async def nothing_more(link: StoreLink) -> None:
    await asyncio.sleep(0.02)
    assert link.waiting == 0


def refuse(monkeypatch: pytest.MonkeyPatch, called: Any, *args: Any) -> asyncio.Future[bytes]:
    """Call something while too many operations wait for the stores."""
    with monkeypatch.context() as patch:
        patch.setattr(client, "MAX_PENDING", 0)
        future: asyncio.Future[bytes] = called(*args)
    assert isinstance(future.exception(), StoreUnavailableError)
    return future


async def test_an_attachment_that_could_not_be_sent(
    fed: HandFed, link: StoreLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, fed.client.attach, "s")
    assert await told(fed, link) == (ATTACH, "s")
    await nothing_more(link)


async def test_a_detachment_that_could_not_be_sent(
    fed: HandFed, link: StoreLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    attached = fed.client.attach("s")
    assert await told(fed, link) == (ATTACH, "s")
    await attached
    refuse(monkeypatch, fed.client.detach, "s")
    assert await told(fed, link) == (DETACH, "s")
    await nothing_more(link)


async def test_what_a_store_refuses_is_told_until_it_takes_it(fed: HandFed, link: StoreLink) -> None:
    attached = fed.client.attach("s")
    for _ in range(3):
        (operation,) = await next_sent(link)
        assert operation.verb == ATTACH
        fed.answer(link, Result(operation.id, b"", INTERNAL))
    with pytest.raises(LinkError, match="the disk is full"):
        await attached
    assert await told(fed, link) == (ATTACH, "s")
    await nothing_more(link)


async def test_what_is_not_answered_in_time() -> None:
    fed = HandFed(timeout=0.01)
    link = fed.link()
    fed.announce(link, NUMBER, 3)
    attached = fed.client.attach("s")
    (lost,) = sent(link)
    with pytest.raises(StoreUnavailableError):
        await attached
    assert await told(fed, link) == (ATTACH, "s")
    fed.answer(link, *fed.results([lost], lambda _operation: True))  # late
    await nothing_more(link)


async def test_the_last_state_is_told_not_the_one_that_was_refused(
    fed: HandFed, link: StoreLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, fed.client.attach, "s")
    refuse(monkeypatch, fed.client.detach, "s")
    refuse(monkeypatch, fed.client.attach, "t")
    assert await told(fed, link) == (DETACH, "s")
    assert "s" not in route_of(fed).sessions.states  # nothing will ever tell of its end
    await nothing_more(link)


async def test_a_detachment_follows_a_session_that_is_renewed(
    fed: HandFed, link: StoreLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed.client.attach("s")
    assert await told(fed, link) == (ATTACH, "s")
    refuse(monkeypatch, fed.client.detach, "s")
    fed.client.session_renewed("s", RENEWED)
    assert await told(fed, link) == (DETACH, RENEWED)
    assert await told(fed, link) == (DETACH, "s")
    await nothing_more(link)


async def test_an_attachment_that_came_while_the_session_was_renewed(fed: HandFed, link: StoreLink) -> None:
    """If the renewal fails after all, the store has to know of it."""
    renewing = fed.client.call(RENEW, session_id="s", name=RENEWED)
    fed.client.attach("s")
    renew, attach = await next_sent(link)
    fed.answer(link, Result(attach.id, b"", OVER))
    (again,) = await next_sent(link)
    assert (again.verb, again.session_id) == (ATTACH, "s")
    fed.answer(link, Result(again.id, b"", OVER), Result(renew.id, b"", INTERNAL))
    assert await told(fed, link) == (ATTACH, "s")
    assert isinstance(renewing.exception(), LinkError)
    assert route_of(fed).attached_sessions() == ["s"]


async def test_an_attachment_to_a_session_that_is_over_is_not_told_again(fed: HandFed, link: StoreLink) -> None:
    fed.client.attach("s").add_done_callback(lambda done: done.exception())
    (operation,) = await next_sent(link)
    fed.answer(link, Result(operation.id, b"", OVER))
    await nothing_more(link)
    assert route_of(fed).sessions.states == {}


async def test_what_can_never_be_taken_is_not_told_again(fed: HandFed, link: StoreLink) -> None:
    attached = fed.client.attach("s")
    (operation,) = await next_sent(link)
    fed.answer(link, Result(operation.id, b"", Error(store_pb2.Error.CODE_INVALID, "too long", "")))
    with pytest.raises(InvalidOperationError):
        await attached
    await nothing_more(link)


async def test_a_session_that_ends_under_its_sockets_is_attached_again(fed: HandFed, link: StoreLink) -> None:
    fed.client.attach("s")
    assert await told(fed, link) == (ATTACH, "s")
    event = store_pb2.Event(session_destroyed=store_pb2.SessionDestroyed(session_id="s"))
    fed.client.on_reply(link, store_pb2.LinkReply(events=[event]))
    assert fed.destroyed == ["s"]
    assert await told(fed, link) == (ATTACH, "s")
    assert fed.destroyed == ["s"]


async def test_a_session_that_was_ended_on_purpose_is_let_go_of(fed: HandFed, link: StoreLink) -> None:
    fed.client.attach("s")
    assert await told(fed, link) == (ATTACH, "s")
    event = store_pb2.Event(session_destroyed=store_pb2.SessionDestroyed(session_id="s", on_purpose=True))
    fed.client.on_reply(link, store_pb2.LinkReply(events=[event]))
    assert route_of(fed).untold == {}
    assert route_of(fed).sessions.states == {}


async def test_a_subscription_whose_subscriber_stays(fed: HandFed, link: StoreLink) -> None:
    subscribed = fed.client.subscribe(CHANNEL)
    (operation,) = await next_sent(link)
    fed.answer(link, Result(operation.id, b"", INTERNAL))
    assert isinstance(subscribed.exception(), LinkError)
    assert await told(fed, link) == (SUBSCRIBE, CHANNEL)
    fed.tell(link, CHANNEL, "a1", 1, 1000)
    assert fed.messages == [("a1", 1, 1000)]
    await nothing_more(link)


async def test_a_subscription_that_another_one_opened_is_not_told_again(fed: HandFed, link: StoreLink) -> None:
    fed.client.subscribe(CHANNEL)
    first, second = fed.client.subscribe(CHANNEL), await next_sent(link)
    fed.answer(link, *fed.results(second[:1], lambda _operation: POSITION))
    fed.answer(link, Result(second[1].id, b"", INTERNAL))
    assert isinstance(first.exception(), LinkError)
    await nothing_more(link)


async def test_a_subscription_that_is_told_again_while_the_next_one_is_under_way(
    fed: HandFed, link: StoreLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The subscriber gets what comes after the answer to its own one, which says where the channel was then."""
    fed.client.subscribe(CHANNEL)
    assert await told(fed, link) == (SUBSCRIBE, CHANNEL)
    refuse(monkeypatch, fed.client.unsubscribe, CHANNEL)
    subscribed = fed.client.subscribe(CHANNEL)
    fed.client._untold._on_timer()
    own, again = sent(link)
    fed.answer(link, *fed.results([own], lambda _operation: POSITION))
    assert subscribed.done()
    fed.tell(link, CHANNEL, "a1", 1, 1000)
    fed.answer(link, *fed.results([again], lambda _operation: POSITION | {"offset": 1, "first": 2}))
    fed.tell(link, CHANNEL, "a2", 2, 1000)
    assert fed.messages == [("a1", 1, 1000), ("a2", 2, 1000)]
    assert fed.gaps == []


async def test_an_unsubscription(fed: HandFed, link: StoreLink, monkeypatch: pytest.MonkeyPatch) -> None:
    fed.client.subscribe(CHANNEL)
    assert await told(fed, link) == (SUBSCRIBE, CHANNEL)
    refuse(monkeypatch, fed.client.unsubscribe, CHANNEL)
    assert await told(fed, link) == (UNSUBSCRIBE, CHANNEL)
    await nothing_more(link)


async def test_an_unwatching(fed: HandFed, link: StoreLink, monkeypatch: pytest.MonkeyPatch) -> None:
    fed.client.watch("s", ("k",), b"tag")
    assert await told(fed, link) == (WATCH, "s")
    refuse(monkeypatch, fed.client.unwatch, "s", ("k",))
    (operation,) = await next_sent(link)
    assert (operation.verb, operation.session_id, operation.keys) == (UNWATCH, "s", ("k",))


async def test_a_check_that_is_refused_is_asked_again(fed: HandFed, link: StoreLink) -> None:
    """A session that nobody tells of any more would be known for ever."""
    fed.client.attach("s")
    fed.client.detach("s")
    fed.answer(link, *fed.results(sent(link), lambda _operation: True))
    await asyncio.sleep(0)
    other = fed.link()
    fed.announce(other, NUMBER, 4)
    (check,) = sent(other)
    assert check.verb == CHECK
    fed.answer(other, Result(check.id, b"", INTERNAL))
    (again,) = await next_sent(other)
    assert (again.verb, again.value) == (CHECK, check.value)
    fed.answer(other, *fed.results([again], lambda _operation: ["s"]))
    assert fed.destroyed == ["s"]
    assert route_of(fed).sessions.states == {}


async def test_the_next_owner_is_told_what_the_former_one_did_not_take(
    fed: HandFed, link: StoreLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even that something is over: it may be the same store, on the same link."""
    fed.client.attach("s")
    assert await told(fed, link) == (ATTACH, "s")
    fed.announce(link, NUMBER, 0)
    refuse(monkeypatch, fed.client.detach, "s")
    refuse(monkeypatch, fed.client.attach, RENEWED)
    await nothing_more(link)  # nobody is there to be told
    fed.announce(link, NUMBER, 5)
    assert [(each.verb, each.session_id) for each in sent(link)] == [
        (ATTACH, RENEWED), (CHECK, ""), (DETACH, "s"),
    ]  # fmt: skip
    await nothing_more(link)


async def test_a_detachment_that_is_under_way_when_the_owner_changes(
    fed: HandFed, link: StoreLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, fed.client.detach, "s")
    (operation,) = await next_sent(link)
    assert operation.verb == DETACH
    fed.announce(link, NUMBER, 5)
    assert await told(fed, link) == (DETACH, "s")
    await nothing_more(link)


async def test_many_are_told_in_portions_and_named_together(
    fed: HandFed, link: StoreLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resync, "RETRY_PAUSE", 3600)
    monkeypatch.setattr(resync, "TOLD_AT_ONCE", 4)
    names = [name for name in (f"n{number}" for number in range(2000)) if partition_of(name) == NUMBER][:10]
    with written("json") as log:
        for name in names:
            refuse(monkeypatch, fed.client.attach, name)
        assert log.text.count("told again") == 1  # the next line would come a second later, and say how many
    seen: list[str] = []
    for expected in (4, 4, 2, 0):
        fed.client._untold._on_timer()
        operations = sent(link)
        assert len(operations) == expected
        assert (fed.client._untold._timer is not None) == (len(seen) + expected < 10)
        fed.answer(link, *fed.results(operations, lambda _operation: True))
        seen += [operation.session_id for operation in operations]
    assert seen == names


async def test_what_is_told_does_not_pile_up_for_a_store_that_does_not_answer(
    fed: HandFed, link: StoreLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resync, "RETRY_PAUSE", 3600)
    monkeypatch.setattr(resync, "TOLD_AT_ONCE", 4)
    said = []
    for _ in range(5):
        for name in ("s", *(name for name in (f"n{number}" for number in range(200)) if partition_of(name) == NUMBER)):
            refuse(monkeypatch, fed.client.attach, name)
        fed.client._untold._on_timer()
        said += sent(link)
    assert len(said) == 4
    fed.answer(link, *fed.results(said[:1], lambda _operation: True))
    fed.client._untold._on_timer()
    assert len(sent(link)) == 1


async def test_what_is_refused_for_a_moment_is_told_soon_and_for_long_at_growing_pauses(
    fed: HandFed, link: StoreLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resync, "RETRY_PAUSE", 3600)
    states = fed.client._untold
    pauses = []
    for _ in range(6):
        refuse(monkeypatch, fed.client.attach, "s")
        pauses.append(states._pause)
        states._on_timer()
        sent(link)
    assert pauses == [360, 720, 1440, 2880, 3600, 3600]
    states._told_at -= 3 * 3600
    refuse(monkeypatch, fed.client.attach, "s")
    assert states._pause == 360


async def test_a_closed_client_tells_nothing(fed: HandFed, link: StoreLink, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, fed.client.attach, "s")
    await fed.client.close()
    await nothing_more(link)


async def test_answers_to_both_tellings_of_an_attachment_count_in_their_order(
    fed: HandFed, link: StoreLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one says that the session is new, the second one that it exists: the other way round it had ended."""
    refuse(monkeypatch, fed.client.detach, "s")
    attached = fed.client.attach("s")
    fed.client._untold._on_timer()
    operations = sent(link)
    assert [operation.verb for operation in operations] == [ATTACH, ATTACH]
    fed.answer(link, *fed.results(operations, lambda operation: operation is operations[1]))
    await attached
    await asyncio.sleep(0)
    assert fed.destroyed == []


async def test_an_attachment_counts_though_its_caller_is_gone(fed: HandFed, link: StoreLink) -> None:
    fed.client.attach("s").cancel()
    assert await told(fed, link) == (ATTACH, "s")
    fed.client.detach("s").cancel()
    assert await told(fed, link) == (DETACH, "s")
    fed.announce(link, NUMBER, 4)
    assert [operation.verb for operation in sent(link)] == [CHECK]  # its end is still to be heard of
