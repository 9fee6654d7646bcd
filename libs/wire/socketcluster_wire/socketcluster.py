"""SocketCluster's messages, versions 1 and 2: JSON objects that are events, procedure calls and their responses.

https://github.com/SocketCluster/socketcluster/blob/master/socketcluster-protocol.md. An event is
``{"event", "data"}``; with a ``cid`` it is a call, answered by ``{"rid", "data"}`` or ``{"rid", "error"}``. Several
messages may travel as one array. The empty string is a ping, and its answer; in version 1 they are ``#1`` and ``#2``.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from socketcluster_wire.errors import MalformedMessageError
from socketcluster_wire.json_text import MAX_DEPTH, SHALLOW, may_nest_deeply, nest_deeper, replace_lone_surrogates

PING = PONG = ""
PING_V1, PONG_V1 = "#1", "#2"

HANDSHAKE = "#handshake"
SUBSCRIBE = "#subscribe"
UNSUBSCRIBE = "#unsubscribe"
PUBLISH = "#publish"
DISCONNECT = "#disconnect"
KICK_OUT = "#kickOut"
AUTHENTICATE = "#authenticate"
SET_AUTH_TOKEN = "#setAuthToken"  # noqa: S105  # an event's name
REMOVE_AUTH_TOKEN = "#removeAuthToken"  # noqa: S105

RESERVED = frozenset(
    {
        HANDSHAKE,
        SUBSCRIBE,
        UNSUBSCRIBE,
        PUBLISH,
        DISCONNECT,
        KICK_OUT,
        AUTHENTICATE,
        SET_AUTH_TOKEN,
        REMOVE_AUTH_TOKEN,
    }
)
"""The protocol's own events in version 2; in version 1 they are all whose names begin with ``#``."""

MAX_BATCH = 1000
"""The most messages that one array may hold."""

CallId: TypeAlias = int | float | str
"""What pairs a call with its response: "any number/string", and JSON has one kind of number."""


class Event(msgspec.Struct, frozen=True):
    """Something happened, or with a ``cid``, something is asked."""

    name: str
    data: Any = msgspec.UNSET
    cid: CallId | None = None


class PublishData(msgspec.Struct, frozen=True):
    """The data of ``#publish`` as a client sends it, what is published left as the JSON that it is."""

    channel: Any = None
    data: msgspec.Raw = msgspec.Raw()
    """Empty: nothing is."""


class Response(msgspec.Struct, frozen=True):
    """The answer to a call."""

    rid: CallId
    data: Any = None
    error: Any = None


Message: TypeAlias = Event | Response


class _Wire(msgspec.Struct):
    event: str | None = None  # null is as good as missing, as it is to JavaScript's != null
    data: Any = msgspec.UNSET
    cid: CallId | None = None
    rid: CallId | None = None
    error: Any = None


class _PublishWire(msgspec.Struct):
    event: str
    data: PublishData
    cid: CallId | None = None


class ErrorData(msgspec.Struct, frozen=True, rename="camel"):
    """An error as it is sent; clients make an Error object of it, with all that is set here."""

    name: str
    message: str
    data: Any = msgspec.UNSET
    is_bad_token: bool | msgspec.UnsetType = msgspec.UNSET
    """Of an auth token: is it never to be sent again?"""
    expiry: str | msgspec.UnsetType | None = msgspec.UNSET
    """When an auth token expired."""
    date: str | msgspec.UnsetType | None = msgspec.UNSET
    """When an auth token begins to be good."""
    status_code: int | msgspec.UnsetType = msgspec.UNSET
    """The close code that follows a refused handshake."""


class HandshakeReply(msgspec.Struct, frozen=True, rename="camel"):
    """What a client learns from its handshake; ``ping_timeout`` is milliseconds."""

    id: str
    ping_timeout: int
    is_authenticated: bool = False
    auth_error: ErrorData | msgspec.UnsetType = msgspec.UNSET


class AuthReply(msgspec.Struct, frozen=True, rename="camel"):
    """What a client learns from ``#authenticate``."""

    is_authenticated: bool
    auth_error: ErrorData | None = None


class PublishedData(msgspec.Struct, frozen=True):
    """The data of ``#publish`` as a subscriber gets it."""

    channel: str
    data: Any = msgspec.UNSET
    """What was published; left out where nothing was."""
    offset: str | msgspec.UnsetType = msgspec.UNSET
    """Where in the channel it is, for a client that asked."""


class RefusedReply(msgspec.Struct, frozen=True):
    """What a client of version 1 learns from a refused handshake: the close code."""

    code: int


class _OutEvent(msgspec.Struct):
    event: str
    data: Any = msgspec.UNSET
    cid: CallId | msgspec.UnsetType = msgspec.UNSET


