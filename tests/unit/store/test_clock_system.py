"""Which of the system's clocks times are taken from: one that goes on in a suspend, and that nobody sets."""

from __future__ import annotations

import runpy
import sys
import time
from types import ModuleType
from typing import Any

import pytest

from socketcluster_store import clock as clock_module
from socketcluster_store.partition.sessions import Sessions
from socketcluster_store_client import routes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such clock")


class System:
    """What the system's clocks say."""

    def __init__(self) -> None:
        self.wall = 1_700_000_000.0
        self.clocks = {time.CLOCK_BOOTTIME: 5000.0}

    def clock_gettime(self, which: int) -> float:
        return self.clocks.get(which, 1.0)


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> System:
    made = System()
    monkeypatch.setattr(time, "clock_gettime", made.clock_gettime)
    monkeypatch.setattr(time, "monotonic", lambda: 1.0)
    monkeypatch.setattr(time, "time", lambda: made.wall)
    return made


def loaded(module: ModuleType) -> dict[str, Any]:
    """Return what a module has in a process that starts now."""
    assert module.__file__ is not None
    return runpy.run_path(module.__file__)


def test_a_worker_s_deadlines_go_on_in_a_suspend(system: System) -> None:
    """Stores forget by a clock that does so what workers must not send again then."""
    clock = loaded(routes)["clock"]
    assert clock() == 5000
    system.clocks[time.CLOCK_BOOTTIME] += 700  # a suspend
    assert clock() == 5700


def test_a_store_s_time_goes_on_in_a_suspend_and_is_not_set(system: System) -> None:
    store = loaded(clock_module)
    clock = store["clock"]
    partition = store["PartitionClock"](clock)
    assert store["elapsed"]() == 5000
    assert clock() == partition() == 1_700_000_000
    system.wall += 86_400.0  # somebody sets it
    assert clock() == partition() == 1_700_000_000
    system.clocks[time.CLOCK_BOOTTIME] += 700
    assert store["elapsed"]() == 5700
    assert clock() == partition() == 1_700_000_700


def test_an_id_is_over_for_no_more_than_a_full_timeout_though_the_time_went_back() -> None:
    record = Sessions(100).end("s", 5000)
    sessions = Sessions(100)
    sessions.load([("s", record)], 10, earliest=12)
    assert sessions.over == {"s": 110}
    assert sessions.due(110, 10) == ["s"]
