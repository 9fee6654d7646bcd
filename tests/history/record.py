"""What happened: the calls of clients with their answers, and what subscribers and holders were told.

All of it comes from one process, so its times are one clock's, that of ``time.monotonic``: a call that ended before
another one began was carried out before it.
"""

from __future__ import annotations

import enum
import itertools
import math
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


class Outcome(enum.StrEnum):
    """What a client knows of a call."""

    DONE = "done"
    REFUSED = "refused"
    """It was told that nothing was done."""
    UNKNOWN = "unknown"
    """It has no answer, or one that leaves it open."""
    CONFUSED = "confused"
    """It has an answer that is none to such a call."""


@dataclass(slots=True)
class Call:
    """A client's call."""

    number: int
    """Rises with each call; a client's calls to one partition are carried out in this order."""
    client: str
    """The worker, its incarnation, and who called: ``w1.2/adder3``."""
    what: str
    """add, list; update, count; write, read; publish; hold, leave, put, get; set_expiring, get_expiring."""
    key: str
    given: Any
    """What names the call in what is read later: a token or number; see the rules of each kind."""
    begun: float
    ended: float = math.inf
    outcome: Outcome = Outcome.UNKNOWN
    answer: Any = None
    error: str = ""

    @property
    def done(self) -> bool:
        """Was it acknowledged?"""
        return self.outcome is Outcome.DONE

    def __str__(self) -> str:
        ended = "no answer" if self.ended == math.inf else f"{self.ended:.4f}"
        answer = f" -> {short(self.answer)}" if self.done else f" {self.outcome} {self.error}".rstrip()
        return (
            f"{self.begun:.4f}..{ended} #{self.number} {self.client} {self.what} {self.key} {short(self.given)}{answer}"
        )


Place = tuple[int, int]
"""Epoch and offset of a channel's message."""


@dataclass(slots=True)
class Told:
    """What a worker heard without having asked."""

    number: int
    worker: str
    """With its incarnation: ``w1.2``."""
    at: float
    key: str
    """The channel or session."""


@dataclass(slots=True)
class Subscribed(Told):
    """A subscription began, and was answered at that time; what has a later offset is heard from here on."""

    place: Place | None = None
    """Unknown if there was no answer: what came first tells."""

    def __str__(self) -> str:
        return f"{self.at:.4f} {self.worker} subscribed {self.key} at {self.place}"


@dataclass(slots=True)
class Message(Told):
    """A channel's message."""

    place: Place
    token: str

    def __str__(self) -> str:
        return f"{self.at:.4f} {self.worker} heard {self.key} {self.place} {self.token}"


@dataclass(slots=True)
class Missed(Told):
    """A gap was told of."""

    seen: Place
    now: Place

    @property
    def epoch_changed(self) -> bool:
        """May it leave open what is missing? An epoch of 0 is that of a channel to which nothing was published."""
        return self.seen[0] not in (0, self.now[0])

    def names(self, place: Place) -> bool:
        """Is a message among what it says is missing?"""
        epoch, offset = place
        if self.epoch_changed:
            return (epoch == self.seen[0] and offset > self.seen[1]) or (epoch == self.now[0] and offset <= self.now[1])
        return epoch == self.now[0] and self.seen[1] < offset <= self.now[1]

    def __str__(self) -> str:
        return f"{self.at:.4f} {self.worker} gap in {self.key} {self.seen} to {self.now}"


@dataclass(slots=True)
class Ended(Told):
    """A session ended."""

    def __str__(self) -> str:
        return f"{self.at:.4f} {self.worker} session {self.key} ended"


@dataclass(slots=True)
class Loss:
    """A time in which data was taken away on purpose: nothing that was acknowledged before its end need be there."""

    begun: float
    ended: float = math.inf


@dataclass
class History:
    """All of it, in the order in which it happened.

    Attributes:
        session_timeout: of the stores, seconds.
        early: by how many seconds what has a time may end before it: a partition's time is kept to the second where its
            next owner is on another machine.
        calls: in the order of their numbers.
        told: in the order in which it was heard.
        losses: what was taken away.
        doubts: when nobody could tell any more whether something was lost: channels may begin new epochs after that.
        alive: the workers, with their incarnations, that were there to the end.
    """

    session_timeout: float = 1200.0
    early: float = 0.0
    calls: list[Call] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    doubts: list[float] = field(default_factory=list)
    alive: set[str] = field(default_factory=set)
    _numbers: Iterable[int] = field(default_factory=itertools.count)

    def begin(self, client: str, what: str, key: str, given: Any = None) -> Call:
        """Note that a call begins."""
        call = Call(self.next_number(), client, what, key, given, time.monotonic())
        self.calls.append(call)
        return call

    def next_number(self) -> int:
        """Return the number of what happens next."""
        return next(iter(self._numbers))

    def loss_before(self, time: float) -> Loss | None:
        """Return the last loss that had begun by then."""
        return max((loss for loss in self.losses if loss.begun <= time), key=lambda loss: loss.ended, default=None)

    def lost_since(self, begun: float, until: float) -> bool:
        """May what was done by a call that began at a time be gone at another one?"""
        loss = self.loss_before(until)
        return loss is not None and begun <= loss.ended

    def epochs_end(self, begun: float, until: float) -> bool:
        """May an epoch of a channel whose messages are kept have ended between two times?"""
        return self.lost_since(begun, until) or any(doubt <= until for doubt in self.doubts)

    def by_key(self, *what: str) -> dict[str, list[Call]]:
        """Return the calls of some kinds, those of each key together."""
        found: dict[str, list[Call]] = defaultdict(list)
        for call in self.calls:
            if call.what in what:
                found[call.key].append(call)
        return found


@dataclass(frozen=True)
class Violation:
    """Something that must not happen."""

    rule: str
    key: str
    text: str
    shown_by: tuple[Call | Told, ...]
    """What shows it."""

    def __str__(self) -> str:
        return "\n".join([f"{self.rule}: {self.key}: {self.text}", *(f"    {each}" for each in self.shown_by)])


def short(value: object) -> str:
    """Return what a line has room for."""
    text = str(value)
    return text if len(text) <= 60 else f"{text[:28]}...{text[-28:]}"


def worker_of(client: str) -> str:
    """Return the worker of a client, with its incarnation."""
    return client.partition("/")[0]
