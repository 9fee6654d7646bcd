"""What a worker has to do with sessions: those of one partition, which of their ends it told of, and which emits."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from cachetools import FIFOCache

from socketcluster_proto.v1 import store_pb2

MAX_GONE = 4096
"""Sessions of a partition that are remembered to have ended unheard: the last ones."""
MAX_HEARD = 100_000
"""Emits that are remembered: of all workers, the last ones heard."""

_HERE = 1  # there are sockets of it
_KNOWN = 2  # a store said that it exists, and its end was not heard of


class HeldSessions:
    """The sessions that have sockets here, and those that had and whose end was not heard of."""

    __slots__ = ("_gone", "_on_gone", "_renewals", "states")

    def __init__(self, on_gone: Callable[[str], None]) -> None:
        """Hold none; ``on_gone`` is called with a session that ended unheard."""
        self.states: dict[str, int] = {}
        # Sessions that ended unheard, as the owner said when it was asked, and its epoch: former ones may be late for
        # long, however many owners there were since
        self._gone: FIFOCache[str, int] = FIFOCache(MAX_GONE)
        self._renewals: dict[str, int] = {}  # by session, how many renewals have no answer
        self._on_gone = on_gone

    def is_here(self, session_id: str) -> bool:
        """Are there sockets of a session here?"""
        return bool(self.states.get(session_id, 0) & _HERE)

    def all_here(self) -> list[str]:
        """Return the sessions of which there are sockets here."""
        return [session_id for session_id, state in self.states.items() if state & _HERE]

    def left(self) -> list[str]:
        """Return the sessions that had sockets here, and may exist."""
        return [session_id for session_id, state in self.states.items() if state == _KNOWN]

    def attach(self, session_id: str) -> None:
        """Remember a session of which there are sockets here."""
        self.states[session_id] = self.states.get(session_id, 0) | _HERE

    def attached(self, session_id: str, *, existed: bool, epoch: int) -> None:
        """Take the answer of the owner with that epoch to an attachment."""
        state = self.states.get(session_id)
        if state is None:
            return
        self.states[session_id] = state | _KNOWN
        if state & _KNOWN and not existed:
            self._went(session_id, epoch)

    def detach(self, session_id: str) -> None:
        """Remember that there are no sockets of a session here any more; its end is still to be heard."""
        if session_id in self.states:
            self.states[session_id] &= ~_HERE

    def settle(self, session_id: str) -> None:
        """Forget a session that has no sockets here, unless a store said that it exists: else no end will be told."""
        if self.states.get(session_id) == 0:
            del self.states[session_id]

    def forget(self, session_id: str) -> None:
        """Forget a session that is over."""
        self.states.pop(session_id, None)

    def checked(self, gone: Iterable[str], epoch: int) -> None:
        """Take which of those that were ``left`` the owner with that epoch does not have."""
        for session_id in gone:
            if self.states.get(session_id) == _KNOWN:  # else it was attached meanwhile: that has an answer of its own
                del self.states[session_id]
                self._went(session_id, epoch)

    def ended(self, session_id: str, epoch: int) -> bool:
        """Note that a session's end was heard of; return false if that was told already, and a former owner is late.

        Args:
            session_id: the session.
            epoch: which the store that tells of it claims to own the partition with, 0 if it does not.
        """
        gone = self._gone.get(session_id)
        if gone is not None and epoch < gone:
            return False
        if self.states.pop(session_id, 0) & _HERE:
            self.states[session_id] = _HERE
        return True

    def ended_on_purpose(self, session_id: str, epoch: int) -> bool:
        """Do the same for an end on purpose: whatever is here of the session is on its way out."""
        self.forget(session_id)
        return self.ended(session_id, epoch)

    def _went(self, session_id: str, epoch: int) -> None:
        self._gone[session_id] = epoch
        self._on_gone(session_id)

    # Other ids

    def renewed(self, session_id: str, renewed_id: str) -> bool | None:
        """Note that a session has another id; return whether there are sockets of it, ``None``: it is not known."""
        state = self.states.pop(session_id, None)
        if state is None:
            return None
        state = self.states[renewed_id] = self.states.get(renewed_id, 0) | state
        return bool(state & _HERE)

    def is_renewing(self, session_id: str) -> bool:
        """Is a session being renewed from here? A former owner may have done so, and the answer will say."""
        return session_id in self._renewals

    def begin_renewal(self, session_id: str) -> None:
        """Note that a renewal is on its way."""
        self._renewals[session_id] = self._renewals.get(session_id, 0) + 1

    def end_renewal(self, session_id: str) -> None:
        """Note that one has its answer, or will have none."""
        left = self._renewals[session_id] - 1
        if left:
            self._renewals[session_id] = left
        else:
            del self._renewals[session_id]


class HeardEmits:
    """The last emits that were heard: one may come again after a takeover, or late from a former owner."""

    def __init__(self) -> None:
        self._heard: OrderedDict[tuple[str, int], None] = OrderedDict()  # by incarnation and id, in order

    def __len__(self) -> int:
        return len(self._heard)

    def is_new(self, emit: store_pb2.SessionMessage) -> bool:
        """Was an emit not heard of before? It is from now on."""
        key = emit.origin, emit.id
        if key in self._heard:
            return False
        self._heard[key] = None
        if len(self._heard) > MAX_HEARD:
            self._heard.popitem(last=False)
        return True
