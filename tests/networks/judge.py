"""Says what of a run in a bad network must not have happened, whatever time things took.

Of each client: the channel's messages came in order and once, without a gap, to the last; each call was answered or
rejected, once, and never ran twice; an answered one ran, and has its own answer. An emit ran once at most. One that did
not run was told as not sent, or had been handed to a network that was lost with it: a connection loses what was sent at
its end, and nothing before what came through. A client that was open to the end has lost nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

NOT_SENT = {"SocketClosedError", "QueueFullError", "MessageTooLargeError"}
"""Names of the errors that tell of an emit that was not sent."""
MOST_ALIKE = 5
"""Numbers that a line names."""


@dataclass
class Seen:
    """What a client recorded; see ``tests/controllers/networks/recorder.js``."""

    client: str
    messages: list[Any] = field(default_factory=list)
    gaps: list[Any] = field(default_factory=list)
    calls: dict[int, list[list[Any]]] = field(default_factory=dict)
    events: list[list[Any]] = field(default_factory=list)
    handed: list[int] = field(default_factory=list)
    uncaught: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, client: str, record: dict[str, Any]) -> Seen:
        """Read what the recorder gives."""
        calls = {int(number): outcomes for number, outcomes in record["calls"].items()}
        return cls(client, **(record | {"calls": calls}))

    @property
    def emits(self) -> list[int]:
        """Their numbers."""
        return [event[1] for event in self.events if event[0] == "emit"]

    @property
    def told(self) -> dict[int, str]:
        """The error's name by the number of the emit that it told of."""
        return {event[2]: event[1] for event in self.events if event[0] == "told"}


@dataclass
class Journal:
    """What the server knows.

    Attributes:
        ran: how often each call or emit did: ``("call" or "emit", client, number)``.
        history: the channel's messages, in order.
    """

    ran: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    history: list[Any] = field(default_factory=list)


@dataclass
class Counts:
    """What a client did and what became of it."""

    messages: int = 0
    answered: int = 0
    rejected: int = 0
    run: int = 0
    told: int = 0
    lost: int = 0
    losses: int = 0
    """Of its connection."""

    @classmethod
    def of(cls, seen: Seen, journal: Journal) -> Counts:
        """Count."""
        outcomes = Counter(outcome[0] for outcomes in seen.calls.values() for outcome in outcomes)
        ran = {number for number in seen.emits if journal.ran["emit", seen.client, number]}
        missing = set(seen.emits) - ran
        return cls(
            len(seen.messages),
            outcomes["answered"],
            outcomes["rejected"],
            len(ran),
            len(missing & seen.told.keys()),
            len(missing - seen.told.keys()),
            sum(event[0] == "disconnect" for event in seen.events),
        )

    def __add__(self, other: Counts) -> Counts:
        """Add each to its like."""
        return Counts(*(one + another for one, another in zip(vars(self).values(), vars(other).values(), strict=True)))


def judge(seen: Seen, journal: Journal) -> list[str]:
    """Return all that is wrong of what a client saw."""
    rules = (judge_messages, judge_calls, judge_emits, judge_losses, judge_troubles)
    return [f"{seen.client}: {violation}" for rule in rules for violation in rule(seen, journal)]


def judge_messages(seen: Seen, journal: Journal) -> Iterator[str]:
    """In order, once, all of them; and each was published once."""
    if seen.messages != journal.history:
        twice = [message for message, count in Counter(map(str, seen.messages)).items() if count > 1]
        missing = [message for message in journal.history if message not in seen.messages]
        strange = [message for message in seen.messages if message not in journal.history]
        counts = f"{len(seen.messages)} of {len(journal.history)} messages"
        yield f"{counts}: missing {few(missing)}, twice {few(twice)}, never published {few(strange)}, or out of order"
    published = Counter(map(str, journal.history))
    if twice := [message for message, count in published.items() if count > 1]:
        yield f"published twice: {few(twice)}"
    if seen.gaps:
        yield f"gaps in a channel with history: {few(seen.gaps)}"


def judge_calls(seen: Seen, journal: Journal) -> Iterator[str]:
    """Answered or rejected once; run once at most; run if answered, not if told as not sent."""
    ran = {number: journal.ran["call", seen.client, number] for number in seen.calls}
    outcomes = seen.calls.items()
    wrong = {
        "never answered nor rejected": [number for number, each in outcomes if not each],
        "answered or rejected more than once": [number for number, each in outcomes if len(each) > 1],
        "run twice": [number for number, times in ran.items() if times > 1],
        "answered but not run": [number for number, each in outcomes if is_answered(each) and not ran[number]],
        "answered with another's answer": [
            number for number, each in outcomes if any(one[0] == "answered" and one[1] != number for one in each)
        ],
        "run although too many waited": [
            number for number, each in outcomes if ran[number] and any(one[1] == "QueueFullError" for one in each)
        ],
    }
    for what, numbers in wrong.items():
        if numbers:
            yield f"calls {what}: {few(numbers)}"


def is_answered(outcomes: Sequence[Sequence[Any]]) -> bool:
    """Was a call answered?"""
    return any(outcome[0] == "answered" for outcome in outcomes)


def judge_emits(seen: Seen, journal: Journal) -> Iterator[str]:
    """Run once at most; run, told as not sent, or handed to the network."""
    ran = {number: journal.ran["emit", seen.client, number] for number in seen.emits}
    told, handed = seen.told, set(seen.handed)
    if twice := [number for number, times in ran.items() if times > 1]:
        yield f"emits run twice: {few(twice)}"
    silent = [number for number in ran if not ran[number] and number not in told and number not in handed]
    if silent:
        yield f"emits neither sent nor told of: {few(silent)}"
    if wrong := sorted(set(told.values()) - NOT_SENT):
        yield f"emits told of by errors of other names: {few(wrong)}"
    if unknown := sorted(told.keys() - ran.keys()):
        yield f"emits told of that nobody made: {few(unknown)}"


def judge_losses(seen: Seen, journal: Journal) -> Iterator[str]:
    """Each connection loses at most what was emitted last before it ended; the one that stays open loses nothing."""
    told = seen.told
    lost: list[int] = []
    for event in seen.events:
        if event[0] == "disconnect":
            lost = []
        elif event[0] == "emit" and event[1] not in told:
            if not journal.ran["emit", seen.client, event[1]]:
                lost.append(event[1])
            elif lost:
                yield f"emits {few(lost)} lost by a connection that carried {event[1]} after them"
                lost = []
    if lost:
        yield f"emits lost though the connection was not: {few(lost)}"


def judge_troubles(seen: Seen, _journal: Journal) -> Iterator[str]:
    """Nothing is thrown that nobody can catch."""
    if seen.uncaught:
        yield f"uncaught: {few(seen.uncaught)}"


def few(items: Sequence[Any]) -> str:
    """Return the first of them, as text."""
    shown = ", ".join(map(str, items[:MOST_ALIKE]))
    return f"[{shown}{f', ... {len(items)} in all' if len(items) > MOST_ALIKE else ''}]"
