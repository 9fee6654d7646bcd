"""The worker's errors.

::

    WorkerError
    ├── ControllerError         the controller is missing, has no ``run``, or raised (ends the worker)
    ├── NotSerializableError    a value has no JSON or MessagePack form
    ├── SocketClosedError       the client is gone
    ├── CallTimeoutError        the client did not answer a call in time
    └── RemoteError             the client answered a call with an error
    EventError                  raised by a handler: its name and message reach the client
"""

from __future__ import annotations

from socketcluster_runtime.errors import ServiceError


class WorkerError(Exception):
    """The root of what the worker raises."""


class ControllerError(WorkerError, ServiceError):
    """The controller is missing, has no ``run``, or raised; the text names file and line."""


class NotSerializableError(WorkerError, TypeError):
    """A value has no JSON or MessagePack form."""


class SocketClosedError(WorkerError, ConnectionError):
    """The client is gone."""


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


class EventError(Exception):
    """What a handler or middleware raises to tell the client what went wrong: name, message and data travel to it.

    The text of any other exception stays in the server's log.
    """

    def __init__(self, message: str, *, name: str = "EventError", data: object = None) -> None:
        super().__init__(message)
        self.name = name
        self.message = message
        self.data = data
