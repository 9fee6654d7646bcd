"""The request with which a page fetches the cookie of a session that one of its sockets has renewed."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from socketcluster_store_client.errors import LinkError
from socketcluster_worker.api.sockets.session import MAX_TOKEN, Sessions
from socketcluster_worker.connection import Handshake
from socketcluster_worker.endpoints.origins import OriginPolicy
from socketcluster_worker.endpoints.session_cookie import SessionCookie

NAME = "session"
"""The last part of its path, below that of the endpoints."""
_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


class SessionFetch:
    """Answers a POST whose body is a token that ``Session.renew`` gave.

    Args:
        sessions: those of this worker.
        origins: which pages may ask: another site's could have a browser take up a session that is not its own.
    """

    def __init__(self, sessions: Sessions, origins: OriginPolicy) -> None:
        self._sessions = sessions
        self._origins = origins

    async def serve(
        self, scope: Scope, receive: Receive, send: Send, handshake: Handshake, cookie: SessionCookie
    ) -> None:
        """Serve one request (ASGI 3): 204 with the cookie, or 403, and then nothing has changed."""
        response = await self._respond(Request(scope, receive), handshake, cookie)
        response.headers.update(_HEADERS)
        await response(scope, receive, send)

    async def _respond(self, request: Request, handshake: Handshake, cookie: SessionCookie) -> Response:
        if request.method != "POST":
            return PlainTextResponse("post the token that renew() gave\n", 405, headers={"allow": "POST"})
        reason = self._origins.refusal(handshake)
        if reason is not None:
            return PlainTextResponse(f"{reason}\n", 403)
        body = await request.body()
        try:
            renewed_id = await self._sessions.fetch(body.decode("ascii", "replace")[: MAX_TOKEN + 1], cookie.shown)
        except LinkError:
            return PlainTextResponse("no store answered\n", 503)
        if renewed_id is None:
            return PlainTextResponse("no session is to be had for this token\n", 403)
        # what was brought until now leads to another worker, perhaps
        headers = {"connection": "close", "set-cookie": cookie.written(renewed_id)}
        return Response(status_code=204, headers=headers)
