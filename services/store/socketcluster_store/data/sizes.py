"""How large a session is, told without reading what is overwritten.

A write adds its size to an upper bound that is kept in memory; what it replaces is not subtracted. Only a session whose
bound exceeds half of what is allowed is counted, and from then on accounted exactly, until it has a quarter: so a small
session never costs a read, and a count, whose cost rises with the session's size, comes after as many bytes written.
"""

from __future__ import annotations

from collections import OrderedDict

from socketcluster_store.data.key_chains import tree_prefix
from socketcluster_store.data.key_value import KeyValue

REMEMBERED = 1024
"""Sessions of a partition whose bounds are remembered; another one is counted at its next write."""


class SessionSizes:
    """The sizes of one partition's sessions: the bytes of their keys and values."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._loose = limit // 2
        self._bounds: OrderedDict[bytes, int] = OrderedDict()
        self._exact: OrderedDict[bytes, int] = OrderedDict()

    def fits(self, kv: KeyValue, session_id: bytes, key: bytes, size: int) -> bool:
        """Account for a value of ``size`` bytes that is about to be put at ``key``, unless it is too much."""
        bound = self._bounds.get(session_id)
        if bound is not None:
            bound += len(key) + size
            if bound <= self._loose:
                self._bounds[session_id] = bound
                return True
        return self._fits_exactly(kv, session_id, key, size)

    def remove(self, session_id: bytes, size: int) -> None:
        """Account for keys and values of ``size`` bytes together that are about to be removed."""
        if session_id in self._exact:
            self._settle(session_id, self._exact[session_id] - size)

    def forget(self, session_id: bytes) -> None:
        """Have a session counted at its next write."""
        self._bounds.pop(session_id, None)
        self._exact.pop(session_id, None)

    def clear(self) -> None:
        """Forget all sessions."""
        self._bounds.clear()
        self._exact.clear()

    def _fits_exactly(self, kv: KeyValue, session_id: bytes, key: bytes, size: int) -> bool:
        before = self._exact.get(session_id)
        if before is None:
            before = self._count(kv, session_id)
        replaced = kv.get(key)
        after = before + len(key) + size - (0 if replaced is None else len(key) + len(replaced))
        fits = after <= max(self._limit, before)  # one that is too large already may still shrink
        self._settle(session_id, after if fits else before)
        return fits

    def _settle(self, session_id: bytes, size: int) -> None:
        self.forget(session_id)
        remembered = self._exact if size > self._loose // 2 else self._bounds
        if len(remembered) >= REMEMBERED:
            remembered.popitem(last=False)
        remembered[session_id] = size

    def _count(self, kv: KeyValue, session_id: bytes) -> int:
        return sum(
            len(key) + len(value) for kind in (b"d", b"x") for key, value in kv.scan(tree_prefix(kind, session_id))
        )
