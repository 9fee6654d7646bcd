"""How operations on a store are called, and what becomes of those that it refuses."""

from __future__ import annotations

import msgspec

from socketcluster_proto.v1 import store_pb2
from socketcluster_store_client.errors import (
    ChainTooDeepError,
    InvalidOperationError,
    LinkError,
    OperationError,
    PartitionUnavailableError,
    ProcedureError,
    ResultLostError,
    SessionOverError,
    SessionTooLargeError,
    StoreUnavailableError,
    TooLargeError,
    TooManyChannelsError,
    UnknownProcedureError,
    WrongTypeError,
)
from socketcluster_store_client.messages import Error, HistoryPage, Operation, read_history_page

_ERRORS: dict[int, type[OperationError]] = {
    store_pb2.Error.CODE_INVALID: InvalidOperationError,
    store_pb2.Error.CODE_WRONG_TYPE: WrongTypeError,
    store_pb2.Error.CODE_TOO_LARGE: TooLargeError,
    store_pb2.Error.CODE_CHAIN_TOO_DEEP: ChainTooDeepError,
    store_pb2.Error.CODE_SESSION_TOO_LARGE: SessionTooLargeError,
    store_pb2.Error.CODE_SESSION_OVER: SessionOverError,
    store_pb2.Error.CODE_UNKNOWN_PROCEDURE: UnknownProcedureError,
    store_pb2.Error.CODE_RESULT_LOST: ResultLostError,
    store_pb2.Error.CODE_TOO_MANY_CHANNELS: TooManyChannelsError,
}


def operation_name(verb: int) -> str:
    """Return what an operation is called by its callers: ``get_range``."""
    known = store_pb2.Verb.DESCRIPTOR.values_by_number.get(verb)
    return known.name.removeprefix("VERB_").lower() if known else f"verb {verb}"


def described(operation: Operation) -> str:
    """Return what an operation does and where, for people."""
    return f"{operation_name(operation.verb).upper()} {operation.name or list(operation.keys)}"


def error_of(operation: Operation, error: Error) -> OperationError:
    """Return the exception for a store's refusal."""
    name = operation_name(operation.verb)
    if error.code == store_pb2.Error.CODE_PROCEDURE_FAILED:
        return ProcedureError(error.message, name=error.name, operation=name, keys=operation.keys)
    return _ERRORS.get(error.code, OperationError)(error.message, operation=name, keys=operation.keys)


def unanswered(operation: Operation, seconds: float) -> StoreUnavailableError:
    """Return the exception for an operation that no store answered in time."""
    text = f"no store answered {described(operation)} within {seconds:g} s"
    return StoreUnavailableError(text, operation=operation_name(operation.verb), keys=operation.keys)


def partition_unavailable(operation: Operation, reason: str) -> PartitionUnavailableError:
    """Return the exception for an operation on a partition that no store can open."""
    text = (
        f"{described(operation)}: partition {operation.partition} is unavailable: {reason}. The"
        " store tries again every few seconds; all other partitions serve"
    )
    error = PartitionUnavailableError(text, operation=operation_name(operation.verb), keys=operation.keys)
    error.partition = operation.partition
    return error


def history_page(channel: str, answer: bytes) -> HistoryPage:
    """Return what a store answered who asked for a channel's history.

    Raises:
        LinkError: it is none; who waited for it can tell of a gap.
    """
    try:
        return read_history_page(answer)
    except msgspec.DecodeError as error:
        text = f"the store's answer is no history: {error}"
        name = operation_name(store_pb2.VERB_CHANNEL_HISTORY)
        raise LinkError(text, operation=name, keys=(channel,)) from None
