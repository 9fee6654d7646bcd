"""Many time-outs of one length."""

from __future__ import annotations

import asyncio

from socketcluster_balancer.entrance.deadlines import DeadlineQueue

SOON = 0.01
NEVER = 3600.0


async def test_items_expire_in_the_order_in_which_they_came() -> None:
    expired: asyncio.Queue[str] = asyncio.Queue()
    queue: DeadlineQueue[str] = DeadlineQueue(SOON, expired.put_nowait)
    for item in ("a", "b", "c"):
        queue.add(item)
    queue.add("a")  # which begins anew
    assert [await expired.get() for _ in range(3)] == ["b", "c", "a"]
    assert len(queue) == 0
    queue.add("d")
    assert await expired.get() == "d"


async def test_what_is_discarded_does_not_expire() -> None:
    expired: asyncio.Queue[str] = asyncio.Queue()
    queue: DeadlineQueue[str] = DeadlineQueue(SOON, expired.put_nowait)
    for item in ("a", "b"):
        queue.add(item)
    assert queue.discard("a")
    assert not queue.discard("a")
    assert "a" not in queue
    assert "b" in queue
    assert await expired.get() == "b"
    assert expired.empty()


async def test_the_end_of_one_may_discard_another_that_is_due() -> None:
    ended: list[str] = []

    def end(item: str) -> None:
        ended.append(item)
        queue.discard("b")
        done.set()

    done = asyncio.Event()
    queue: DeadlineQueue[str] = DeadlineQueue(SOON, end)
    queue.add("a")
    queue.add("b")
    await done.wait()
    assert ended == ["a"]
    assert len(queue) == 0


async def test_all_can_be_taken_out_and_nothing_expires_after_the_close() -> None:
    queue: DeadlineQueue[int] = DeadlineQueue(NEVER, lambda _: None)
    for number in (3, 1, 2):
        queue.add(number)
    assert queue.pop_all() == [3, 1, 2]
    assert len(queue) == 0
    queue.add(1)
    queue.close()
    assert 1 not in queue
    assert queue.pop_all() == []
