"""Log lines about what may happen a thousand times a second."""

from __future__ import annotations

import pytest
from support.worker.running import until

from socketcluster_runtime.logs import throttle
from socketcluster_runtime.logs.throttle import Throttle


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "INTERVAL", 0.01)


async def test_the_first_time_is_told_at_once_and_the_others_are_counted() -> None:
    told: list[int] = []
    kept = Throttle(told.append)
    for _ in range(1000):
        kept.add()
    assert told == [1]
    kept.close()
    assert told == [1, 999]


@pytest.mark.usefixtures("hasty")
async def test_while_it_goes_on_each_interval_has_one_line() -> None:
    told: list[int] = []
    kept = Throttle(told.append)
    for _ in range(3):
        for _ in range(10):
            kept.add()
        await until(lambda: kept._count == 0)
    assert told[:2] == [1, 9]
    assert sum(told) == 30
    assert len(told) <= 6  # where the machine was slow, each time begins anew
    kept.close()


@pytest.mark.usefixtures("hasty")
async def test_after_a_quiet_interval_the_next_time_is_told_at_once() -> None:
    told: list[int] = []
    kept = Throttle(told.append)
    kept.add()
    await until(lambda: kept._timer is None)
    assert told == [1]
    kept.add()
    assert told == [1, 1]
    kept.close()


async def test_a_line_may_say_what_happened_last() -> None:
    told: list[str] = []
    kept = Throttle(lambda count: told.append(f"{count} {kept.last}"))
    for client in "abc":
        kept.add(client)
    kept.close()
    assert told == ["1 a", "2 c"]


async def test_closed_it_says_nothing_twice_and_leaves_no_timer() -> None:
    told: list[int] = []
    kept = Throttle(told.append)
    kept.close()
    kept.add()
    kept.add()
    kept.add()
    kept.close()
    kept.close()
    assert told == [1, 2]
    assert kept._timer is None
