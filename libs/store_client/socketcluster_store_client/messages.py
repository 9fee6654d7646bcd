"""What workers and stores say to each other many times a second, as MessagePack: operations, results, their contents.

A batch of operations or results is one field of a gRPC message. The fields of a Protocol Buffers message cost as much
each as a whole ``msgspec`` structure: docs/design/store.md says what was measured.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class Operation(msgspec.Struct, array_like=True, gc=False):
    """What a worker asks of a partition."""

    id: int = 0
    """Rises with each operation of a worker's incarnation. Operations of one partition are sent in the order of their
    ids, those that are sent again included; so the partition's owner knows by the id alone what was applied before."""
    verb: int = 0
    """A ``Verb`` of the protocol."""
    session_id: str = ""
    """Whose tree; empty: the application's own."""
    keys: tuple[str, ...] = ()
    """The key chain, outermost key first; an index into a list is written in decimal. A VERB_RUN on the application's
    tree has one, which tells the partition."""
    name: str = ""
    """An event's, a channel's or a procedure's."""
    value: bytes = b""
    """MessagePack."""
    partition: int = 0
    message_id: str = ""
    """Of VERB_CHANNEL_PUBLISH: what names the message; published again within the window, it keeps its first offset."""
    epoch: int = 0
    """Of the ownership by which the operation was sent here; CODE_NOT_OWNER is the answer if the partition has another
    epoch by now, or operations would overtake each other. 0: whichever it is."""
    behind: int = 0
    """``id`` minus that of the partition's first operation that the worker has no answer to: results of those before it
    need not be remembered any more."""


class Error(msgspec.Struct, array_like=True, gc=False):
    """Why an operation was not carried out."""

    code: int = 0
    """An ``Error.Code`` of the protocol."""
    message: str = ""
    name: str = ""
    """The class of the exception that a procedure raised."""


class Result(msgspec.Struct, array_like=True, gc=False):
    """What became of an operation."""

    id: int
    value: bytes = b""
    """MessagePack; empty where the verb returns nothing."""
    error: Error | None = None


def _plain(value: object) -> object:
    """Return a text or bytes of a class of their own as what they are: callers name channels and events by such, too.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes):
        return bytes(value)
    raise TypeError(f"an operation has no {type(value).__name__}")


encode_operations = msgspec.msgpack.Encoder(enc_hook=_plain).encode
"""Packs a list of ``Operation``."""
decode_operations = msgspec.msgpack.Decoder(list[Operation]).decode
"""Reads what ``encode_operations`` packed; ``msgspec.DecodeError`` if it is nothing of that kind."""
encode_results = msgspec.msgpack.Encoder().encode
"""Packs a list of ``Result``."""
decode_results = msgspec.msgpack.Decoder(list[Result]).decode
"""Reads what ``encode_results`` packed."""


# Channels: values of operations, and of their results


class Position(NamedTuple):
    """Where somebody is in a channel."""

    epoch: int
    """Of the channel's count; 0: whatever it is."""
    offset: int
    """Of the newest message that was seen; 0: none."""


class Published(msgspec.Struct, frozen=True):
    """The result of VERB_CHANNEL_PUBLISH: where the message is."""

    epoch: int
    offset: int


class ChannelPosition(msgspec.Struct, frozen=True):
    """The result of VERB_CHANNEL_SUBSCRIBE: where the channel is."""

    epoch: int
    """0: nothing was ever published to it, or nobody remembers."""
    offset: int
    """Of the newest message; 0: none."""
    first: int
    """Of the oldest message that is kept; ``offset + 1``: none is."""


class HistoryRequest(msgspec.Struct, frozen=True):
    """The value of VERB_CHANNEL_HISTORY: after which position, and at most how many messages."""

    limit: int
    epoch: int = 0
    """0: whatever the channel's is."""
    offset: int | None = None
    """``None``: the newest messages are asked for."""


class HistoryPage(msgspec.Struct, frozen=True):
    """The result of VERB_CHANNEL_HISTORY; the messages are consecutive."""

    epoch: int
    offset: int
    """Of the channel's newest message."""
    first: int
    """The oldest offset that is kept."""
    start: int
    """The offset of the first message here."""
    known: bool
    """Is the position that was asked for one of this epoch? If not, the messages are the oldest that are kept."""
    messages: list[bytes]


read_published = msgspec.msgpack.Decoder(Published).decode
read_channel_position = msgspec.msgpack.Decoder(ChannelPosition).decode
write_history_request = msgspec.msgpack.Encoder().encode
read_history_request = msgspec.msgpack.Decoder(HistoryRequest).decode
read_history_page = msgspec.msgpack.Decoder(HistoryPage).decode
