"""Attachments beside the renewal of their session, which a former owner may have carried out."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import NoReturn

from support.store_client.hand_fed import HandFed, encode, sent

from socketcluster_proto.v1 import store_pb2
from socketcluster_store_client.messages import Error, Result
from socketcluster_store_client.partitioning import partition_of
from socketcluster_store_client.routes import Pending

ATTACH = store_pb2.VERB_SESSION_ATTACH
RENEW = store_pb2.VERB_SESSION_RENEW
NUMBER = partition_of("s")
RENEWED = next(name for name in (f"renewed{number}" for number in range(1000)) if partition_of(name) == NUMBER)
OVER = Error(store_pb2.Error.CODE_SESSION_OVER, "the session was renewed or ended", "")


async def test_a_refused_attachment_and_the_renewal_s_answer_in_one_reply() -> None:
    """Both were carried out by a former owner; the renewed session has its sockets here, and the next one is told."""
    fed = HandFed()
    first, second = fed.link(), fed.link()
    fed.announce(first, NUMBER, 3)
    fed.client.attach("s").add_done_callback(lambda done: done.exception())
    renewing = fed.client.call(RENEW, session_id="s", name=RENEWED)
    renewing.add_done_callback(lambda _done: fed.client.session_renewed("s", RENEWED))
    sent(first)
    fed.announce(second, NUMBER, 4)
    results = [
        Result(operation.id, encode(None)) if operation.verb == RENEW else Result(operation.id, b"", OVER)
        for operation in sent(second)
    ]
    assert len(results) == 3  # the route's own attachment is the third
    fed.answer(second, *results)
    await asyncio.sleep(0)
    assert fed.client._routes[NUMBER].attached_sessions() == [RENEWED]
    assert (ATTACH, RENEWED) in [(operation.verb, operation.session_id) for operation in sent(second)]


async def test_a_renewal_counts_until_it_is_answered_though_its_caller_is_gone() -> None:
    fed = HandFed()
    link = fed.link()
    fed.announce(link, NUMBER, 3)
    sessions = fed.client._routes[NUMBER].sessions
    fed.client.call(RENEW, session_id="s", name=RENEWED).cancel()
    refused = fed.client.call(RENEW, session_id="s", name=RENEWED)
    one, two = sent(link)
    fed.answer(link, Result(one.id, encode(None)))
    assert sessions.is_renewing("s")
    fed.answer(link, Result(two.id, b"", OVER))
    assert not sessions.is_renewing("s")
    assert refused.exception() is not None


class Unread(OrderedDict[int, Pending]):
    """What is in flight, and not to be looked through."""

    def values(self) -> NoReturn:
        raise AssertionError("all that is in flight was looked through")


async def test_many_sessions_that_are_over_cost_no_look_at_all_that_is_in_flight() -> None:
    fed = HandFed()
    link = fed.link()
    fed.announce(link, NUMBER, 3)
    fed.client.attach("s").add_done_callback(lambda done: done.exception())
    fed.client._routes[NUMBER].in_flight = Unread(fed.client._routes[NUMBER].in_flight)
    fed.answer(link, *[Result(operation.id, b"", OVER) for operation in sent(link)])
    await asyncio.sleep(0)
    assert fed.client._routes[NUMBER].attached_sessions() == []
