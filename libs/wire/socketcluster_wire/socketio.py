"""Socket.IO, revision 5 of its protocol: namespaces, events and their acknowledgements, with binary attachments.

https://github.com/socketio/socket.io-protocol. One layer above Engine.IO: a packet is one text message,
``<type>[<attachments>-][<namespace>,][<ack id>][<JSON>]``, and one binary message for each attachment, which the
JSON has a placeholder for: ``{"_placeholder": true, "num": 0}``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, TypeAlias

import msgspec

from socketcluster_wire.errors import MalformedPacketError, PacketTooLargeError
from socketcluster_wire.json_text import (
    MAX_DEPTH,
    SHALLOW,
    may_hold_binary,
    may_nest_deeply,
    nest_deeper,
    replace_lone_surrogates,
)

REVISION = 5
ROOT = "/"
"""The namespace that is not written."""

MAX_ATTACHMENTS = 10
"""How many attachments a packet may have, unless a decoder is told otherwise."""

MAX_SEARCHED = 100_000
"""Values in a packet that are looked through for the places of its attachments: some milliseconds' work."""

MAX_ACK_ID = 2**53 - 1
"""The largest integer that JavaScript has no two of."""

RESERVED_EVENTS = frozenset(
    {"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"}
)
"""What an event must not be named: clients and servers tell their own users by these names."""


class PacketType(IntEnum):
    """What a packet is for.

    BINARY_EVENT (5) and BINARY_ACK (6) are no types of their own here: so an EVENT and an ACK with attachments are
    written, and what is read as one of them is an EVENT or an ACK.
    """

    CONNECT = 0
    DISCONNECT = 1
    EVENT = 2
    ACK = 3
    CONNECT_ERROR = 4


_BINARY = 3
"""What is added to the type of an EVENT or an ACK with attachments."""

_CONNECT, _DISCONNECT, _EVENT, _ACK, _CONNECT_ERROR = PacketType  # an attribute of an enum costs more than a global


class Packet(msgspec.Struct, frozen=True):
    """One packet.

    ``data`` is None or a dict for CONNECT, None for DISCONNECT, the event's name and arguments for EVENT, the
    arguments for ACK, a dict or a string for CONNECT_ERROR; in that of EVENT and ACK bytes may be anywhere. What is
    read of an EVENT or an ACK may be None: nothing was in it. ``ack_id`` is what an ACK answers, None if it cannot
    answer anything, and what an EVENT that wants one is answered with.
    """

    type: PacketType
    namespace: str = ROOT
    data: Any = None
    ack_id: int | None = None


# What a payload begins with. Only CONNECT_ERROR must have one: an EVENT without says nothing, and ends nothing.
_OPENINGS = ["{", "", "[", "[", '{"']  # by type; a dict would ask the enum for its hash, which is slow

_TYPES = {str(int(kind)): (kind, False) for kind in PacketType} | {
    str(kind + _BINARY): (kind, True) for kind in (_EVENT, _ACK)
}
_HEAD = re.compile(r"([0-6])(?:([0-9]++)-)?(?:(/[^,]*+),?)?([0-9]*+)")
_DIGITS = 16  # as many as MAX_ACK_ID has: longer numbers are not even read

_Slots: TypeAlias = "dict[int, tuple[Any, Any]]"
"""Where attachments belong: for the number of each, a list or a dict and the index or key in it."""

_load = msgspec.json.Decoder().decode
_load_array: Callable[[str], tuple[Any, ...]] = msgspec.json.Decoder(tuple).decode
_dump = msgspec.json.Encoder().encode


_NO_SLOTS: _Slots = {}


