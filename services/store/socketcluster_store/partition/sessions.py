"""Who has a session, and when it ends. No I/O: the caller persists the records that it is told to, and keeps the time.

A session is *attached* while at least one link holds it; it cannot end then. Without a holder it is *detached* and has
a deadline. Its record says which, so that a restarted store knows: a detached session keeps its deadline, an attached
one gets a full timeout, within which its workers come back.

The engine may refuse a record. Memory counts then, which says what the workers have: the record is *unwritten*, and
goes with whatever concerns the session next, or by itself as soon as the engine takes it.

An id whose session was renewed, or ended on purpose, is *over* for as long as a session without sockets is kept: who
has it still is refused, so that nothing is put where nobody looks for it.
"""

from __future__ import annotations

import heapq
import itertools
import struct
from collections.abc import Collection, Iterable
from typing import Protocol

ATTACHED = b"\x01"
"""The record of an attached session."""
_DETACHED = struct.Struct(">Bd")  # 0, deadline in seconds since the Unix epoch
_OVER = b"\x02"  # instead of the 0: the session was renewed or ended, and nothing has its id until the deadline


class Holder(Protocol):
    """What holds sessions: a worker's link."""

    @property
    def worker_id(self) -> str:
        """Whose link."""

    sessions: set[str]
    """The sessions that it holds, of all partitions."""


