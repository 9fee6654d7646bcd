"""What must not happen to sessions, and to values that have a time.

``hold`` attaches a worker to a session, ``leave`` detaches it; ``put`` sets a number in its data, ``get`` is answered
with it, 0: nothing is there.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

from history.record import Call, Ended, History, Violation, worker_of

LONG = 60.0
"""Seconds; a history waits to its end for sessions with less."""


def judge_sessions(history: History) -> Iterator[Violation]:
    """A session ends once, and not before its time after whatever was done to it last; its data is there until then."""
    ends: dict[str, list[Ended]] = defaultdict(list)
    for told in history.told:
        if isinstance(told, Ended):
            ends[told.key].append(told)
    for session, calls in history.by_key("hold", "leave", "put", "get").items():
        if history.lost_since(calls[0].begun, math.inf):
            continue
        ended = ends.pop(session, [])
        touches = [call for call in calls if call.what != "get"]
        yield from _ends(history, session, touches, ended)
        yield from _data(history, session, calls)
    for session, ended in ends.items():
        if not history.losses:
            yield Violation("session", session, "it ended, and was nobody's", tuple(ended))


def _ends(history: History, session: str, touches: Sequence[Call], ended: Sequence[Ended]) -> Iterator[Violation]:
    least = history.session_timeout - history.early
    if _may_have_ended(history, touches):
        return
    heard: dict[str, Ended] = {}
    for end in ended:
        if end.worker in heard:
            yield Violation("session", session, f"{end.worker} was told twice of its end", (heard[end.worker], end))
        heard[end.worker] = end
        early = [call for call in touches if call.ended < end.at < call.begun + least and call.done]
        if early:
            yield Violation("session", session, f"it ended before {least:g} s", (early[-1], end))


def judge_left_sessions(history: History) -> Iterator[Violation]:
    """Who let go of a session is told of its end; a history waits for that if sessions are short."""
    heard = {(told.key, told.worker) for told in history.told if isinstance(told, Ended)}
    for session, calls in history.by_key("hold", "leave", "put").items():
        last, worker = calls[-1], worker_of(calls[-1].client)
        if history.session_timeout >= LONG or last.what != "leave" or not last.done or worker not in history.alive:
            continue
        lossy = history.lost_since(calls[0].begun, math.inf)
        if (session, worker) not in heard and not lossy and not _may_have_ended(history, calls):
            yield Violation("session", session, f"{worker} was never told of its end", (last,))


def _may_have_ended(history: History, touches: Sequence[Call]) -> bool:
    """May a session have ended between what was done to it, and begun anew?

    One that is held does where its partition is not served for its time; the worker attaches it anew then.
    """
    least = history.session_timeout - history.early
    if history.session_timeout < LONG and touches[-1].what != "leave":
        return True
    return any(after.ended - before.begun >= least for before, after in pairwise(touches))


def _data(history: History, session: str, calls: Sequence[Call]) -> Iterator[Violation]:
    """Look for data that went though less than the session's time has passed since it was put there."""
    puts = [call for call in calls if call.what == "put"]
    for read in calls:
        if read.what != "get" or not read.done:
            continue
        due = [put for put in puts if put.done and put.ended < read.begun]
        newest = max(due, key=lambda put: put.given, default=None)
        if (
            newest is None
            or read.answer >= newest.given
            or read.ended - newest.begun >= history.session_timeout - history.early
        ):
            continue
        yield Violation("session", session, f"its data went back to {read.answer}", (newest, read))


def judge_expiries(history: History) -> Iterator[Violation]:
    """A value with a time is there until then.

    ``set_expiring`` is given the seconds, of a key that is set once; ``get_expiring`` is answered whether it is there.
    """
    reads = history.by_key("get_expiring")
    for key, calls in history.by_key("set_expiring").items():
        (made,) = calls
        for read in reads.get(key, ()):
            if not made.done or not read.done or read.answer or made.ended >= read.begun:
                continue
            if read.ended - made.begun < made.given - history.early and not history.lost_since(made.begun, read.ended):
                yield Violation("expiry", key, f"it is gone before {made.given:g} s", (made, read))
