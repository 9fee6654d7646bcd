"""What an operation must be like before anything is done with it."""

from __future__ import annotations

from zlib import crc32

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.data.key_chains import check_value
from socketcluster_store.errors import InvalidError, TooLargeError
from socketcluster_store_client.messages import Operation
from socketcluster_store_client.partitioning import PARTITION_COUNT

MAX_ID_BYTES = 128
"""The longest id of a session or message."""
MAX_NAME_BYTES = 4096
"""The longest name of a channel or event; workers allow up to 1,000 characters of a channel's, of 4 bytes at most."""


class Validation:
    """The checks of one partition; each raises a refusal.

    Args:
        number: the partition.
        max_value_bytes: the largest message.
    """

    def __init__(self, number: int, max_value_bytes: int) -> None:
        self._number = number
        self._max_value_bytes = max_value_bytes

    def emit(self, operation: Operation) -> None:
        """Check an event to the sockets of a session."""
        _name(operation.name)
        owner = operation.session_id.encode()
        if not owner:
            raise InvalidError("no session is named")
        self.session_id(owner, operation)
        self._message(operation)

    def channel(self, operation: Operation) -> None:
        """Check an operation on a channel."""
        self._partition(_name(operation.name), operation.name)
        if operation.verb == store_pb2.VERB_CHANNEL_PUBLISH:
            self._message(operation)
            if operation.message_id and (size := len(operation.message_id.encode())) > MAX_ID_BYTES:
                raise TooLargeError(f"a message's id has at most {MAX_ID_BYTES} bytes, this one has {size}")

    def session_id(self, owner: bytes, operation: Operation) -> None:
        """Check that the bytes may be a session id and belong here."""
        if owner:
            if len(owner) > MAX_ID_BYTES:
                raise TooLargeError(f"a session id has at most {MAX_ID_BYTES} bytes, this one has {len(owner)}")
            self._partition(owner, operation.session_id)
        elif operation.keys:
            self._partition(operation.keys[0].encode(), operation.keys[0])

    def _partition(self, encoded: bytes, name: str) -> None:
        right = crc32(encoded) % PARTITION_COUNT
        if right != self._number:
            raise InvalidError(f"{name!r} belongs to partition {right}, not {self._number}")

    def _message(self, operation: Operation) -> None:
        if len(operation.value) > self._max_value_bytes:
            raise TooLargeError(
                f"the message {operation.name!r} has {len(operation.value)} bytes, {self._max_value_bytes} are allowed"
            )
        check_value(operation.value, lambda: f"message {operation.name!r}")


def _name(name: str) -> bytes:
    """Return the name of a channel or event as bytes, if it may be one."""
    encoded = name.encode()
    if not 1 <= len(encoded) <= MAX_NAME_BYTES:
        error = TooLargeError if encoded else InvalidError
        raise error(f"a name has 1 to {MAX_NAME_BYTES} bytes, this one {len(encoded)}")
    return encoded
