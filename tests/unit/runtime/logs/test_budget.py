"""Lines that somebody can cause again and again: a few at once, then counts."""

from __future__ import annotations

import logging
import threading

import pytest
from support.log import WrittenLog, written

from socketcluster_runtime.logs import budget
from socketcluster_runtime.logs.budget import BURST
from socketcluster_runtime.logs.logging import get_logger

MANY = 1000


@pytest.fixture(autouse=True)
def _frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no interval pass by itself."""
    monkeypatch.setattr(budget, "INTERVAL", 3600.0)


def say(number: int = MANY, **fields: object) -> None:
    log = get_logger("socketcluster_worker.tested")
    for each in range(number):
        log.warning("refused", number=each, **fields)


def test_lines_of_one_kind_are_told_then_counted(service_log: WrittenLog) -> None:
    say()
    assert len(service_log.lines) == BURST
    service_log.handler.settle()
    *first, last = service_log.lines
    assert len(first) == BURST
    assert f"number={MANY - 1} times={MANY - BURST}" in last
    say()  # right after: it has used its budget
    assert len(service_log.lines) == BURST + 1
    service_log.handler.settle()
    assert f"times={MANY}" in service_log.lines[-1]


def test_json_counts_too() -> None:
    with written("json") as log:
        say(BURST + 2)
    assert '"times": 2' in log.lines[-1]


def test_what_is_left_at_the_end_is_told(service_log: WrittenLog) -> None:
    say(BURST + 1)
    service_log.handler.close()
    assert len(service_log.lines) == BURST + 1
    assert "times" not in service_log.text


def test_the_count_comes_by_itself_without_a_loop(service_log: WrittenLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "INTERVAL", 0.001)
    written_out = threading.Event()
    settle = service_log.handler.settle

    def settled() -> None:
        settle()
        written_out.set()

    monkeypatch.setattr(service_log.handler, "settle", settled)
    while "times=" not in service_log.text:
        say(10 * BURST)
        assert written_out.wait(60)


def test_other_places_errors_and_stores_are_other_news(service_log: WrittenLog) -> None:
    say()
    say(store="store-0")
    say(store="store-1")
    log = get_logger("socketcluster_store.tested")

    def divide(value: object) -> None:
        try:
            1 / value  # type: ignore[operator]
        except (ArithmeticError, TypeError):
            log.exception("failed")

    for _ in range(MANY):
        divide(0)
        divide("text")
    service_log.handler.settle()
    assert service_log.text.count("ZeroDivisionError: ") == BURST + 1
    assert service_log.text.count("TypeError: ") == BURST + 1  # the line that was held back has its traceback
    assert service_log.text.count("refused") == 3 * (BURST + 1)
    assert service_log.text.count("Traceback") == 2 * (BURST + 1)


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("asyncio", BURST),
        ("uvicorn.error", BURST),
        ("websockets.tested", BURST),
        ("controller", MANY),
        ("django.request", MANY),
        ("socketcluster_example", MANY),
    ],
)
def test_libraries_have_a_budget_and_the_users_code_has_none(service_log: WrittenLog, name: str, lines: int) -> None:
    for number in range(MANY):
        logging.getLogger(name).error("failed %d", number)
    assert len(service_log.lines) == lines
    service_log.handler.settle()
    assert ("times=" in service_log.text) == (lines == BURST)


def test_kinds_are_bounded(service_log: WrittenLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MAX_KINDS", 10)
    for number in range(MANY):
        say(1, worker=f"worker-{number}")
    assert len(service_log.lines) == 10 + BURST
    assert len(service_log.handler._budgets) == 11
