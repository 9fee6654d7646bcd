"""Calls to a client: their ids, their answers, their time, and their end with the connection."""

from __future__ import annotations

import asyncio

import pytest

from socketcluster_worker.errors import CallTimeoutError, NotSerializableError, SocketClosedError
from socketcluster_worker.protocols.pending_calls import PendingCalls


async def test_each_call_gets_its_own_answer() -> None:
    calls = PendingCalls(first_id=1)
    sent: list[int] = []
    first = asyncio.create_task(calls.call("a", sent.append, 10))
    second = asyncio.create_task(calls.call("b", sent.append, 10))
    await asyncio.sleep(0)
    assert (sent, len(calls)) == ([1, 2], 2)
    for call_id in (2, 1):
        answer = calls.take(call_id)
        assert answer is not None
        answer.set_result(call_id * 10)
    assert (await first, await second) == (10, 20)
    assert len(calls) == 0


async def test_an_answer_that_nobody_waits_for_is_none() -> None:
    calls = PendingCalls(first_id=0)
    assert calls.take(0) is None
    assert calls.take(None) is None
    asking = asyncio.create_task(calls.call("a", lambda _: None, 10))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait((asking,))
    assert calls.take(0) is None


async def test_a_call_without_an_answer_ends_in_time() -> None:
    calls = PendingCalls(first_id=0)
    with pytest.raises(CallTimeoutError, match="no answer to 'a' within 0 s"):
        await calls.call("a", lambda _: None, 0)
    assert len(calls) == 0


async def test_what_cannot_be_sent_uses_no_id() -> None:
    calls = PendingCalls(first_id=0)
    sent: list[int] = []

    def fail(_: int) -> None:
        raise NotSerializableError("no JSON")

    with pytest.raises(NotSerializableError):
        await calls.call("a", fail, 10)
    asking = asyncio.create_task(calls.call("a", sent.append, 10))
    await asyncio.sleep(0)
    assert sent == [0]
    calls.end(1000)
    with pytest.raises(SocketClosedError, match="1000"):
        await asking


async def test_a_call_fails_at_once_if_sending_it_ends_the_connection() -> None:
    calls = PendingCalls(first_id=0)
    with pytest.raises(SocketClosedError, match="1008"):
        await calls.call("a", lambda _: calls.end(1008), 10)
    assert len(calls) == 0
