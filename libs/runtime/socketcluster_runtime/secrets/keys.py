"""The keys of a cluster: one for each purpose, derived from its secret, which itself is used and sent nowhere.

Who learns one of them (that of auth tokens, from a program that verifies them, or that of the calls, from a network)
learns neither the secret nor any other key.
"""

from __future__ import annotations

import hmac
from enum import Enum

_SALT = b"socketcluster"
_HASH = "sha256"
_HASH_BYTES = 32


class Purpose(Enum):
    """What a key is for."""

    CALLS = "gRPC calls between services"
    """Shows that a caller belongs to the cluster."""
    PROXY_HEADERS = "PROXY headers"
    """Signs what a balancer or worker says of a client to a worker."""
    MESH = "links between workers"
    SESSION_COOKIES = "session cookies"
    AUTH_TOKENS = "auth tokens"


def derive_key(secret: str, purpose: Purpose, context: str = "", size: int = 32) -> bytes:
    """Return a key by HKDF with SHA-256 (RFC 5869).

    Args:
        secret: the cluster's.
        purpose: what it is for.
        context: what keeps keys of one purpose apart, such as an application's name.
        size: bytes of the key, at most 8160.
    """
    pseudo_random = hmac.digest(_SALT, secret.encode(), _HASH)
    info = f"{purpose.value}\0{context}".encode()
    key = block = b""
    for number in range(1, -(-size // _HASH_BYTES) + 1):
        block = hmac.digest(pseudo_random, block + info + bytes((number,)), _HASH)
        key += block
    return key[:size]
