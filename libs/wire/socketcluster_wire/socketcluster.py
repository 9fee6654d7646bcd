"""SocketCluster's message protocol, version 2: JSON objects that are events, procedure calls and their responses.

https://github.com/SocketCluster/socketcluster/blob/master/socketcluster-protocol.md. An event is
``{"event", "data"}``; with a ``cid`` it is a call, answered by ``{"rid", "data"}`` or ``{"rid", "error"}``. Several
messages may travel as one array. The empty string is a ping, and its answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from socketcluster_wire.errors import MalformedMessageError

PING = PONG = ""

HANDSHAKE = "#handshake"
SUBSCRIBE = "#subscribe"
UNSUBSCRIBE = "#unsubscribe"
PUBLISH = "#publish"
DISCONNECT = "#disconnect"

MAX_BATCH = 1000
"""The most messages that one array may hold."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened, or with a ``cid``, something is asked."""

    name: str
    data: Any = msgspec.UNSET
    cid: int | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """The answer to a call."""

    rid: int
    data: Any = None
    error: Any = None


Message: TypeAlias = Event | Response


class _Wire(msgspec.Struct):
    event: str | msgspec.UnsetType = msgspec.UNSET
    data: Any = msgspec.UNSET
    cid: int | None = None
    rid: int | None = None
    error: Any = None


class ErrorData(msgspec.Struct, frozen=True):
    """An error as it is sent; clients make an Error object of it."""

    name: str
    message: str


class HandshakeReply(msgspec.Struct, frozen=True, rename="camel"):
    """What a client learns from its handshake; ``ping_timeout`` is milliseconds."""

    id: str
    ping_timeout: int
    is_authenticated: bool = False


class _OutEvent(msgspec.Struct):
    event: str
    data: Any = msgspec.UNSET
    cid: int | msgspec.UnsetType = msgspec.UNSET


class _OutResponse(msgspec.Struct):
    rid: int
    data: Any = msgspec.UNSET


class _OutError(msgspec.Struct):
    rid: int
    error: Any


_decoder = msgspec.json.Decoder(_Wire | list[_Wire])
_encode = msgspec.json.Encoder().encode


def decode(text: str) -> list[Message]:
    """Read a text message that is not a ping.

    Raises:
        MalformedMessageError: it is not JSON, or neither an event nor a response.
    """
    try:
        got: _Wire | list[_Wire] = _decoder.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedMessageError(str(error)) from None
    if isinstance(got, list):
        if len(got) > MAX_BATCH:
            raise MalformedMessageError(f"more than {MAX_BATCH} messages in one array")
        return [_message(one) for one in got]
    return [_message(got)]


def _message(wire: _Wire) -> Message:
    if wire.event is not msgspec.UNSET:
        return Event(wire.event, wire.data, wire.cid)
    if wire.rid is None:
        raise MalformedMessageError("neither an event nor a response")
    return Response(wire.rid, None if wire.data is msgspec.UNSET else wire.data, wire.error)


def encode_event(name: str, data: Any = msgspec.UNSET, cid: int | None = None) -> bytes:
    """Write an event; with a ``cid`` the client answers it.

    Raises:
        TypeError: ``data`` cannot be written as JSON.
    """
    return _encode(_OutEvent(name, data, msgspec.UNSET if cid is None else cid))


def encode_response(rid: int, data: Any = msgspec.UNSET) -> bytes:
    """Write the answer to the call whose ``cid`` was ``rid``."""
    return _encode(_OutResponse(rid, data))


def encode_error(rid: int, name: str, message: str) -> bytes:
    """Write that the call whose ``cid`` was ``rid`` failed."""
    return _encode(_OutError(rid, ErrorData(name, message)))