class _OutResponse(msgspec.Struct):
    rid: CallId | msgspec.UnsetType
    data: Any = msgspec.UNSET


class _OutError(msgspec.Struct):
    rid: CallId | msgspec.UnsetType
    error: ErrorData
    data: Any = msgspec.UNSET


_decoder = msgspec.json.Decoder(_Wire | list[_Wire])
_decode_publish = msgspec.json.Decoder(_PublishWire).decode
_encode = msgspec.json.Encoder().encode
_BEGINS_PUBLISH = '{"event":"#publish",'
"""How ``JSON.stringify`` begins such a message in the clients, which make the object in this order."""


def decode(text: str) -> list[Message]:
    """Read a text message that is not a ping; the data of a ``#publish`` may be ``PublishData``.

    Raises:
        MalformedMessageError: it is not JSON or nested too deeply, holds something that is neither an event nor a
            response, or holds more than ``MAX_BATCH`` messages.
    """
    if text.startswith(_BEGINS_PUBLISH) and (published := _publication(text)) is not None:
        return [published]
    got: _Wire | list[_Wire]
    try:
        got = _decoder.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        got = _decode_replacing(text)
    if len(text) > SHALLOW and may_nest_deeply(text):
        _check_depth(got)
    if isinstance(got, list):
        if len(got) > MAX_BATCH:
            raise MalformedMessageError(f"more than {MAX_BATCH} messages in one array")
        return [_message(one) for one in got]
    return [_message(got)]


def _publication(text: str) -> Event | None:
    """Read a publication whose value needs no look; ``None``: it does, or it is something else."""
    if len(text) > SHALLOW and may_nest_deeply(text):
        return None
    try:
        got = _decode_publish(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):  # half a surrogate pair, say
        return None
    return Event(PUBLISH, got.data, got.cid) if got.event == PUBLISH else None  # a key may come twice


def _decode_replacing(text: str) -> _Wire | list[_Wire]:
    """Read JSON whose strings may hold half a surrogate pair, which JSON.stringify writes and no UTF-8 has.

    It becomes U+FFFD, as in every other text that a browser sends.
    """
    try:
        got: _Wire | list[_Wire] = _decoder.decode(replace_lone_surrogates(text))
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
        raise MalformedMessageError(str(error)) from None
    return got


def _check_depth(got: _Wire | list[_Wire]) -> None:
    messages, around = (got, 2) if isinstance(got, list) else ([got], 1)
    if nest_deeper((value for one in messages for value in (one.data, one.error)), MAX_DEPTH - around):
        raise MalformedMessageError(f"JSON nested deeper than {MAX_DEPTH}")


def _message(wire: _Wire) -> Message:
    if wire.event is not None:
        return Event(wire.event, wire.data, wire.cid)
    if wire.rid is None:
        raise MalformedMessageError("neither an event nor a response")
    return Response(wire.rid, None if wire.data is msgspec.UNSET else wire.data, wire.error)


def encode_event(name: str, data: Any = msgspec.UNSET, cid: CallId | None = None) -> bytes:
    """Write an event; with a ``cid`` the client answers it.

    Raises:
        TypeError: ``data`` is, or holds, what JSON has no form for.
        ValueError: a text in it is not Unicode (``UnicodeEncodeError``), or a number is out of range.
        RecursionError: it is nested too deeply, or holds itself.
    """
    return _encode(_OutEvent(name, data, msgspec.UNSET if cid is None else cid))


def encode_disconnect(code: int, reason: str) -> bytes:
    """Write the event that says why the connection ends; what of the reason has no UTF-8 becomes a question mark."""
    return encode_event(DISCONNECT, {"code": code, "reason": reason.encode(errors="replace").decode()})


def encode_response(rid: CallId | None, data: Any = msgspec.UNSET) -> bytes:
    """Write the answer to the call whose ``cid`` was ``rid``; that to a handshake or ``#authenticate`` may go without.

    Raises:
        TypeError, ValueError, RecursionError: as those of :func:`encode_event`.
    """
    return _encode(_OutResponse(msgspec.UNSET if rid is None else rid, data))


def encode_error(rid: CallId | None, error: ErrorData, data: Any = msgspec.UNSET) -> bytes:
    """Write that the call whose ``cid`` was ``rid`` failed.

    Raises:
        TypeError, ValueError, RecursionError: as those of :func:`encode_event`.
    """
    return _encode(_OutError(msgspec.UNSET if rid is None else rid, error, data))


def join(messages: list[bytes]) -> bytes:
    """Write several messages as one array."""
    return b"[" + b",".join(messages) + b"]"
