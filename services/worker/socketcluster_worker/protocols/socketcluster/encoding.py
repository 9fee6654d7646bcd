"""SocketCluster's events, answers and errors as they are sent."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import msgspec

from socketcluster_wire import socketcluster as wire
from socketcluster_worker.api.channels.channel_message import ChannelMessage
from socketcluster_worker.api.sockets.emission import Emission
from socketcluster_worker.connection import Outgoing
from socketcluster_worker.errors import AuthTokenError, NotSerializableError

UNSERIALIZABLE = (TypeError, ValueError, OverflowError, RecursionError)
"""What data without a JSON form raises."""


def data_of(args: tuple[Any, ...] | None) -> Any:
    """Return what several arguments are as an event's data: one is that, none is nothing, several are a list."""
    return msgspec.UNSET if not args else args[0] if len(args) == 1 else args


def encode(event: str, args: tuple[Any, ...], cid: int | None = None) -> bytes:
    """Return an event as it is sent; one argument is the data, none leaves it out, several travel as a list.

    Raises:
        NotSerializableError: an argument has no JSON form.
    """
    data = data_of(args)
    try:
        return wire.encode_event(event, data, cid)
    except UNSERIALIZABLE as error:
        raise NotSerializableError(f"{event!r}: {error}") from None


def encode_outgoing(emission: Emission) -> Outgoing:
    """Return an event as ``encode`` does, for many clients."""
    return Outgoing(encode(emission.event, emission.json_args))


def encode_publication(message: ChannelMessage) -> Outgoing:
    """Return a channel's message, for many clients.

    Raises:
        NotSerializableError: it has no JSON form.
    """
    offset = msgspec.UNSET if message.offset is None else message.offset
    try:
        return Outgoing(wire.encode_event(wire.PUBLISH, wire.PublishedData(message.channel, message.data, offset)))
    except UNSERIALIZABLE as error:
        raise NotSerializableError(f"a message of channel {message.channel!r}: {error}") from None


def encode_auth_error(error: AuthTokenError, write: Callable[[wire.ErrorData], bytes]) -> bytes:
    """Write an answer with an error as SocketCluster's clients expect it."""
    return encode_with_data(
        wire.ErrorData(error.name, error.message, is_bad_token=error.is_bad_token, **error.details), error.data, write
    )


def encode_with_data(told: wire.ErrorData, data: object, write: Callable[[wire.ErrorData], bytes]) -> bytes:
    """Write an answer with an error, without its data if they have no JSON form."""
    if data is not None:
        with contextlib.suppress(TypeError, ValueError, RecursionError):
            return write(msgspec.structs.replace(told, data=data))
    return write(told)
