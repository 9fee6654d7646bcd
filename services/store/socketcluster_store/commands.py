"""Which verbs of the protocol change something."""

from __future__ import annotations

from socketcluster_proto.v1 import store_pb2

BEGIN_SESSION = frozenset(
    (
        store_pb2.VERB_SET,
        store_pb2.VERB_ADD,
        store_pb2.VERB_CONCAT,
        store_pb2.VERB_UPDATE,
        store_pb2.VERB_TRANSACTION,
        store_pb2.VERB_RUN,
    )
)
"""The writes with which a session begins that does not exist."""
WRITES = BEGIN_SESSION | {
    store_pb2.VERB_REMOVE,
    store_pb2.VERB_REMOVE_ALL,
    store_pb2.VERB_REMOVE_RANGE,
    store_pb2.VERB_POP,
    store_pb2.VERB_EXPIRE,
    store_pb2.VERB_UNEXPIRE,
}
"""The writes to a tree."""
