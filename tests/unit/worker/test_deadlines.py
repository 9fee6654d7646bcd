"""Deadlines of many, which share timers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from support.worker.running import until

from socketcluster_worker import deadlines, fairness
from socketcluster_worker.deadlines import Deadlines, Timed


class Item:
    """Something that has a deadline."""

    def __init__(self, come: Callable[[Item], object]) -> None:
        self.deadline: set[Timed] | None = None
        self._come = come

    def time_over(self) -> None:
        self._come(self)


class Loop:
    """A loop whose time stands still, and what it was asked for."""

    def __init__(self) -> None:
        self.now = 100.3
        self.timers: list[tuple[float, Callable[..., None], tuple[Any, ...]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[..., None], *args: Any) -> None:
        self.timers.append((when, callback, args))

    def come(self) -> None:
        when, callback, args = self.timers.pop(0)
        self.now = when
        callback(*args)


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def due(loop: Loop) -> Deadlines:
    return Deadlines(loop)  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [0.05, 1.0, 10.0, 20.0, 25.0, 3600.0])
def test_a_deadline_is_never_early_and_little_late(due: Deadlines, loop: Loop, seconds: float) -> None:
    due.set(Item(print), seconds)
    ((when, _, _),) = loop.timers
    assert loop.now + seconds <= when <= loop.now + seconds + seconds / 32


def test_those_of_about_one_time_share_a_timer(due: Deadlines, loop: Loop) -> None:
    come: list[Item] = []
    items = [Item(come.append) for _ in range(3)]
    for item in items:
        due.set(item, 25.0)
        loop.now += 0.01
    assert (len(loop.timers), len(due)) == (1, 3)
    loop.come()
    assert (set(come), len(due)) == (set(items), 0)
    assert [item.deadline for item in items] == [None] * 3


def test_a_deadline_is_moved_and_given_up(due: Deadlines, loop: Loop) -> None:
    come: list[Item] = []
    moved, given_up = Item(come.append), Item(come.append)
    due.set(moved, 10.0)
    due.set(given_up, 10.0)
    due.set(moved, 20.0)
    due.discard(given_up)
    due.discard(given_up)
    loop.come()
    assert come == []
    loop.come()
    assert come == [moved]


def test_what_is_over_may_begin_again_and_none_is_forever(due: Deadlines, loop: Loop) -> None:
    item = Item(lambda item: due.set(item, 0.0))
    due.set(item, -1.0)
    loop.come()
    assert len(loop.timers) == 1
    assert item.deadline


async def test_one_that_raises_does_not_stop_the_others(due: Deadlines, loop: Loop) -> None:
    come: list[Item] = []

    def fail(_: Item) -> None:
        raise ZeroDivisionError

    due.set(Item(fail), 1.0)
    for _ in range(3):
        due.set(Item(come.append), 1.0)
    try:
        loop.come()
    except ZeroDivisionError:
        pass
    else:
        pytest.fail("who fails is to be reported")
    await until(lambda: len(come) == 3)
    assert len(due) == 0


async def test_many_at_a_time_leave_turns_to_others(
    due: Deadlines, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fairness, "SLICE", 0.0)
    come: list[Item] = []
    for _ in range(3):
        due.set(Item(come.append), 1.0)
    loop.come()
    assert len(come) == 1
    await until(lambda: len(come) == 3)


async def test_a_loop_has_its_own() -> None:
    assert deadlines.of_loop() is deadlines.of_loop()
    come: list[Item] = []
    deadlines.of_loop().set(Item(come.append), 0.01)
    began = asyncio.get_running_loop().time()
    await until(lambda: come)
    assert asyncio.get_running_loop().time() - began >= 0.009
