"""When a partition's timers fire: at the earliest deadline, whatever the event loop knows of time, one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from support.worker.running import until

from socketcluster_store.partition import timer as module
from socketcluster_store.partition.timer import DeadlineTimer

NEVER = 3.5e9


class Work:
    """What a timer does: it takes until the test lets it end."""

    def __init__(self) -> None:
        self.now = 0.0
        self.began: asyncio.Queue[float] = asyncio.Queue()
        self.may_end = asyncio.Event()
        self.looks = 0
        self.timer = DeadlineTimer(self._do, self._clock)

    def _clock(self) -> float:
        self.looks += 1
        return self.now

    async def _do(self) -> None:
        self.began.put_nowait(self.now)
        await self.may_end.wait()


@pytest.fixture
async def work(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Work]:
    """Look at the time again and again: the test sets it."""
    monkeypatch.setattr(module, "LONGEST_WAIT", 0.001)
    made = Work()
    yield made
    made.may_end.set()
    await made.timer.close()


async def test_it_fires_although_the_loop_knows_of_no_suspend(work: Work) -> None:
    work.timer.set(NEVER)
    work.now = NEVER
    assert await work.began.get() == NEVER


async def test_the_earliest_deadline_counts(work: Work) -> None:
    work.timer.set(30)
    work.timer.set(20)
    work.timer.set(40)
    work.timer.set(None)
    assert work.timer.deadline == 20
    work.now = 20
    await work.began.get()
    assert work.timer.deadline is None


async def test_it_does_not_fire_before_its_time(work: Work) -> None:
    work.timer.set(30)
    work.now = 29
    await until(lambda: work.looks >= 5 or not work.began.empty())
    assert work.timer.deadline == 30
    assert work.began.empty()


async def test_the_earliest_of_what_is_set_while_it_is_at_work_comes_after_that(work: Work) -> None:
    work.timer.set(10)
    work.now = 10
    await work.began.get()
    work.timer.set(12)
    work.timer.set(15)
    work.may_end.set()
    await until(lambda: work.timer.deadline is not None)
    assert work.timer.deadline == 12


async def test_what_is_set_while_it_is_at_work_comes_after_that(work: Work) -> None:
    work.timer.set(10)
    work.now = 10
    await work.began.get()
    work.timer.set(9)
    work.timer.set(8)
    assert work.timer.deadline is None
    work.now = 11
    work.may_end.set()
    assert await work.began.get() == 11
    assert work.began.empty()


async def test_it_is_closed_when_its_work_is_done(work: Work) -> None:
    work.timer.set(10)
    work.now = 10
    await work.began.get()
    work.timer.set(10)
    closing = asyncio.create_task(work.timer.close())
    await asyncio.sleep(0)
    assert not closing.done()
    work.may_end.set()
    await closing
    work.timer.set(10)
    assert work.timer.deadline is None
    assert work.began.empty()


async def test_one_that_is_stopped_does_not_fire(work: Work) -> None:
    work.timer.set(10)
    work.timer.stop()
    work.now = 10
    await asyncio.sleep(0.01)
    assert work.began.empty()
