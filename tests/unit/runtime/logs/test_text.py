"""Whatever text comes into a log line: it stays one line, and steers no terminal."""

from __future__ import annotations

import json
import logging
import re
import sys
from typing import Any

import pytest
from support.log import WrittenLog, written

from socketcluster_runtime.logs.logging import get_logger
from socketcluster_runtime.logs.text import MAX_TRACEBACK, MAX_VALUE, for_people, harmless

NASTY = [
    "\n12:00:00 [error] worker-0: forged",
    "\r12:00:00 [error] worker-0: forged",
    "\x1b[2K\x1b[31mred",
    "\x00\x07\x08\x7f",
    "\x85\x9b31m\u2028\u2029",
    "\u202e\u2066\u200f\ufeff",
]
LOG_LINE = re.compile(r"\d\d:\d\d:\d\d \[")


class Nasty:
    """What shows itself as a client would like it to."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


@pytest.mark.parametrize("text", NASTY, ids=[ascii(text)[1:10] for text in NASTY])
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_text_of_others_begins_no_line_and_controls_nothing(log_format: Any, text: str) -> None:
    with written(log_format) as service_log:
        log = get_logger("socketcluster_worker.tested")
        log.info(f"event {text}", plain=text, spaced=f"a {text}", quoted=f"it's {text}", shown=Nasty(text), many=[text])
        line = service_log.text
    assert line.endswith("\n")
    assert line.removesuffix("\n").isprintable()
    if log_format == "json":
        assert json.loads(line)["plain"] == text


@pytest.mark.parametrize("text", NASTY, ids=[ascii(text)[1:10] for text in NASTY])
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_an_exceptions_text_looks_like_no_line(log_format: Any, text: str) -> None:
    with written(log_format) as service_log:
        log = get_logger("socketcluster_worker.tested")
        try:
            raise ValueError(f"first\n{text}")
        except ValueError:
            log.exception("failed")
        first, *others = service_log.lines
    assert all(line.isprintable() for line in (first, *others))
    assert not any(LOG_LINE.match(line) for line in others)
    if log_format == "json":
        assert "ValueError: first" in json.loads(first)["exception"]
    else:
        assert LOG_LINE.match(first)
        assert others[0] == "  | Traceback (most recent call last):"
        assert "  | ValueError: first" in others


def test_the_standard_librarys_loggers_are_no_exception(service_log: WrittenLog) -> None:
    logging.getLogger("another.library").warning("%s failed", NASTY[0], extra={"given": NASTY[2]}, stack_info=True)
    first, *others = service_log.lines
    assert r"\n12:00:00 [error] worker-0: forged failed" in first
    assert r"\x1b" in first
    assert not any(LOG_LINE.match(line) for line in others)


def test_every_character_that_is_not_printable_is_escaped() -> None:
    for code in range(sys.maxunicode + 1):
        assert harmless(chr(code)).isprintable()
    assert harmless("größer, 日本, 👩 \\") == "größer, 日本, 👩 \\"
    assert harmless("\x1b\x85\u202e") == r"\x1b\x85\u202e"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_line_is_no_longer_than_it_may_be(log_format: Any) -> None:
    with written(log_format) as service_log:
        log = get_logger("socketcluster_worker.tested")
        log.info("a" * 1_000_000, text="b" * 1_000_000, many=["c" * 1_000_000])
        assert len(service_log.text) < 4 * MAX_VALUE
        assert "(1000000 characters)" in service_log.text
        log.error("failed", exc_info=ValueError("\n".join(["d" * 100_000] + ["e"] * 10_000)))
        last = service_log.text.count("\n")
    assert last <= MAX_TRACEBACK + 5
    assert len(service_log.text) < 10 * MAX_VALUE


def test_a_value_that_cannot_be_shown_costs_no_line() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError(NASTY[0])

    shown = for_people(None, "info", {"event": "event", "value": Broken()})["value"]
    assert repr(shown) == "<Broken, whose repr raises RuntimeError>"
