"""Operations that are sent more than once: none is changed, and each answer counts for its own sending."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from support.store_client.links import HandLink, make_client

from socketcluster_proto.v1 import store_pb2
from socketcluster_store_client.client import StoreClient
from socketcluster_store_client.errors import StoreUnavailableError
from socketcluster_store_client.messages import Error, Operation, Result, encode_results
from socketcluster_store_client.partitioning import partition_of
from socketcluster_store_client.routes import clock

ADD, GET = store_pb2.VERB_ADD, store_pb2.VERB_GET
PARTITION = partition_of("s")
encode = msgspec.msgpack.encode


def add(client: StoreClient, value: object = 1) -> asyncio.Future[bytes]:
    return client.call(ADD, session_id="s", keys=["list"], value=encode(value))


def refused(operations: list[Operation]) -> list[Result]:
    return [
        Result(operation.id, error=Error(store_pb2.Error.CODE_NOT_OWNER, "not this store")) for operation in operations
    ]


def answers(operations: list[Operation], value: object) -> list[Result]:
    return [Result(operation.id, encode(value)) for operation in operations]


def epochs(operations: list[Operation]) -> list[tuple[int, int]]:
    return [(operation.id, operation.epoch) for operation in operations]


@pytest.fixture
async def client() -> StoreClient:
    return make_client()


async def test_an_operation_that_a_link_has_is_not_changed(client: StoreClient) -> None:
    first, second = HandLink(client, "a:1"), HandLink(client, "b:1")
    first.announce(PARTITION, 3)
    add(client), add(client)
    held = list(first._outbox.values())
    seen = [msgspec.structs.replace(operation) for operation in held]
    second.announce(PARTITION, 4)
    again = list(second._outbox.values())
    assert held == seen  # though the link may have none of them any more
    assert epochs(again) == [(1, 4), (2, 4)]
    second.announce(PARTITION, 5)
    assert epochs(again) == [(1, 4), (2, 4)]
    assert [operation.behind for operation in second.write()] == [0, 1]


async def test_what_waits_on_a_link_is_withdrawn_when_its_store_has_another_epoch(client: StoreClient) -> None:
    link = HandLink(client)
    link.announce(PARTITION, 3)
    add(client), add(client), add(client)
    assert epochs(link.write(1)) == [(1, 3)]
    link.announce(PARTITION, 4)
    assert epochs(link.write()) == [(1, 4), (2, 4), (3, 4)]


async def test_a_refusal_of_an_earlier_sending_does_not_make_the_owner_unknown(client: StoreClient) -> None:
    first, second = HandLink(client, "a:1"), HandLink(client, "b:1")
    first.announce(PARTITION, 3)
    call = add(client)
    early = first.write()
    second.announce(PARTITION, 4)
    second.announce(PARTITION, None)
    first.announce(PARTITION, 5)
    first.answer(refused(early))
    assert client._routes[PARTITION].owner is first
    first.answer(answers(first.write(), True))
    assert await call == encode(True)
    assert not first.stale


async def test_a_result_of_an_earlier_sending_is_ignored_and_asked_for_again(client: StoreClient) -> None:
    """Both sendings are answered by what the store remembers; that the first one counts is not to be relied on."""
    link = HandLink(client)
    link.announce(PARTITION, 3)
    call = client.call(GET, session_id="s", keys=["list"])
    early = link.write()
    link.announce(PARTITION, 4)
    link.announce(PARTITION, 5)
    assert epochs(link.write()) == [(1, 5)]
    link.answer(answers(early, "old"))
    assert not call.done()
    link.answer(answers(early, "new"))
    assert await call == encode("new")


async def test_results_that_share_a_reply_with_an_announcement_are_of_earlier_sendings(client: StoreClient) -> None:
    """Whether the store announced or answered first: it has not read what the announcement has had sent again."""
    link = HandLink(client)
    link.announce(PARTITION, 3)
    calls = [add(client), add(client)]
    early = link.write()
    announcement = store_pb2.Announcement(partitions=[store_pb2.Ownership(partition=PARTITION, epoch=4)])
    results = encode_results([*answers(early[:1], True), *refused(early[1:])])
    link.reply(store_pb2.LinkReply(announcement=announcement, results=results).SerializeToString())
    assert client._routes[PARTITION].owner is link
    written = link.write()
    assert epochs(written) == [(1, 4), (2, 4)]
    link.answer(answers(written, True))
    assert [await call for call in calls] == [encode(True)] * 2
    assert not link.stale


async def test_each_sending_has_an_answer_of_its_own(client: StoreClient) -> None:
    link = HandLink(client)
    call = add(client)
    for epoch in range(3, 7):
        link.announce(PARTITION, epoch)
        assert epochs(link.write()) == [(1, epoch)]
    for _ in range(3):
        link.answer([Result(1, error=Error(store_pb2.Error.CODE_NOT_OWNER, "not yet"))])
    assert client._routes[PARTITION].owner is link
    assert not link.stale
    link.answer([Result(1, encode(True))])
    assert await call == encode(True)


async def test_answers_end_with_their_stream(client: StoreClient) -> None:
    link = HandLink(client)
    link.announce(PARTITION, 3)
    call = add(client)
    link.write()
    link.announce(PARTITION, 4)
    link.write()
    link.break_()
    link.announce(PARTITION, 4)  # the first stream's answers never came
    link.answer(answers(link.write(), True))
    assert await call == encode(True)


async def test_a_refusal_of_the_present_sending_makes_the_owner_unknown(client: StoreClient) -> None:
    link = HandLink(client)
    link.announce(PARTITION, 3)
    call = add(client)
    link.answer(refused(link.write()))
    later = add(client)
    assert client._routes[PARTITION].owner is None
    assert link.waiting == 0
    link.announce(PARTITION, 4)
    written = link.write()
    assert epochs(written) == [(1, 4), (2, 4)]
    link.answer(answers(written, True))
    assert [await call, await later] == [encode(True)] * 2


async def test_a_store_that_spoke_before_need_not_speak_again_when_the_owner_is_lost(client: StoreClient) -> None:
    """Its epoch may be the lower one: where an engine lost everything, epochs are as good as the clock."""
    first, second, third = (HandLink(client, name) for name in ("a:1", "b:1", "c:1"))
    first.announce(PARTITION, 7)
    second.announce(PARTITION, 6)
    call = add(client)
    assert second.waiting == 0
    first.answer(refused(first.write()))
    assert epochs(second.write()) == [(1, 6)]
    second.answer(refused([Operation(1)]))
    assert client._routes[PARTITION].owner is None
    third.announce(PARTITION, 8)
    second.announce(PARTITION, 6)
    assert epochs(third.write()) == [(1, 8)]
    third.break_()
    second.break_()
    assert client._routes[PARTITION].owner is None
    first.announce(PARTITION, 3)
    first.answer(answers(first.write(), True))
    assert await call == encode(True)


async def test_an_owner_that_has_its_turn_again_is_sent_nothing_twice_on_one_stream(client: StoreClient) -> None:
    """It may have applied it, and not have heard yet that it is the owner no more: then it says neither."""
    first, second = HandLink(client, "a:1"), HandLink(client, "b:1")
    first.announce(PARTITION, 6)
    call = add(client)
    first.write()  # applied, but the store hangs before it answers
    second.announce(PARTITION, 7)
    second.write()
    second.announce(PARTITION, None)
    assert first.restarting
    assert first.waiting == 0
    assert client._routes[PARTITION].owner is None
    later = add(client)
    first.break_()
    first.announce(PARTITION, 6)
    written = first.write()
    assert epochs(written) == [(1, 6), (2, 6)]
    assert not first.restarting
    first.answer(answers(written, True))
    assert [await call, await later] == [encode(True)] * 2


async def test_an_owner_that_has_its_turn_again_goes_on_if_it_was_sent_nothing_of_it(client: StoreClient) -> None:
    first, second = HandLink(client, "a:1"), HandLink(client, "b:1")
    first.announce(PARTITION, 6)
    answered = add(client)
    first.answer(answers(first.write(), True))
    second.announce(PARTITION, 7)
    call = add(client)
    second.answer(refused(second.write()))
    assert not first.restarting
    assert epochs(first.write()) == [(2, 6)]
    first.answer(answers([Operation(2)], True))
    assert [await answered, await call] == [encode(True)] * 2


async def test_an_owner_that_has_its_turn_again_goes_on_if_another_one_answered_what_it_was_sent(
    client: StoreClient,
) -> None:
    first, second = HandLink(client, "a:1"), HandLink(client, "b:1")
    first.announce(PARTITION, 6)
    answered = add(client)
    first.write()
    second.announce(PARTITION, 7)
    second.answer(answers(second.write(), True))
    call = add(client)
    second.announce(PARTITION, None)
    assert not first.restarting
    assert epochs(first.write()) == [(2, 6)]
    first.answer(answers([Operation(2)], True))
    assert [await answered, await call] == [encode(True)] * 2


async def test_answers_count_on_the_link_on_which_it_was_asked(client: StoreClient) -> None:
    first, second = HandLink(client, "a:1"), HandLink(client, "b:1")
    first.announce(PARTITION, 3)
    client.attach("s")
    first.answer(answers(first.write(), True))
    first.announce(PARTITION, 4)
    call = add(client)
    asked = first.write()
    assert len(asked) == 2  # it is told of the session
    second.answer(answers(asked, "another's"))
    second.answer(refused(asked))
    assert len(client._routes[PARTITION]._unanswered) == 1
    assert not client._routes[PARTITION].untold
    first.answer(answers(asked, True))
    assert await call == encode(True)


async def test_while_an_owner_that_has_its_turn_again_begins_anew_the_next_one_is_asked(client: StoreClient) -> None:
    first, second, third = HandLink(client, "a:1"), HandLink(client, "b:1"), HandLink(client, "c:1")
    third.announce(PARTITION, 5)
    first.announce(PARTITION, 6)
    call = add(client)
    first.write()
    second.announce(PARTITION, 7)
    second.write()
    second.announce(PARTITION, None)
    assert first.restarting
    assert epochs(third.write()) == [(1, 5)]
    third.answer(answers([Operation(1)], True))
    assert await call == encode(True)


async def test_whatever_was_sent_on_a_stream_is_not_sent_there_again_though_the_first_of_it_has_its_answer(
    client: StoreClient,
) -> None:
    first, second = HandLink(client, "a:1"), HandLink(client, "b:1")
    first.announce(PARTITION, 6)
    calls = [add(client), add(client)]
    first.write()
    second.announce(PARTITION, 7)
    second.answer(answers(second.write()[:1], True))
    assert await calls[0] == encode(True)
    second.announce(PARTITION, None)
    assert first.restarting
    assert first.write() == []
    first.break_()
    first.announce(PARTITION, 6)
    assert epochs(first.write()) == [(2, 6)]


async def test_an_owner_that_opened_the_partition_again_is_sent_everything_on_its_stream(client: StoreClient) -> None:
    first, second = HandLink(client, "a:1"), HandLink(client, "b:1")
    first.announce(PARTITION, 6)
    add(client)
    first.write()
    second.announce(PARTITION, 7)
    second.write()
    first.announce(PARTITION, 8)
    assert not first.restarting
    assert epochs(first.write()) == [(1, 8)]


async def test_a_store_s_last_word_counts_though_its_epoch_is_lower(client: StoreClient) -> None:
    link = HandLink(client)
    link.announce(PARTITION, 7)
    call = add(client)
    link.announce(PARTITION, 5)
    assert epochs(link.write()) == [(1, 5)]
    link.answer(answers([Operation(1)], True))
    assert await call == encode(True)


async def test_refusals_after_which_another_store_is_asked_are_answers_of_that_link(client: StoreClient) -> None:
    """The first one in a reply has the others taken back, whose refusals follow it there."""
    first, second = HandLink(client, "a:1"), HandLink(client, "b:1")
    first.announce(PARTITION, 7)
    second.announce(PARTITION, 6)
    calls = [add(client), add(client), add(client)]
    first.answer(refused(first.write()))
    assert not first.stale
    written = second.write()
    assert epochs(written) == [(1, 6), (2, 6), (3, 6)]
    second.answer(answers(written, True))
    assert [await call for call in calls] == [encode(True)] * 3


async def test_attachments_are_told_anew_and_their_late_answers_ignored(client: StoreClient) -> None:
    link = HandLink(client)
    link.announce(PARTITION, 3)
    client.attach("s")
    link.answer(answers(link.write(), True))
    await asyncio.sleep(0)
    link.announce(PARTITION, 4)
    (early,) = link.write()
    link.announce(PARTITION, 5)
    (late,) = link.write()
    link.answer(refused([early]))
    assert client._routes[PARTITION].owner is link
    assert late.id != early.id
    link.answer(refused([late]))
    assert client._routes[PARTITION].owner is None


async def test_what_was_sent_by_an_earlier_epoch_holds_nothing_up() -> None:
    """Neither by having no answer, nor by being overdue."""
    client = make_client(timeout=0.02)
    link = HandLink(client)
    link.announce(PARTITION, 3)
    sent = add(client)
    link.write()
    link.announce(PARTITION, None)
    parked = add(client)
    link.announce(PARTITION, 5)
    written = link.write()
    assert epochs(written) == [(1, 5), (2, 5)]
    for overdue in (sent, parked):
        with pytest.raises(StoreUnavailableError):
            await overdue
    call = add(client)
    written += link.write()
    assert epochs(written[2:]) == [(3, 5)]
    link.answer(refused([Operation(1)]))  # the first sending's
    link.answer(answers(written, True))
    assert await call == encode(True)
    assert not link.stale


async def test_what_is_overdue_while_it_waits_for_an_owner_holds_nothing_up() -> None:
    client = make_client(timeout=0.02)
    link = HandLink(client)
    with pytest.raises(StoreUnavailableError):
        await add(client)
    link.announce(PARTITION, 3)
    call = add(client)
    link.answer(answers(link.write(), True))
    assert await call == encode(True)


async def test_what_slept_with_the_machine_is_not_sent_again(
    client: StoreClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop's clock stood still meanwhile, and stores may have forgotten what they applied."""
    slept = 0.0
    monkeypatch.setattr("socketcluster_store_client.client.clock", lambda: clock() + slept)
    first, second = HandLink(client, "a:1"), HandLink(client, "b:1")
    first.announce(PARTITION, 3)
    early = add(client)
    first.write()
    slept = 9.0
    late = add(client)
    first.write()
    slept = 12.0
    second.announce(PARTITION, 4)
    with pytest.raises(StoreUnavailableError, match="within 10 s"):
        await early
    assert epochs(second.write()) == [(2, 4)]
    late.cancel()
    await client.close()