class Sessions:
    """The sessions of one partition. Times are seconds since the Unix epoch."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._holders: dict[str, tuple[Holder, ...]] = {}  # attached sessions; few have more than one, none many
        self._deadlines: dict[str, float] = {}  # detached sessions
        self.over: dict[str, float] = {}
        """The ids that nothing has any more, and until when that is remembered."""
        self.unwritten: dict[str, None] = {}
        """The sessions whose records say something else than what is here."""
        self._begun: set[str] = set()  # sessions that began with what was refused: who attaches one is told so again
        self.unended: set[str] = set()
        """The ids that are over, though the engine has refused to end their sessions so far."""
        self._untold: set[str] = set()  # the ids of sessions that were ended, until that is told
        self._moving: dict[str, str] = {}  # the new ids of renewed sessions, until the engine has kept that
        self._heap: list[tuple[float, str]] = []
        self._queued: dict[str, float] = {}  # the earliest time at which the heap has a session

    def load(self, records: Iterable[tuple[str, bytes]], now: float, earliest: float) -> None:
        """Take over what a partition remembers, once, first; nothing ends before ``earliest``."""
        latest = now + self._timeout  # more was left of none when it was written: the time may have gone back since
        for session_id, record in records:
            if record[:1] == _OVER:
                self.over[session_id] = min(_DETACHED.unpack(record)[1], latest)
                continue
            deadline = latest if record == ATTACHED else min(_DETACHED.unpack(record)[1], latest)
            self._deadlines[session_id] = max(deadline, earliest)
        self._queued = self._deadlines | self.over
        self._heap = [(deadline, session_id) for session_id, deadline in self._queued.items()]
        heapq.heapify(self._heap)

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._holders or session_id in self._deadlines

    def attached(self, session_id: str) -> bool:
        """Does a link hold a session?"""
        return session_id in self._holders

    def holders(self, session_id: str) -> Collection[Holder]:
        """Return the links that hold a session."""
        return self._holders.get(session_id, ())

    def attach(self, session_id: str, holder: Holder) -> bytes | None:
        """Let a link hold a session, in the place of an earlier link of its worker; return the record if it changed."""
        holder.sessions.add(session_id)
        self._begun.discard(session_id)
        holders = self._holders.get(session_id)
        if holders is not None:
            self._holders[session_id] = (*_others(holders, holder.worker_id), holder)
            return self._owed(session_id)
        self._holders[session_id] = (holder,)
        self._deadlines.pop(session_id, None)
        self.unwritten.pop(session_id, None)
        return ATTACHED

    def existed(self, session_id: str) -> bool:
        """Was a session there before it is attached? One that began with what was refused was not."""
        return session_id in self and session_id not in self._begun

    def detach(self, session_id: str, holder: Holder, now: float) -> bytes | None:
        """Let a link's worker no longer hold a session; return the record if it changed."""
        holder.sessions.discard(session_id)
        if session_id in self._moving:  # it may get its old id back
            renewed_id = self._moving[session_id]
            if self.detach(renewed_id, holder, now) is not None:
                self.unwritten[renewed_id] = None
            return None
        holders = self._holders.get(session_id)
        if holders is None:
            # a holder of which this owner has not heard, or not on this link: it let go before it could say so
            return self._start_timeout(session_id, now) if session_id in self._deadlines else self._owed(session_id)
        others = _others(holders, holder.worker_id)
        if others:
            self._holders[session_id] = others
            return self._owed(session_id)
        del self._holders[session_id]
        return self._start_timeout(session_id, now)

    def release(self, session_id: str, holder: Holder, now: float) -> bytes | None:
        """Detach what a lost link still holds, unless another link of its worker does by now."""
        if holder not in self._holders.get(session_id, ()):
            return None
        return self.detach(session_id, holder, now)

    def renew(self, session_id: str, renewed_id: str, now: float) -> list[tuple[str, bytes]]:
        """Give a session another id, its holders too; return the records that changed. ``kept`` or undoing follows."""
        records = self._move(session_id, renewed_id, now)
        self._moving[session_id] = renewed_id
        return records

    def _move(self, session_id: str, renewed_id: str, now: float) -> list[tuple[str, bytes]]:
        records = [(session_id, b"")]
        holders = self._holders.pop(session_id, None)
        if holders is not None:
            self._holders[renewed_id] = holders
            for holder in holders:
                holder.sessions.discard(session_id)
                holder.sessions.add(renewed_id)
            records.append((renewed_id, ATTACHED))
        elif self._deadlines.pop(session_id, None) is not None:
            records.append((renewed_id, self._start_timeout(renewed_id, now)))
        self.over.pop(renewed_id, None)
        records[0] = session_id, self._set_over(session_id, now)
        return records

    def renewal_failed(self, session_id: str, renewed_id: str, now: float) -> None:
        """Undo what ``renew`` did: its records could not be kept."""
        self._moving.pop(session_id, None)
        self.over.pop(session_id, None)
        self._move(renewed_id, session_id, now)
        del self.over[renewed_id]

    def end(self, session_id: str, now: float) -> bytes:
        """End a session, whoever holds it; return the record. ``kept`` or ``end_failed`` follows."""
        self._untold.add(session_id)
        for holder in self._holders.pop(session_id, ()):
            holder.sessions.discard(session_id)
        self._deadlines.pop(session_id, None)
        return self._set_over(session_id, now)

    def end_failed(self, session_id: str) -> None:
        """Note that the engine refused an end: the session is over nevertheless, and is to be ended there yet."""
        if session_id in self._untold:  # else it was tried twice at a time, and the other one was kept
            self.unended.add(session_id)

    def kept(self, session_id: str) -> bool:
        """Note that the engine has kept what ``renew`` or ``end`` did; return whether it is an end, and to be told."""
        self._moving.pop(session_id, None)
        self.unended.discard(session_id)
        is_news = session_id in self._untold
        self._untold.discard(session_id)
        return is_news

    def _set_over(self, session_id: str, now: float) -> bytes:
        deadline = self.over[session_id] = now + self._timeout
        if session_id not in self._queued:
            self._queue(session_id, deadline)
        return _OVER + _DETACHED.pack(0, deadline)[1:]

    def forget_holders(self) -> None:
        """Let no link hold a session any more: the partition is not this store's now."""
        for session_id, holders in self._holders.items():
            for holder in holders:
                holder.sessions.discard(session_id)
        self._holders.clear()

    def touch(self, session_id: str, now: float) -> bytes | None:
        """Note a write to a session; return the record if it changed."""
        if session_id in self._holders:
            return self._owed(session_id)
        return self._start_timeout(session_id, now)

    # Records that were refused

    def refused(self, session_ids: Iterable[str], begun: Iterable[str] = ()) -> None:
        """Note that records could not be written, and which sessions began with what they were to tell."""
        self.unwritten.update((each, None) for each in session_ids if each in self or each in self.over)
        self._begun.update(session_id for session_id in begun if session_id in self)

    def take_unwritten(self, at_most: int) -> list[tuple[str, bytes]]:
        """Return records that are to be written, and count on it that they are; ``refused`` tells of others."""
        records = []
        for session_id in list(itertools.islice(self.unwritten, at_most)):
            del self.unwritten[session_id]
            record = self._record(session_id)
            if record is not None:  # else it has ended, and its record with it
                records.append((session_id, record))
        return records

    def _owed(self, session_id: str) -> bytes | None:
        """Return the record of a session if it is unwritten, and that is all that is to be done."""
        if session_id not in self.unwritten or session_id in self.unended:
            return None
        del self.unwritten[session_id]
        return self._record(session_id)

    def _record(self, session_id: str) -> bytes | None:
        if session_id in self._holders:
            return ATTACHED
        if session_id in self._deadlines:
            return _DETACHED.pack(0, self._deadlines[session_id])
        if session_id in self.over:
            return _OVER + _DETACHED.pack(0, self.over[session_id])[1:]
        return None

    # Ends

    def next_deadline(self) -> float | None:
        """Return when ``due`` is to be called next."""
        return self._heap[0][0] if self._heap else None

    def due(self, now: float, at_most: int) -> list[str]:
        """Forget the sessions whose end has come, and return them; the rest is due at once if they are too many.

        Among them are the ids that are ``over`` for long enough; the caller forgets those.
        """
        ended: list[str] = []
        while self._heap and self._heap[0][0] <= now and len(ended) < at_most:
            at, session_id = heapq.heappop(self._heap)
            if self._queued.get(session_id) != at:
                continue  # an earlier entry took its place
            del self._queued[session_id]
            deadline = self._deadlines.get(session_id, self.over.get(session_id))
            if deadline is None:
                continue  # attached
            if deadline > now:
                self._queue(session_id, deadline)
            else:
                self._deadlines.pop(session_id, None)
                self._begun.discard(session_id)
                ended.append(session_id)
        return ended

    def postpone(self, session_ids: Iterable[str], until: float) -> None:
        """Remember sessions that were due, because they could not be ended."""
        for session_id in session_ids:
            if session_id in self.over:
                self.over[session_id] = max(self.over[session_id], until)
                if session_id not in self._queued:
                    self._queue(session_id, self.over[session_id])
            elif session_id not in self:
                self._set_deadline(session_id, until)

    def _start_timeout(self, session_id: str, now: float) -> bytes:
        deadline = now + self._timeout
        self._set_deadline(session_id, deadline)
        self.unwritten.pop(session_id, None)
        return _DETACHED.pack(0, deadline)

    def _set_deadline(self, session_id: str, deadline: float) -> None:
        self._deadlines[session_id] = deadline
        queued = self._queued.get(session_id)
        if queued is None or deadline < queued:  # a session has one entry however often its deadline moves away
            self._queue(session_id, deadline)

    def _queue(self, session_id: str, at: float) -> None:
        self._queued[session_id] = at
        heapq.heappush(self._heap, (at, session_id))


def _others(holders: tuple[Holder, ...], worker_id: str) -> tuple[Holder, ...]:
    return tuple(holder for holder in holders if holder.worker_id != worker_id)
