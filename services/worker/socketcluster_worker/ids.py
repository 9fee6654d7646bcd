"""Ids: they begin with the worker that made them, so that a balancer finds it again."""

from __future__ import annotations

import base64
import hashlib
import secrets

ID_LENGTH = 8
"""Characters of a worker's id."""

_RANDOM_BYTES = 18  # 144 bits
_RANDOM_LENGTH = 24  # characters that they take in base64, which needs no padding for them
_AT_ONCE = 64
"""Ids whose random bits are fetched at once: each call of the kernel costs more than an id."""


def worker_id(name: str) -> str:
    """Return the id of the worker called ``name``: eight characters of ``a-z2-7``."""
    digest = hashlib.blake2s(name.encode(), digest_size=5).digest()
    return base64.b32encode(digest).decode().lower()


class IdGenerator:
    """Makes ids on behalf of one worker."""

    def __init__(self, name: str) -> None:
        self.worker_id = worker_id(name)
        self._random = ""
        self._next = 0

    def new_id(self) -> str:
        """Return a new id: the worker's, then 144 random bits, all in URL-safe characters."""
        start = self._next
        if start == len(self._random):
            self._random = secrets.token_urlsafe(_RANDOM_BYTES * _AT_ONCE)
            start = 0
        self._next = start + _RANDOM_LENGTH
        return self.worker_id + self._random[start : self._next]
