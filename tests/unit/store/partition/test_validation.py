"""What an operation must be like: each refusal says what is wrong, and what is allowed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.errors import InvalidError, Refusal, TooLargeError
from socketcluster_store.partition.validation import MAX_ID_BYTES, MAX_NAME_BYTES, Validation
from socketcluster_store_client.messages import Operation
from socketcluster_store_client.partitioning import partition_of

SESSION = "s"
NUMBER = partition_of(SESSION)
CHANNEL = next(name for name in map(str, range(10_000)) if partition_of(name) == NUMBER)
ELSEWHERE = next(name for name in map(str, range(10_000)) if partition_of(name) != NUMBER)
EMIT, PUBLISH = store_pb2.VERB_SESSION_EMIT, store_pb2.VERB_CHANNEL_PUBLISH
VALUE = msgspec.msgpack.encode("x")
validation = Validation(NUMBER, max_value_bytes=100)


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ({"name": ""}, InvalidError, "a name has 1 to"),
        ({"name": "x" * (MAX_NAME_BYTES + 1)}, TooLargeError, "a name has 1 to"),
        ({"session_id": ""}, InvalidError, "no session is named"),
        ({"session_id": "x" * (MAX_ID_BYTES + 1)}, TooLargeError, "a session id has at most 128 bytes"),
        ({"session_id": ELSEWHERE}, InvalidError, "belongs to partition"),
        ({"value": b"x" * 101}, TooLargeError, "has 101 bytes, 100 are allowed"),
        ({"value": b"\xc1"}, InvalidError, "message 'e'"),
    ],
)
def test_an_event_to_a_session(fields: dict[str, Any], error: type[Refusal], text: str) -> None:
    right = {"session_id": SESSION, "name": "e", "value": VALUE}
    validation.emit(Operation(1, EMIT, **right))  # type: ignore[arg-type]
    with pytest.raises(error, match=text):
        validation.emit(Operation(1, EMIT, **right | fields))


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ({"name": ELSEWHERE}, InvalidError, "belongs to partition"),
        ({"value": b"x" * 101}, TooLargeError, "has 101 bytes, 100 are allowed"),
        ({"message_id": "x" * (MAX_ID_BYTES + 1)}, TooLargeError, "a message's id has at most 128 bytes"),
    ],
)
def test_a_publication(fields: dict[str, Any], error: type[Refusal], text: str) -> None:
    right = {"name": CHANNEL, "value": VALUE, "message_id": "x" * MAX_ID_BYTES}
    validation.channel(Operation(1, PUBLISH, **right))  # type: ignore[arg-type]
    with pytest.raises(error, match=text):
        validation.channel(Operation(1, PUBLISH, **right | fields))


def test_the_applications_tree_lies_where_its_top_level_keys_belong() -> None:
    validation.session_id(b"", Operation(1, store_pb2.VERB_GET, keys=(CHANNEL, "x")))
    validation.session_id(b"", Operation(1, store_pb2.VERB_GET_ALL))
    with pytest.raises(InvalidError, match="belongs to partition"):
        validation.session_id(b"", Operation(1, store_pb2.VERB_GET, keys=(ELSEWHERE,)))
