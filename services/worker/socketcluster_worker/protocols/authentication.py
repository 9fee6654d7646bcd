"""Auth tokens that a client brings, put to the middleware of the stage ``authenticate`` once they are verified."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
