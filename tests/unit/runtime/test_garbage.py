"""When a service looks at all its objects for cyclic garbage."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator

import pytest
from support.worker.running import until

from socketcluster_runtime import garbage


class Clock:
    """What a loop has to tell the time, and a process how much of it was used."""

    def __init__(self) -> None:
        self.used = 0.0
        self.rounds = 0
        self.collected = 0

    def collect(self) -> int:
        self.collected += 1
        self.rounds = 0
        return 0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    made, before = Clock(), gc.get_threshold()
    monkeypatch.setattr(time, "process_time", lambda: made.used)
    monkeypatch.setattr(gc, "get_count", lambda: (0, 0, made.rounds))
    monkeypatch.setattr(gc, "collect", made.collect)
    yield made
    monkeypatch.undo()
    gc.set_threshold(*before)


async def test_what_lives_at_the_start_is_never_looked_at_and_python_decides_nothing(clock: Clock) -> None:
    collector = garbage.Collector()
    try:
        assert clock.collected == 1
        assert gc.get_freeze_count() > 1000
        assert gc.get_threshold() == (garbage.YOUNG, garbage.ROUNDS, garbage.NEVER)
    finally:
        collector.close()
    assert gc.get_freeze_count() == 0


async def test_all_is_looked_at_once_it_pays_and_there_is_time(clock: Clock) -> None:
    collector = garbage.Collector()
    try:
        collector.look()
        assert clock.collected == 1
        clock.rounds = garbage.LEAST
        clock.used += garbage.INTERVAL  # a whole core's time: it is busy
        collector.look()
        assert clock.collected == 1
        clock.used += garbage.INTERVAL * garbage.QUIET / 2
        collector.look()
        assert clock.collected == 2
        collector.look()  # nothing came since
        assert clock.collected == 2
    finally:
        collector.close()


async def test_a_busy_process_does_not_put_it_off_for_ever(clock: Clock) -> None:
    collector = garbage.Collector()
    try:
        clock.used, clock.rounds = garbage.INTERVAL, garbage.LEAST * garbage.URGENT
        collector.look()
        assert clock.collected == 2
    finally:
        collector.close()


async def test_it_looks_again_and_again_until_it_is_closed(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "INTERVAL", 0.001)
    collector = garbage.Collector()
    for times in (2, 3):
        clock.rounds = garbage.LEAST
        await until(lambda times=times: clock.collected == times)  # type: ignore[misc]
    collector.close()
