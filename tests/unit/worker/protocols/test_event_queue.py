"""What waits for its turn: the order, who has it wait, slices, and the end behind it all."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.worker.running import until

from socketcluster_worker import fairness
from socketcluster_worker.protocols import backpressure
from socketcluster_worker.protocols.backpressure import Backpressure
from socketcluster_worker.protocols.event_queue import ROOM, EventQueue


class Reading:
    """The connection that is read from, or not."""

    def __init__(self) -> None:
        self.paused = 0

    def pause_reading(self) -> None:
        self.paused += 1

    def resume_reading(self) -> None:
        self.paused -= 1


@pytest.fixture
def reading() -> Reading:
    return Reading()


@pytest.fixture
def queue(reading: Reading, monkeypatch: pytest.MonkeyPatch) -> EventQueue:
    monkeypatch.setattr(fairness, "SLICE", 60.0)  # of a machine that is busy; the test of slices has its own
    return EventQueue(Backpressure(reading))  # type: ignore[arg-type]


def test_what_came_before_the_beginning_is_taken_in_its_order(queue: EventQueue) -> None:
    taken: list[Any] = []
    for number in range(3):
        queue.put(taken.append, number)
    assert (len(queue), queue.held, taken) == (3, True, [])
    queue.begin()
    assert (len(queue), queue.held, taken) == (0, False, [0, 1, 2])


def test_whoever_takes_one_may_have_the_others_wait(queue: EventQueue) -> None:
    taken: list[Any] = []

    def take(number: int) -> None:
        taken.append(number)
        queue.hold(number)

    for number in (1, 2):
        queue.put(take, number)
    queue.begin()
    assert taken == [1]
    queue.hold("another")
    queue.release(1)
    assert taken == [1]
    queue.release("another")
    assert (taken, queue.held) == ([1, 2], True)
    queue.release(2)
    assert not queue.held


def test_one_that_is_done_at_once_holds_nothing_up(queue: EventQueue) -> None:
    taken: list[Any] = []

    def take(number: int) -> None:
        queue.hold(queue)
        taken.append(number)
        queue.release(queue)

    for number in range(3):
        queue.put(take, number)
    queue.begin()
    assert (taken, queue.held) == ([0, 1, 2], False)


async def test_others_have_their_turn_between_two(queue: EventQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fairness, "SLICE", 0)
    taken: list[Any] = []
    for number in range(3):
        queue.put(taken.append, number)
    queue.begin()
    assert (taken, queue.held) == ([0], True)
    await until(lambda: len(taken) == 3)
    assert not queue.held


def test_much_that_waits_is_not_added_to(queue: EventQueue, reading: Reading) -> None:
    for _ in range(backpressure.MAX_WAITING):
        queue.put(lambda: None)
    assert reading.paused == 1
    queue.begin()
    assert reading.paused == 0


def test_the_end_comes_behind_what_waits_and_is_under_way(queue: EventQueue) -> None:
    told: list[Any] = []
    queue.put(lambda: queue.hold("a question"))
    queue.end(lambda: told.append("end"))
    queue.begin()
    assert told == []
    queue.release("a question")
    assert told == ["end"]


def test_the_end_does_not_wait_for_handlers_to_become_fewer(queue: EventQueue) -> None:
    told: list[Any] = []
    queue.begin()
    queue.hold(ROOM)
    queue.put(told.append, "event")
    queue.end(lambda: told.append("end"))
    assert told == []
    queue.release(ROOM)
    assert told == ["event", "end"]
    queue = EventQueue(queue._backpressure)
    queue.begin()
    queue.hold(ROOM)
    queue.end(lambda: told.append("the other's end"))
    assert told[-1] == "the other's end"


def test_what_waits_when_it_is_closed_is_dropped(queue: EventQueue, reading: Reading) -> None:
    taken: list[Any] = []
    for number in range(backpressure.MAX_WAITING):
        queue.put(taken.append, number)
    queue.close()
    queue.begin()
    assert (taken, len(queue), queue.held, reading.paused) == ([], 0, True, 0)


async def test_one_that_raises_is_its_callers_and_the_rest_goes_on(queue: EventQueue) -> None:
    taken: list[Any] = []

    def fail() -> None:
        raise LookupError

    queue.put(fail)
    queue.put(taken.append, 1)
    with pytest.raises(LookupError):
        queue.begin()
    queue.hold("anybody")
    await asyncio.sleep(0)
    queue.release("anybody")
    assert taken == [1]
