"""Engine.IO, revision 4 of its protocol: packets, and how polling and WebSocket carry them.

https://github.com/socketio/engine.io-protocol. A packet is a type and its data; over WebSocket a text message is
the type's digit and the text, a binary message is a message packet by itself; over polling the packets of one
payload are joined with the record separator, and binary is ``b`` and base64, which clients that were told to
(``forceBase64``) send over WebSocket too.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from enum import StrEnum

import msgspec

from socketcluster_wire.errors import MalformedPacketError

REVISION = "4"
SEPARATOR = "\x1e"
BASE64 = "b"
"""Stands for the type of a message whose data is binary, and is written as base64."""


class PacketType(StrEnum):
    """A packet's first character."""

    OPEN = "0"
    CLOSE = "1"
    PING = "2"
    PONG = "3"
    MESSAGE = "4"
    UPGRADE = "5"
    NOOP = "6"


_TYPES = {str(kind): kind for kind in PacketType}


class Packet(msgspec.Struct, frozen=True):
    """One packet; only a message's data may be bytes."""

    type: PacketType
    data: str | bytes = ""


class ErrorCode:
    """What a refused HTTP request is told, as ``{"code", "message"}``."""

    UNKNOWN_TRANSPORT = (0, "Transport unknown")
    UNKNOWN_SID = (1, "Session ID unknown")
    BAD_HANDSHAKE_METHOD = (2, "Bad handshake method")
    BAD_REQUEST = (3, "Bad request")
    FORBIDDEN = (4, "Forbidden")
    UNSUPPORTED_VERSION = (5, "Unsupported protocol version")


class Open(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The data of the open packet; times are milliseconds, ``max_payload`` is bytes.

    ``numbered`` is no part of Engine.IO, and left out unless it is true: polling requests are to have numbers.
    """

    sid: str
    upgrades: list[str]
    ping_interval: int
    ping_timeout: int
    max_payload: int
    numbered: bool = False

    def packet(self) -> Packet:
        """Return the packet that opens a connection."""
        return Packet(PacketType.OPEN, msgspec.json.encode(self).decode())


def decode_packet(text: str) -> Packet:
    """Read one packet from a WebSocket text message, or from between two separators of a polling payload.

    Raises:
        MalformedPacketError: the text is empty, its type unknown, or its binary data not base64.
    """
    kind = _TYPES.get(text[:1])
    if kind is not None:
        return Packet(kind, text[1:])
    if not text.startswith(BASE64):
        raise MalformedPacketError(f"unknown packet type {text[:1]!r}")
    try:
        return Packet(PacketType.MESSAGE, base64.b64decode(text[1:], validate=True))
    except ValueError:  # binascii's error is one, and so is what other characters than ASCII give
        raise MalformedPacketError("binary data is not base64") from None


def encode_packet(packet: Packet) -> str:
    """Write a packet as a WebSocket text message, or as one record of a polling payload; bytes become base64."""
    if isinstance(packet.data, bytes):
        return BASE64 + base64.b64encode(packet.data).decode()
    return packet.type + packet.data


def decode_payload(body: bytes) -> list[Packet]:
    """Read the packets of a polling request's body.

    Raises:
        MalformedPacketError: the body is empty or not UTF-8, or a packet is malformed.
    """
    return list(iterate_payload(body))


def iterate_payload(body: bytes) -> Iterator[Packet]:
    """Read the packets of a polling request's body one by one: of tiny ones a body may hold very many.

    Raises:
        MalformedPacketError: when it comes to it, as :func:`decode_payload`; a body that is not UTF-8 at once.
    """
    try:
        text = str(body, "utf-8")
    except UnicodeDecodeError:
        raise MalformedPacketError("the payload is not UTF-8") from None
    return _packets(text)


def _packets(text: str) -> Iterator[Packet]:
    start = 0
    while (end := text.find(SEPARATOR, start)) >= 0:
        yield decode_packet(text[start:end])
        start = end + 1
    yield decode_packet(text[start:])


def encode_payload(packets: list[Packet]) -> bytes:
    """Write packets as the body of a polling response."""
    return SEPARATOR.join(map(encode_packet, packets)).encode()
