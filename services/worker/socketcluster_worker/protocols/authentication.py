"""Auth tokens that a client brings: verified, then put to the middleware of the stage ``authenticate``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from socketcluster_wire.socketcluster import ErrorData
from socketcluster_worker.api.sockets.action import Action
from socketcluster_worker.api.sockets.namespace import Namespace
from socketcluster_worker.api.sockets.socket import Socket
from socketcluster_worker.errors import AuthTokenError, EventError


async def ask(namespace: Namespace, socket: Socket, claims: dict[str, Any]) -> dict[str, Any]:
    """Return a verified token's claims as the middleware leaves them.

    Raises:
        AuthTokenError: it refuses them. Only where it says so itself the token is a bad one.
    """
    action = Action("authenticate", socket, data=claims)
    try:
        await namespace.middleware.run(action)
    except AuthTokenError:
        raise
    except EventError as error:
        raise AuthTokenError(error.message, name=error.name, data=error.data, is_bad_token=False) from None
    except Exception as error:
        namespace.handler_failed(error, "middleware of the stage 'authenticate'")
        name, text = "InternalServerError", "the middleware failed"
        raise AuthTokenError(text, name=name, is_bad_token=False) from None
    if not isinstance(action.data, Mapping):
        raise AuthTokenError("the middleware left no claims", is_bad_token=False)
    return dict(action.data)


def encode(error: AuthTokenError, write: Callable[[ErrorData], bytes]) -> bytes:
    """Write an answer with an error as SocketCluster's clients expect it."""
    return encode_with_data(
        ErrorData(error.name, error.message, is_bad_token=error.is_bad_token, **error.details), error.data, write
    )


def encode_with_data(told: ErrorData, data: object, write: Callable[[ErrorData], bytes]) -> bytes:
    """Write an answer with an error, without its data if they have no JSON form."""
    if data is not None:
        with contextlib.suppress(TypeError, ValueError, RecursionError):
            return write(msgspec.structs.replace(told, data=data))
    return write(told)
