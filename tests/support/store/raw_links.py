"""Links to a store that a test writes to by hand."""

from __future__ import annotations

from typing import Any

import grpc

from socketcluster_proto.v1 import store_pb2, store_pb2_grpc
from socketcluster_runtime import rpc
from socketcluster_store_client.messages import Operation, encode_operations
from socketcluster_store_client.partitioning import partition_of

SECRET = "a secret of the tests"


def raw_link(address: str, *, secret: str = SECRET, worker_id: str = "") -> tuple[grpc.aio.Channel, Any]:
    """Return a channel to a store, and a link that nothing was sent on."""
    """Open a stream without a client's help."""
    channel = rpc.connect(address)
    stub: Any = store_pb2_grpc.StoreStub(channel)
    return channel, stub.Link(metadata=rpc.credentials(secret), wait_for_ready=True)


def opening(*, worker_id: str = "raw", app_name: str = "socketcluster") -> store_pb2.LinkRequest:
    """Return what a link begins with."""
    return store_pb2.LinkRequest(open=store_pb2.LinkOpen(worker_id=worker_id, app_name=app_name, incarnation="1"))


def attach(number: int, session_id: str) -> Operation:
    """Return an operation that attaches a session."""
    return Operation(
        id=number, verb=store_pb2.VERB_SESSION_ATTACH, session_id=session_id, partition=partition_of(session_id)
    )


def request(*operations: Operation) -> store_pb2.LinkRequest:
    """Return operations as a link sends them."""
    return store_pb2.LinkRequest(operations=encode_operations(operations))
