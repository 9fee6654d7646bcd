"""The errors of the store.

::

    EngineError                 what an engine cannot do
    ├── PartitionLockedError    another store owns the partition
    ├── IncompleteError         files of the partition are missing, or do not belong to it
    ├── UnreachableError        the server that has the data does not answer
    └── FencedError             the partition was taken from this store, which hung
    Refusal                     the answer to an operation that is not carried out; carries its code on the wire
    ├── InvalidError            the operation can never succeed as it stands
    │   ├── ChainTooDeepError       the key chain has too many keys
    │   └── UnknownProcedureError   the store's controller has no such procedure
    ├── WrongTypeError          a value of another type stands at the key chain
    ├── TooLargeError           a value, key or name exceeds its limit
    │   └── SessionTooLargeError    the session's data would exceed ``max_session_bytes``
    ├── TooManyChannelsError    no more channels may have a history
    ├── ProcedureError          a procedure raised
    ├── NotOwnerError           this store does not own the operation's partition
    ├── InternalError           the store's fault; its log says more
    └── AnsweredError           what the operation was refused with when it came first
"""

from __future__ import annotations

from socketcluster_proto.v1 import store_pb2
from socketcluster_runtime.errors import ServiceError


class EngineError(ServiceError):
    """The engine cannot do what it was asked for; the text says why and where."""

    told = False
    """Has the log been told of it, as a condition that concerns more than one operation?"""


class PartitionLockedError(EngineError):
    """Another store owns the partition."""

    def __init__(self, text: str, holder: str) -> None:
        super().__init__(text)
        self.holder = holder
        """The id of the store that does, as far as it is known."""


class UnsyncedError(EngineError):
    """The disk refused to sync a partition's files, which are not to be trusted again."""


class IncompleteError(EngineError):
    """Files of a partition that has existed are missing, cut short, or belong to another one; it is not opened."""


class UnreachableError(EngineError):
    """The server that has the data does not answer; what it was asked for last it may have done, or do later."""


class FencedError(EngineError):
    """The partition is this process's no longer; nothing may be answered that was applied here since.

    It was taken over because the process hung, or the server that has the data did not answer in time, or lost some.
    """


class Refusal(Exception):  # noqa: N818  # an answer; only its subclasses name errors
    """An operation is not carried out."""

    name = ""
    """The class of what a procedure raised."""
    code: store_pb2.Error.Code.ValueType = store_pb2.Error.CODE_UNSPECIFIED


class InvalidError(Refusal):
    """The operation can never succeed as it stands."""

    code = store_pb2.Error.CODE_INVALID


class ChainTooDeepError(InvalidError):
    """The key chain has too many keys."""

    code = store_pb2.Error.CODE_CHAIN_TOO_DEEP


class UnknownProcedureError(InvalidError):
    """The store's controller has no such procedure."""

    code = store_pb2.Error.CODE_UNKNOWN_PROCEDURE


class WrongTypeError(Refusal):
    """A value of another type stands at the key chain."""

    code = store_pb2.Error.CODE_WRONG_TYPE


class TooLargeError(Refusal):
    """A value, key or name exceeds its limit."""

    code = store_pb2.Error.CODE_TOO_LARGE


class SessionTooLargeError(TooLargeError):
    """The session's data would exceed ``max_session_bytes``."""

    code = store_pb2.Error.CODE_SESSION_TOO_LARGE


class SessionOverError(Refusal):
    """The session was renewed or ended on purpose: nothing has its id any more."""

    code = store_pb2.Error.CODE_SESSION_OVER


class TooManyChannelsError(Refusal):
    """No more channels may have a history."""

    code = store_pb2.Error.CODE_TOO_MANY_CHANNELS


class ProcedureError(Refusal):
    """A procedure raised; nothing that it did holds.

    Attributes:
        name: the class of what it raised.
    """

    code = store_pb2.Error.CODE_PROCEDURE_FAILED

    def __init__(self, message: str, name: str) -> None:
        super().__init__(message)
        self.name = name


class NotOwnerError(Refusal):
    """The operation's partition is not owned by this store."""

    code = store_pb2.Error.CODE_NOT_OWNER


class InternalError(Refusal):
    """The store could not carry the operation out, by no fault of the caller."""

    code = store_pb2.Error.CODE_INTERNAL


class AnsweredError(Refusal):
    """What the operation was refused with when it came for the first time, or that its result is not known any more."""


def refusal_of(code: int, text: str, name: str) -> Refusal:
    """Return a refusal with everything that the caller gets of it."""
    refusal = AnsweredError(text)
    refusal.code = store_pb2.Error.Code.ValueType(code)
    refusal.name = name
    return refusal
