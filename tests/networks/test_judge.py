"""Each rule, with records that keep it and one that breaks it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from networks.judge import Counts, Journal, Seen, judge

EMITS: list[list[Any]] = [["connect", "1"], *(["emit", number] for number in (1, 3, 5, 7))]


def made(**changes: Any) -> tuple[Seen, Journal]:
    """Return records of four emits, three calls and three messages that are in order, but for these changes."""
    record: dict[str, Any] = {
        "messages": ["a", "b", "c"],
        "events": EMITS,
        "handed": [1, 3, 5, 7],
        "calls": {2: [["answered", 2]], 4: [["rejected", "TimeoutError", ""]], 6: [["answered", 6]]},
    }
    ran = {**{("emit", "me", number): 1 for number in (1, 3, 5, 7)}, ("call", "me", 2): 1, ("call", "me", 6): 1}
    journal = Journal(Counter(ran | changes.pop("ran", {})), changes.pop("history", ["a", "b", "c"]))
    return Seen("me", **(record | changes)), journal


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ran": {("call", "me", 4): 1}},
        {"ran": {("emit", "you", 1): 2}},
        # The last before the connection's end are lost, or told, whether they ran or not.
        {"ran": {("emit", "me", 5): 0, ("emit", "me", 7): 0}, "events": [*EMITS, ["disconnect", 1006, ""]]},
        {"ran": {("emit", "me", 1): 0}, "events": [["emit", 1], ["disconnect", 1006, ""], *EMITS[2:]]},
        {"ran": {("emit", "me", 7): 0}, "events": [*EMITS, ["told", "SocketClosedError", 7, ""]], "handed": [1, 3, 5]},
        {"events": [*EMITS, ["told", "SocketClosedError", 7, ""]]},
    ],
)
def test_records_without_fault(changes: dict[str, Any]) -> None:
    assert judge(*made(**changes)) == []


@pytest.mark.parametrize(
    ("violation", "changes"),
    [
        ("2 of 3 messages: missing [b]", {"messages": ["a", "c"]}),
        ("2 of 3 messages: missing [c]", {"messages": ["a", "b"]}),
        ("missing [], twice [b]", {"messages": ["a", "b", "b", "c"]}),
        ("missing [], twice [], never published [], or out of order", {"messages": ["a", "c", "b"]}),
        ("never published [x]", {"messages": ["a", "b", "c", "x"]}),
        ("published twice: [b]", {"messages": ["a", "b", "b"], "history": ["a", "b", "b"]}),
        ("gaps in a channel with history", {"gaps": [{"channel": "c", "missing": None}]}),
        ("calls never answered nor rejected: [2]", {"calls": {2: []}}),
        ("calls answered or rejected more than once: [2]", {"calls": {2: [["answered", 2], ["answered", 2]]}}),
        ("calls run twice: [4]", {"ran": {("call", "me", 4): 2}}),
        ("calls answered but not run: [6]", {"ran": {("call", "me", 6): 0}}),
        ("calls answered with another's answer: [2]", {"calls": {2: [["answered", 6]]}}),
        ("calls run although too many waited: [2]", {"calls": {2: [["rejected", "QueueFullError", ""]]}}),
        ("emits run twice: [3]", {"ran": {("emit", "me", 3): 2}}),
        (
            "emits neither sent nor told of: [7]",
            {"ran": {("emit", "me", 7): 0}, "handed": [1, 3, 5], "events": [*EMITS, ["disconnect", 1006, ""]]},
        ),
        ("emits told of by errors of other names: [Error]", {"events": [*EMITS, ["told", "Error", 7, ""]]}),
        ("emits told of that nobody made: [9]", {"events": [*EMITS, ["told", "QueueFullError", 9, ""]]}),
        (
            "emits [3] lost by a connection that carried 5 after them",
            {"ran": {("emit", "me", 3): 0}, "events": [*EMITS, ["disconnect", 1006, ""]]},
        ),
        ("emits lost though the connection was not: [7]", {"ran": {("emit", "me", 7): 0}}),
        ("uncaught: [Error: oh]", {"uncaught": ["Error: oh"]}),
    ],
)
def test_each_violation_is_found(violation: str, changes: dict[str, Any]) -> None:
    found = judge(*made(**changes))
    assert len(found) == 1
    assert found[0].startswith("me: ")
    assert violation in found[0]


def test_what_became_of_things_is_counted() -> None:
    ran = {("emit", "me", 5): 0, ("emit", "me", 7): 0}
    events = [*EMITS, ["told", "SocketClosedError", 7, ""], ["disconnect", 1006, ""]]
    counts = Counts.of(*made(ran=ran, events=events))
    assert counts == Counts(messages=3, answered=2, rejected=1, run=2, told=1, lost=1, losses=1)
    assert counts + counts == Counts(messages=6, answered=4, rejected=2, run=4, told=2, lost=2, losses=2)


def test_a_record_of_the_page_is_read() -> None:
    record = {"messages": [], "gaps": [], "calls": {"2": []}, "events": [["emit", 1]], "handed": [], "uncaught": []}
    seen = Seen.load("me", record)
    assert (seen.calls, seen.emits) == ({2: []}, [1])