class Decoder:
    """Reads what one client sends. After an error nothing more can be read: the connection is to be closed."""

    __slots__ = ("_attachments", "_expected", "_max_attachments", "_max_bytes", "_slots", "awaiting", "size")

    def __init__(self, max_attachments: int = MAX_ATTACHMENTS, *, max_bytes: int = sys.maxsize) -> None:
        """Refuse packets of more than ``max_attachments``, or that are over ``max_bytes`` with these."""
        self._max_attachments = max_attachments
        self._max_bytes = max_bytes
        self.size = 0
        """Bytes of the last packet with attachments, as far as it has come."""
        self.awaiting: Packet | None = None
        """The packet whose attachments are still to come; meanwhile every message is for ``receive``."""
        self._expected = 0
        self._slots = _NO_SLOTS
        self._attachments: list[bytes] | None = None

    def receive(self, message: str | bytes) -> Packet | None:
        """Take the data of an Engine.IO message; return the packet that it completes, None if attachments are awaited.

        Raises:
            MalformedPacketError: it is not a packet or not the attachment that is awaited, the payload is not one of
                its type or nested too deeply, there are too many attachments, or a placeholder has none of its own.
            PacketTooLargeError: with this attachment the packet is over the limit, or there are too many values in
                which attachments could have their place.
        """
        if self.awaiting is not None:
            return self._attach(self.awaiting, message)
        if type(message) is not str:
            raise MalformedPacketError("binary data without a packet that it is attached to")
        return self._packet_of(message)

    def _packet_of(self, text: str) -> Packet | None:
        head = _HEAD.match(text)
        if head is None:
            raise MalformedPacketError(f"unknown packet type {text[:1]!r}")
        digit, attachments, namespace, ack_id = head.groups()
        kind, is_binary = _TYPES[digit]
        if is_binary != (attachments is not None):
            raise MalformedPacketError("a binary packet, and no other, has a number of attachments")
        number = _ack_id(kind, ack_id) if ack_id else None
        if namespace:
            _check_namespace(namespace)
        packet = Packet(kind, namespace or ROOT, _payload(kind, text[head.end() :]), number)
        expected = _integer(attachments, self._max_attachments, "number of attachments") if is_binary else 0
        if not expected:  # without attachments a placeholder is a dict like any other
            return packet
        self.awaiting, self._expected, self._slots = packet, expected, _find_slots(packet.data, expected)
        self.size = len(text)
        return None

    def _attach(self, packet: Packet, message: str | bytes) -> Packet | None:
        if isinstance(message, str):
            raise MalformedPacketError("text while attachments are awaited")
        self.size += len(message)
        if self.size > self._max_bytes:
            raise PacketTooLargeError(f"an event with its attachments over {self._max_bytes} bytes")
        attachments = self._attachments = self._attachments or []
        attachments.append(message)
        if len(attachments) < self._expected:
            return None
        for number, (container, key) in self._slots.items():
            container[key] = attachments[number]
        self.awaiting, self._slots, self._attachments = None, _NO_SLOTS, None
        return packet


def short_event(text: str) -> tuple[str, tuple[Any, ...], int | None] | None:
    """Read an event of the root namespace without attachments, as nearly all messages are.

    Returns:
        Its name, its arguments, and its ack id if it has one; ``None`` is no answer, the message is for
        :meth:`Decoder.receive` then.
    """
    if text[:1] != "2" or (len(text) > SHALLOW and may_nest_deeply(text)):
        return None
    start = text.find("[", 1, _DIGITS + 1)
    if start < 1:
        return None
    try:
        data = _load_array(text[start:])
        if start == 1:
            number = None
        else:
            digits = text[1:start]
            if not (digits.isdecimal() and digits.isascii()):  # int() takes " 1_0" for a number
                return None
            number = int(digits)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return None
    if not data or type(data[0]) is not str or data[0] in RESERVED_EVENTS:
        return None
    return data[0], data[1:], number


def _integer(digits: str, most: int, what: str) -> int:
    if len(digits) > _DIGITS or (value := int(digits)) > most:
        raise MalformedPacketError(f"{what} above {most}")
    return value


