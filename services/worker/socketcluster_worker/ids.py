"""Ids: they begin with the worker that made them, so that a balancer finds it again."""

from __future__ import annotations

import base64
import hashlib
import secrets

ID_LENGTH = 8
"""Characters of a worker's id."""

_RANDOM_BYTES = 18  # 144 bits


def worker_id(name: str) -> str:
    """Return the id of the worker called ``name``: eight characters of ``a-z2-7``."""
    digest = hashlib.blake2s(name.encode(), digest_size=5).digest()
    return base64.b32encode(digest).decode().lower()


class IdGenerator:
    """Makes ids on behalf of one worker."""

    def __init__(self, name: str) -> None:
        self.worker_id = worker_id(name)

    def new_id(self) -> str:
        """Return a new id: the worker's, then 144 random bits, all in URL-safe characters."""
        return self.worker_id + secrets.token_urlsafe(_RANDOM_BYTES)
