"""Log lines about what lasts."""

from __future__ import annotations

import asyncio
import io
import logging

import pytest
from structlog.testing import capture_logs
from support.worker.running import until

from socketcluster_runtime.logs import conditions
from socketcluster_runtime.logs.budget import BURST, BudgetHandler
from socketcluster_runtime.logs.conditions import Condition
from socketcluster_runtime.logs.logging import get_logger

log = get_logger(__name__)


def made(**options: bool) -> Condition:
    return Condition(log, "the disk is full", over="the disk has room again", level="error", **options)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditions, "INTERVAL", 0.01)


async def test_it_is_told_when_it_begins_and_when_it_is_over_and_counted_in_between() -> None:
    condition = made()
    with capture_logs() as lines:
        for number in range(1000):
            condition.add(partition=number)
        assert condition.active
        condition.end(room=7)
        condition.end()
    began, over = lines
    assert began == {"event": "the disk is full", "log_level": "error", "partition": 0}
    assert over.pop("lasted") < 60
    assert over == {"event": "the disk has room again", "log_level": "info", "times": 1000, "room": 7}
    assert not condition.active


async def test_as_long_as_it_is_met_each_minute_has_a_line_with_a_count(hasty: None) -> None:
    condition = made()
    with capture_logs() as lines:
        condition.add()
        condition.add(2, path="/data")
        await until(lambda: len(lines) >= 2)
    assert lines[1].pop("lasting") >= 0
    assert lines[1] == {"event": "the disk is full", "log_level": "error", "times": 2, "path": "/data"}
    condition.close()


async def test_it_is_over_once_nothing_was_met_for_a_minute(hasty: None) -> None:
    condition = made()
    with capture_logs() as lines:
        condition.add()
        await until(lambda: not condition.active)
    assert [line["event"] for line in lines] == ["the disk is full", "the disk has room again"]


async def test_one_that_lasts_goes_on_without_being_met(hasty: None) -> None:
    condition = made(lasts=True)
    with capture_logs() as lines:
        condition.add()
        await until(lambda: len(lines) >= 3)
        condition.end()
    assert {line["event"] for line in lines[:-1]} == {"the disk is full"}
    assert lines[-1]["event"] == "the disk has room again"


async def test_it_begins_anew_with_counts_of_its_own() -> None:
    condition = made()
    with capture_logs() as lines:
        condition.add(5)
        condition.end()
        condition.add(3)
        condition.end()
    assert [line.get("times") for line in lines] == [None, 5, None, 3]


async def test_one_that_is_closed_says_nothing_more(hasty: None) -> None:
    condition = made()
    with capture_logs() as lines:
        condition.add()
        condition.close()
        condition.end()
        await asyncio.sleep(0)
    assert len(lines) == 1


def test_conditions_do_not_share_a_budget() -> None:
    stream = io.StringIO()
    handler = BudgetHandler(stream)
    for number in range(2 * BURST):
        record = logging.LogRecord("socketcluster_store", 40, conditions.__file__, 1, "", (), None)
        record.msg = {"event": f"condition {number}"}  # as structlog makes it
        handler.handle(record)
    assert len(stream.getvalue().splitlines()) == 2 * BURST
    handler.close()