def _ack_id(kind: PacketType, digits: str) -> int | None:
    """Read an ack id; one that nobody gave acknowledges nothing."""
    if kind is _ACK and (len(digits) > _DIGITS or int(digits) > MAX_ACK_ID):
        return None
    return _integer(digits, MAX_ACK_ID, "ack id")


def _check_namespace(name: str) -> None:
    """Refuse what could not be answered."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise MalformedPacketError("the namespace is not Unicode") from None


def _payload(kind: PacketType, text: str) -> Any:
    """Read the JSON at the end of a packet, which is of the form that the packet's type asks for."""
    if not text and kind is not _CONNECT_ERROR:
        return None
    if not text or text[0] not in _OPENINGS[kind]:  # this, and that it is JSON, says that it is a list, a dict, a str
        raise MalformedPacketError(f"not the payload of a packet of type {kind.name}")
    try:
        data = _load(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        data = _load_replacing(text)
    if len(text) > SHALLOW and may_nest_deeply(text) and nest_deeper((data,), MAX_DEPTH):
        raise MalformedPacketError(f"JSON nested deeper than {MAX_DEPTH}")
    if kind is _EVENT and not (data and _is_event_name(data[0])):
        raise MalformedPacketError("an event without a name, or of a reserved one")
    return data


def _load_replacing(text: str) -> Any:
    try:
        return _load(replace_lone_surrogates(text))
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
        raise MalformedPacketError(str(error)) from None


def _is_event_name(value: object) -> bool:
    kind = type(value)
    if kind is str:
        return value not in RESERVED_EVENTS
    return kind is int or kind is float  # and not a bool, which is an int to isinstance


def _find_slots(data: Any, most: int) -> _Slots:
    """Find the placeholders: no two of a number, which would multiply an attachment when it is sent on."""
    slots: _Slots = {}
    unseen: list[Any] = [[data]]  # a loop, because the JSON decoder nests deeper than Python calls
    searched = 0
    while unseen:
        container = unseen.pop()
        searched += len(container)
        if searched > MAX_SEARCHED:
            raise PacketTooLargeError(f"an event with attachments and over {MAX_SEARCHED} values")
        for key, value in container.items() if type(container) is dict else enumerate(container):
            if type(value) is dict and value.get("_placeholder") is True:
                number = value.get("num")
                if type(number) is not int or not 0 <= number < most or number in slots:
                    raise MalformedPacketError("a placeholder without an attachment of its own")
                slots[number] = container, key
            elif type(value) is dict or type(value) is list:
                unseen.append(value)
    return slots


def encode(packet: Packet) -> tuple[bytes, list[bytes]]:
    """Write a packet: its text, as UTF-8, and its attachments, each of which follows as a binary message.

    The bytes, bytearrays and memoryviews in the data of an EVENT or an ACK become attachments, in their order;
    in other packets, whose type has none, they are written as base64.

    Raises:
        TypeError: ``data`` is, or holds, what JSON has no form for, or beside bytes what looks like a placeholder.
        ValueError: a text in it is not Unicode (``UnicodeEncodeError``), or a number is out of range.
        BufferError: it holds a memoryview that is not contiguous, where only base64 can be written.
        RecursionError: it is nested too deeply, or holds itself.
    """
    kind, data = packet.type, packet.data
    if (kind is _EVENT or kind is _ACK) and may_hold_binary(data):
        return _encode_binary(packet)
    body = b"" if data is None else _dump(data)
    if packet.namespace == ROOT:
        return _DIGIT[kind] + (b"" if packet.ack_id is None else b"%d" % packet.ack_id) + body, []
    return f"{kind:d}{_address(packet)}".encode() + body, []


def ack_prefix(namespace: str) -> bytes:
    """Return what every ACK without attachments of a namespace begins with, for :func:`encode_ack`."""
    return b"3" if namespace == ROOT else f"3{namespace},".encode()


def encode_ack(prefix: bytes, ack_id: int, args: Sequence[Any]) -> bytes | None:
    """Write an ACK without attachments; ``None``: ``args`` may need some, ask :func:`encode`.

    Raises:
        TypeError, ValueError, RecursionError: as those of :func:`encode`.
    """
    return None if may_hold_binary(args) else b"%b%d%b" % (prefix, ack_id, _dump(args))


def encode_json_event(namespace: str, name: str, args: bytes, offset: str | None = None) -> bytes:
    """Write an event without attachments.

    Args:
        namespace: its own.
        name: the event's.
        args: the JSON of the list of its arguments.
        offset: comes behind them if it is given.

    Raises:
        UnicodeEncodeError: the name is not Unicode.
    """
    kind = b"2" if namespace == ROOT else f"2{namespace},".encode()
    inside = [_dump(name), args[1:-1], b"" if offset is None else _dump(offset)]
    return b"%b[%b]" % (kind, b",".join(filter(None, inside)))


def _address(packet: Packet) -> str:
    namespace = "" if packet.namespace == ROOT else packet.namespace + ","
    return namespace if packet.ack_id is None else f"{namespace}{packet.ack_id}"


_DIGIT = [b"%d" % kind for kind in PacketType]
_BINARY_TYPES = (bytes, bytearray, memoryview)


def _encode_binary(packet: Packet) -> tuple[bytes, list[bytes]]:
    attachments: list[bytes] = []
    # First what holds the bytes, be it a dataclass, a struct or a set, becomes lists and dicts.
    plain = msgspec.to_builtins(packet.data, builtin_types=_BINARY_TYPES)
    body = _dump(_extract(plain, attachments))
    if attachments and _holds_placeholder(plain):  # its clients would take it for an attachment
        raise TypeError('a dict with the key "_placeholder" cannot travel beside attachments')
    binary = f"{packet.type + _BINARY}{len(attachments)}-" if attachments else f"{packet.type:d}"
    return f"{binary}{_address(packet)}".encode() + body, attachments


def _holds_placeholder(value: Any) -> bool:
    if isinstance(value, dict):
        return bool(value.get("_placeholder")) or any(map(_holds_placeholder, value.values()))
    return isinstance(value, list | tuple) and any(map(_holds_placeholder, value))


def _extract(value: Any, attachments: list[bytes]) -> Any:
    """Return the value with placeholders for the bytes in it, which are appended to the attachments."""
    if isinstance(value, dict):
        return {key: _extract(item, attachments) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_extract(item, attachments) for item in value]
    if isinstance(value, _BINARY_TYPES):
        attachments.append(bytes(value))
        return {"_placeholder": True, "num": len(attachments) - 1}
    return value


def connect(namespace: str, sid: str, pid: str | None = None) -> Packet:
    """Return what a client is told that may use the namespace; ``pid`` is what it recovers its state with."""
    return Packet(_CONNECT, namespace, {"sid": sid} if pid is None else {"sid": sid, "pid": pid})


def connect_error(namespace: str, message: str, data: Any = None) -> Packet:
    """Return what a client is told that may not use the namespace; it makes an Error with ``data`` of it."""
    return Packet(
        _CONNECT_ERROR, namespace, {"message": message} if data is None else {"message": message, "data": data}
    )


def disconnect(namespace: str) -> Packet:
    """Return what ends the use of the namespace."""
    return Packet(_DISCONNECT, namespace)


def event(namespace: str, args: Sequence[Any], ack_id: int | None = None) -> Packet:
    """Return an event, whose name is the first of ``args``; with an ``ack_id`` it wants to be acknowledged."""
    return Packet(_EVENT, namespace, args, ack_id)


def ack(namespace: str, ack_id: int, args: Sequence[Any]) -> Packet:
    """Return the acknowledgement of the event that had this ``ack_id``."""
    return Packet(_ACK, namespace, args, ack_id)
