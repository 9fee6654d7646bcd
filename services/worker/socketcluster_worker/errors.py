"""The worker's errors, and those of operations on the store: all that a controller may catch, compare or raise.

::

    WorkerError
    ├── NotSerializableError    a value has no JSON or MessagePack form
    ├── ReservedEventError      an event's name is one of a protocol's own
    ├── SocketClosedError       the client is gone
    ├── NotLetInError           the client waits for the middleware's judgement still
    ├── CallTimeoutError        the client did not answer a call in time
    ├── RemoteError             the client answered a call with an error
    ├── UnsupportedError        the client's protocol, or this server's options, do not have it
    └── HTTPRequestError        an HTTP request cannot be served
    EventError                  raised by a handler: its name and message reach the client
    └── AuthTokenError          an auth token is not accepted
    LinkError                   an operation on the store failed: see ``socketcluster_store_client.errors``
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from socketcluster_store_client.errors import (
    ChainTooDeepError as ChainTooDeepError,
)
from socketcluster_store_client.errors import (
    CrossPartitionError as CrossPartitionError,
)
from socketcluster_store_client.errors import (
    InvalidOperationError as InvalidOperationError,
)
from socketcluster_store_client.errors import (
    LinkError as LinkError,
)
from socketcluster_store_client.errors import (
    OperationError as OperationError,
)
from socketcluster_store_client.errors import (
    PartitionUnavailableError as PartitionUnavailableError,
)
from socketcluster_store_client.errors import (
    ProcedureError as ProcedureError,
)
from socketcluster_store_client.errors import (
    ResultLostError as ResultLostError,
)
from socketcluster_store_client.errors import (
    SessionOverError as SessionOverError,
)
from socketcluster_store_client.errors import (
    SessionTooLargeError as SessionTooLargeError,
)
from socketcluster_store_client.errors import (
    StoreUnavailableError as StoreUnavailableError,
)
from socketcluster_store_client.errors import (
    TooLargeError as TooLargeError,
)
from socketcluster_store_client.errors import (
    TooManyChannelsError as TooManyChannelsError,
)
from socketcluster_store_client.errors import (
    UnknownProcedureError as UnknownProcedureError,
)
from socketcluster_store_client.errors import (
    UpdateConflictError as UpdateConflictError,
)
from socketcluster_store_client.errors import (
    WatchOverflowError as WatchOverflowError,
)
from socketcluster_store_client.errors import (
    WrongTypeError as WrongTypeError,
)
from socketcluster_wire.close_codes import may_be_sent


class WorkerError(Exception):
    """The root of what the worker raises."""


class NotSerializableError(WorkerError, TypeError):
    """A value has no JSON or MessagePack form."""


class ReservedEventError(WorkerError, ValueError):
    """An event's name is one of a protocol's own: its clients would take it for something else, or break off."""


class SocketClosedError(WorkerError, ConnectionError):
    """The client is gone."""


class NotLetInError(WorkerError):
    """Middleware of the stage ``handshake`` called a client, which answers nothing before it is let in."""


class CallTimeoutError(WorkerError, TimeoutError):
    """The client did not answer a call in time."""


class RemoteError(WorkerError):
    """The client answered a call with an error.

    Attributes:
        name: the error's name, as the client gave it.
        data: all that the client sent.
    """

    def __init__(self, name: str, message: str, data: object = None) -> None:
        super().__init__(message)
        self.name = name
        self.data = data


class UnsupportedError(WorkerError):
    """The client's protocol, or this server's options, do not have what was asked for."""


class HTTPRequestError(WorkerError):
    """An HTTP request cannot be served, and its connection is closed; ``args`` are the status and the reason."""


class EventError(Exception):
    """What a handler or middleware raises to tell the client what went wrong: name, message and data travel to it.

    The text of any other exception stays in the server's log.

    Attributes:
        close_code: with which the connection ends, where a middleware of the stage ``handshake`` raises this and the
            protocol ends it then; ``None`` means 4008. With 4500 to 4999 clients do not come back.

    Raises:
        ValueError: ``close_code`` is none that may be sent (RFC 6455, section 7.4).
    """

    def __init__(
        self, message: str, *, name: str = "EventError", data: object = None, close_code: int | None = None
    ) -> None:
        super().__init__(message)
        if close_code is not None and not may_be_sent(close_code):
            raise ValueError(f"{close_code} may not be sent as a close code")
        self.name = name
        self.message = message
        self.data = data
        self.close_code = close_code


class MissingArgumentError(EventError):
    """An event came without an argument that its handler is annotated to take."""

    def __init__(self, message: str) -> None:
        super().__init__(message, name="ValidationError")


class AuthTokenError(EventError):
    """An auth token is not accepted; a middleware of the stage ``authenticate`` may raise it too.

    The names are SocketCluster's: ``AuthTokenExpiredError``, ``AuthTokenInvalidError`` (malformed, or its signature is
    wrong), ``AuthTokenNotBeforeError`` and, for the rest, ``AuthTokenError``.

    Attributes:
        is_bad_token: will it never be accepted? Then the client is told to throw it away.
        details: what else the client gets: ``expiry`` or ``date``, as JavaScript writes a time.
    """

    def __init__(
        self,
        message: str,
        *,
        name: str = "AuthTokenError",
        data: object = None,
        is_bad_token: bool = True,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, name=name, data=data)
        self.is_bad_token = is_bad_token
        self.details = details or {}
