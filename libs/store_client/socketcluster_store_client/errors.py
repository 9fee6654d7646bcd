"""What a caller of the stores may meet.

::

    LinkError                   what a caller of the store link may meet; names operation and key chain
    ├── StoreUnavailableError   no store answered within ``store_timeout``
    │   └── PartitionUnavailableError   the store that is to own the partition cannot open it
    ├── WatchOverflowError      changes came faster than their watcher took them
    └── OperationError          the operation was not carried out
        ├── InvalidOperationError   the operation can never succeed as it stands
        │   ├── ChainTooDeepError       the key chain has more than 32 keys
        │   ├── CrossPartitionError     a transaction's keys do not lie together
        │   └── UnknownProcedureError   the store's controller has no such procedure
        ├── WrongTypeError          a value of another type stands at the key chain
        ├── TooLargeError           a value, key or name exceeds its limit
        │   └── SessionTooLargeError    the session's data would exceed ``max_session_bytes``
        ├── SessionOverError        the session was renewed or destroyed
        ├── TooManyChannelsError    no more channels may have a history
        ├── ProcedureError          a procedure raised
        ├── UpdateConflictError     others changed the value again and again
        └── ResultLostError         it was carried out, but a store died before its large result arrived
"""

from __future__ import annotations

from collections.abc import Sequence


class LinkError(Exception):
    """An operation on the store did not succeed.

    Attributes:
        operation: its name, as the method that was called; empty if it has none.
        keys: its key chain.
    """

    def __init__(self, message: str, *, operation: str = "", keys: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.operation = operation
        self.keys = tuple(keys)


class StoreUnavailableError(LinkError, TimeoutError):
    """No store answered within ``store_timeout`` seconds; the operation may or may not have been applied."""


class PartitionUnavailableError(StoreUnavailableError):
    """The store that is to own the partition cannot open it; it tries again every few seconds.

    The text says which partition, why, and what to do. An operation that was on its way to a former owner may have been
    applied; any other one was not.

    Attributes:
        partition: which one, 0 to 63; None if it is not known.
    """

    partition: int | None = None


class WatchOverflowError(LinkError):
    """Changes came faster than their watcher took them: it has ended."""


class OperationError(LinkError):
    """The operation was not carried out."""


class InvalidOperationError(OperationError):
    """The operation can never succeed as it stands."""


class ChainTooDeepError(InvalidOperationError):
    """The key chain has more than 32 keys."""


class CrossPartitionError(InvalidOperationError):
    """The keys of a transaction on the application's tree lie in different partitions."""


class UnknownProcedureError(InvalidOperationError):
    """The store's controller has no procedure of that name."""


class WrongTypeError(OperationError):
    """A value of another type stands at the key chain."""


class TooLargeError(OperationError):
    """A value, key or name exceeds its limit; a value's is the store's ``max_value_bytes``."""


class SessionTooLargeError(TooLargeError):
    """The session's data would exceed the store's ``max_session_bytes``."""


class SessionOverError(OperationError):
    """The session was renewed or destroyed: nothing has its id any more, and nothing can be put there."""


class TooManyChannelsError(OperationError):
    """No more channels may have a history, by the store's ``max_history_channels``."""


class ProcedureError(OperationError):
    """A procedure raised, and nothing that it did holds; the text is what it raised.

    Attributes:
        name: the class of what it raised.
    """

    def __init__(self, message: str, *, name: str = "", operation: str = "", keys: Sequence[str] = ()) -> None:
        super().__init__(message, operation=operation, keys=keys)
        self.name = name


class UpdateConflictError(OperationError):
    """Others changed the value between each reading and writing; nothing was written."""


class ResultLostError(OperationError):
    """The operation was carried out, once; its store died before the result arrived, which was too large to be kept."""
