"""Packets between a balancer and a worker that takes an accepted socket over.

One packet a client, on a ``SOCK_SEQPACKET`` Unix socket; the descriptor travels beside it as ``SCM_RIGHTS``::

    version  flags  id       [port  length  host]   head
    u8       u8     u64      [u16   u8      ...]    the rest of the packet

and packets back: with the ids of all that came together, as soon as the worker holds their descriptors (kind 0); as
soon as it finds that it has none for a client, or that the kernel had none to pass it by (kind 2); and later, with the
ids of many again, when their connections have ended (kind 1)::

    version  kind  id...
    u8       u8    u64...

A balancer that got no acknowledgement gives the client to another worker, after it has made sure that no
acknowledgement can be sent any more. So a worker touches a client's socket only once its acknowledgement was sent; if
that fails, it closes its descriptor and forgets the client. A client that was declined is the balancer's, as before.

A side that does not know what the other one says (a later version, a kind that came later) ends the connection, and the
balancer gives the clients on it that are not acknowledged to another worker.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from socketcluster_wire.errors import MalformedHandoffError

VERSION = 3
"""The first byte of every packet."""

MAX_PACKET_BYTES = 32 * 1024
"""The size of the largest packet; a receiver's buffer of this size loses nothing."""

MAX_IDS = 500
"""The ids that a packet which comes back has at most."""

MAX_REPLY_BYTES = 2 + 8 * MAX_IDS
"""The size of the largest packet that comes back."""

_TLS = 1
_CLIENT = 2

_TAKEN = 0
_ENDED = 1
_DECLINED = 2

_START = struct.Struct("!BBQ")
_CLIENT_START = struct.Struct("!HB")
_REPLY_START = struct.Struct("!BB")


@dataclass(frozen=True, slots=True)
class Handoff:
    """A client that a worker takes over."""

    id: int
    """Names the packet in its acknowledgement; unique on a connection."""
    head: bytes
    """Everything that the balancer has read from the client's socket."""
    tls: bool
    """Did the client come by TLS?"""
    client: tuple[str, int] | None
    """The client's host and port, if the socket's own peer is not it."""


def encode(handoff: Handoff) -> bytes:
    """Return the packet of a handover.

    Raises:
        ValueError: it would be larger than ``MAX_PACKET_BYTES``.
    """
    flags = _TLS if handoff.tls else 0
    if handoff.client is None:
        packet = _START.pack(VERSION, flags, handoff.id) + handoff.head
    else:
        host, port = handoff.client
        name = host.encode()
        start = _START.pack(VERSION, flags | _CLIENT, handoff.id)
        packet = b"".join((start, _CLIENT_START.pack(port, len(name)), name, handoff.head))
    if len(packet) > MAX_PACKET_BYTES:
        raise ValueError(f"a handoff packet of {len(packet)} bytes is over the limit of {MAX_PACKET_BYTES}")
    return packet


def decode(packet: bytes) -> Handoff:
    """Return the handover that a packet describes.

    Raises:
        MalformedHandoffError: it is not a packet of this version.
    """
    try:
        version, flags, number = _START.unpack_from(packet)
    except struct.error:
        raise MalformedHandoffError(f"a handoff packet of {len(packet)} bytes is too short") from None
    if version != VERSION:
        raise MalformedHandoffError(f"handoff version {version}, expected {VERSION}")
    if flags & ~(_TLS | _CLIENT):
        raise MalformedHandoffError(f"unknown handoff flags {flags:#04x}")
    position = _START.size
    client = None
    if flags & _CLIENT:
        try:
            port, length = _CLIENT_START.unpack_from(packet, position)
            position += _CLIENT_START.size
            name = packet[position : position + length]
            position += length
            if len(name) != length:
                raise MalformedHandoffError("a handoff packet ends within the client's address")
            client = (name.decode(), port)
        except (struct.error, UnicodeDecodeError):
            raise MalformedHandoffError("a handoff packet's client address is malformed") from None
    return Handoff(id=number, head=packet[position:], tls=bool(flags & _TLS), client=client)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a worker says about clients that were handed to it."""

    ids: tuple[int, ...]
    """The packets that they came with; one, if it is declined."""
    ended: bool
    """Have their connections ended?"""
    declined: bool = False
    """Has the worker no descriptor for the client? If neither, it holds the client's descriptor now."""


def encode_ack(*numbers: int) -> bytes:
    """Return the packet that acknowledges the handovers with these ids.

    Raises:
        ValueError: there is none, or there are more than ``MAX_IDS``.
    """
    return _encode_reply(_TAKEN, numbers)


def encode_decline(number: int) -> bytes:
    """Return the packet that says that there is no descriptor for the client with the id ``number``."""
    return _encode_reply(_DECLINED, (number,))


def encode_ended(numbers: Sequence[int]) -> bytes:
    """Return the packet that says that the connections with these ids have ended.

    Raises:
        ValueError: there is none, or there are more than ``MAX_IDS``.
    """
    return _encode_reply(_ENDED, numbers)


def _encode_reply(kind: int, numbers: Sequence[int]) -> bytes:
    if not 1 <= len(numbers) <= MAX_IDS:
        raise ValueError(f"a packet has 1 to {MAX_IDS} ids, not {len(numbers)}")
    return struct.pack(f"!BB{len(numbers)}Q", VERSION, kind, *numbers)


def decode_reply(packet: bytes) -> Reply:
    """Return what a packet from a worker says.

    Raises:
        MalformedHandoffError: it is not such a packet of this version.
    """
    count, rest = divmod(len(packet) - _REPLY_START.size, 8)
    if rest or not 1 <= count <= MAX_IDS:
        raise MalformedHandoffError(f"a handoff reply of {len(packet)} bytes")
    version, kind = _REPLY_START.unpack_from(packet)
    if version != VERSION or kind not in (_TAKEN, _ENDED, _DECLINED) or (kind == _DECLINED and count != 1):
        raise MalformedHandoffError(f"not a handoff reply of version {VERSION}: {packet[:16]!r}")
    ids: tuple[int, ...] = struct.unpack_from(f"!{count}Q", packet, _REPLY_START.size)
    return Reply(ids, ended=kind == _ENDED, declined=kind == _DECLINED)