async def test_an_operation_of_a_stream_that_broke_is_overdue_by_the_clock_that_goes_on(
    client: StoreClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept = 0.0
    monkeypatch.setattr("socketcluster_store_client.client.clock", lambda: clock() + slept)
    link = HandLink(client)
    link.announce(PARTITION, 3)
    call = add(client)
    link.write()
    link.break_()
    slept = 3600.0
    link.announce(PARTITION, 3)
    assert link.waiting == 0
    with pytest.raises(StoreUnavailableError):
        await call


@pytest.mark.parametrize("breaks", [True, False])
async def test_what_slept_with_the_machine_is_not_sent_to_a_store_that_spoke_before(
    client: StoreClient, monkeypatch: pytest.MonkeyPatch, breaks: bool
) -> None:
    """It is sent without another announcement when the owner is lost."""
    slept = 0.0
    monkeypatch.setattr("socketcluster_store_client.client.clock", lambda: clock() + slept)
    first, second = HandLink(client, "a:1"), HandLink(client, "b:1")
    first.announce(PARTITION, 7)
    second.announce(PARTITION, 6)
    calls = [add(client), add(client)]
    written = first.write()
    slept = 3600.0
    if breaks:
        first.break_()
    else:
        first.answer(refused(written))
    assert second.waiting == 0
    for call in calls:
        with pytest.raises(StoreUnavailableError, match="within 10 s"):
            await call
