"""Which worker a client is given to. Pure: the same arguments, the same choice, but for ``draw``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Protocol, TypeVar

ID_LENGTH = 8
"""Session ids and Engine.IO sids begin with this many characters of the worker that made them."""


class Candidate(Protocol):
    """A worker that may be given clients."""

    @property
    def worker_id(self) -> str:
        """Eight characters."""

    @property
    def load(self) -> float:
        """Its connections, more or less."""


C = TypeVar("C", bound=Candidate)


def choose(candidates: Sequence[C], sid: str | None, cookie: str | None, draw: Callable[[int], int]) -> C:
    """Return the worker for a client.

    Args:
        candidates: the workers that may be given clients; at least one.
        sid: the Engine.IO session that the client goes on with; its worker, if it is there.
        cookie: the value of the session cookie; its worker, or, if that is gone, the same one for the same session.
        draw: ``draw(n)`` returns a random number from 0 to n - 1.
    """
    if sid:
        named = _named(candidates, sid)
        if named is not None:
            return named
    if cookie:
        named = _named(candidates, cookie)
        return rendezvous(candidates, cookie.partition(".")[0]) if named is None else named
    count = len(candidates)
    if count == 1:
        return candidates[0]
    one = draw(count)
    other = draw(count - 1)
    other += other >= one  # any but the first one
    return candidates[one] if candidates[one].load <= candidates[other].load else candidates[other]


def rendezvous(candidates: Sequence[C], key: str) -> C:
    """Return the same worker for the same key; when a worker goes, only its own keys move."""
    return max(candidates, key=lambda candidate: _score(candidate.worker_id, key))


def _named(candidates: Sequence[C], identity: str) -> C | None:
    worker_id = identity[:ID_LENGTH]
    for candidate in candidates:
        if candidate.worker_id == worker_id:
            return candidate
    return None


def _score(worker_id: str, key: str) -> bytes:
    return blake2b(f"{worker_id}\0{key}".encode(), digest_size=8).digest()
