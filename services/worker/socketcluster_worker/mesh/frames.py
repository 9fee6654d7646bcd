"""What workers say to each other on their links: one byte tells what it is."""

from __future__ import annotations

import hmac
import struct
from typing import NamedTuple

import msgspec

from socketcluster_worker.mesh.interest import Buckets

MAX_GREETING_BYTES = 1024
"""The largest frame of somebody who has not shown yet that it knows the secret."""
NONCE_BYTES = 16

ROOMS = b"r"
"""Behind it, all that a worker has: ``Buckets``."""
JOINED = b"j"
"""``Change``: it has a room in a bucket, and had none there."""
LEFT = b"l"
"""``Change``: it has none there any more."""
LISTENS = b"n"
"""A namespace's name: it has clients there."""
BROADCAST = b"b"
"""A number, a namespace and what is broadcast."""
RECEIVED = b"a"
"""The number up to which a worker's broadcasts have come."""

_NUMBER = struct.Struct("!cQ")
_BROADCAST = struct.Struct("!cQH")


class Hello(msgspec.Struct, array_like=True, frozen=True):
    """Who links to a worker, or lets it in; the proof covers both sides' nonces."""

    worker_id: str
    origin: str
    """Which process of that worker it is."""
    app_name: str
    nonce: bytes
    proof: bytes

    def is_proven(self, key: bytes, role: bytes, nonces: bytes) -> bool:
        """Does it come from somebody who has the key?"""
        return hmac.compare_digest(self.proof, proof_of(key, role, nonces, self.worker_id, self.origin, self.app_name))


class Change(msgspec.Struct, array_like=True, frozen=True):
    """A bucket of rooms in a namespace."""

    namespace: str
    bucket: int


class Numbered(NamedTuple):
    """A broadcast."""

    number: int
    """Of those from one worker to another."""
    namespace: str
    packed: bytes


encode = msgspec.msgpack.Encoder().encode
read_hello = msgspec.msgpack.Decoder(Hello).decode
read_change = msgspec.msgpack.Decoder(Change).decode
read_rooms = msgspec.msgpack.Decoder(Buckets).decode


def proof_of(key: bytes, role: bytes, nonces: bytes, worker_id: str, origin: str, app_name: str) -> bytes:
    """Return what only somebody who has the key can say."""
    return hmac.digest(key, encode((role, nonces, worker_id, origin, app_name)), "sha256")


def write_broadcast(number: int, namespace: bytes, packed: bytes) -> bytes:
    """Return the frame of a broadcast."""
    return _BROADCAST.pack(BROADCAST, number, len(namespace)) + namespace + packed


def read_broadcast(frame: bytes) -> Numbered:
    """Read what ``write_broadcast`` wrote.

    Raises:
        ValueError: nobody did.
    """
    try:
        _kind, number, length = _BROADCAST.unpack_from(frame)
    except struct.error as error:
        raise ValueError(str(error)) from None
    start = _BROADCAST.size + length
    return Numbered(number, frame[_BROADCAST.size : start].decode(), frame[start:])


def write_received(number: int) -> bytes:
    """Return the frame that says up to which number broadcasts have come."""
    return _NUMBER.pack(RECEIVED, number)


def read_received(frame: bytes) -> int:
    """Read what ``write_received`` wrote.

    Raises:
        ValueError: nobody did.
    """
    try:
        kind, number = _NUMBER.unpack(frame)
    except struct.error as error:
        raise ValueError(str(error)) from None
    if kind != RECEIVED:
        raise ValueError(f"a frame of kind {kind!r}")
    return int(number)
