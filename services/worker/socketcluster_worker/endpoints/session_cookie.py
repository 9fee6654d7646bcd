"""Which session a request belongs to, and what its response says of that: to its browser, and to caches on the way."""

from __future__ import annotations

import re
from collections.abc import ItemsView, Iterator, ValuesView
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Scope, Send

from socketcluster_runtime.session_cookies import SessionCookies
from socketcluster_worker.api.sockets.session import Renewals, Session, Sessions
from socketcluster_worker.connection import Handshake
from socketcluster_worker.ids import IdGenerator

SESSION = "session"
"""The key of the session in the scope of a request (ASGI), where Starlette's ``request.session`` looks, too."""
FOR_SHARED_CACHES = ("cdn-cache-control", "surrogate-control", "x-accel-expires")
"""Fields that let shared caches keep a response whatever ``Cache-Control`` says (RFC 9213, nginx, ...)."""

_DIRECTIVE = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+')


class SessionCookie:
    """The session that one request asks for by its cookie.

    Attributes:
        shown: the id of that session, ``None`` if there is no such cookie.
        brought: the same, ``None`` also if that session was renewed or destroyed: the id is worth nothing then.
        session_id: the same, or that of a new session.
    """

    def __init__(self, cookies: SessionCookies, ids: IdGenerator, handshake: Handshake, sessions: Sessions) -> None:
        self._cookies = cookies
        self._secure = handshake.secure
        self.shown = cookies.read(handshake.headers.get("cookie", ""), secure=handshake.secure)
        self.brought = None if self.shown is not None and sessions.is_over(self.shown) else self.shown
        self.session_id = ids.new_id() if self.brought is None else self.brought

    def to_set(self, session_id: str) -> str | None:
        """Return the ``Set-Cookie`` field that gives a browser a session; ``None`` if it has that one's cookie."""
        return None if session_id == self.brought else self.written(session_id)

    def written(self, session_id: str) -> str:
        """Return the ``Set-Cookie`` field of a session."""
        return self._cookies.write(session_id, secure=self._secure)

    def expired(self) -> str:
        """Return the ``Set-Cookie`` field by which a browser forgets its session."""
        return self._cookies.expire(secure=self._secure)

    def opening(self, send: Send) -> Send:
        """Give the cookie along with an answer 200, which opens a connection that belongs to the session."""

        async def wrapped(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 200:
                message = _with_cookie(message, _headers(message), self.to_set(self.session_id))
            await send(message)

        return wrapped


class SessionScope(dict[str, Any]):
    """The scope of a request (ASGI) that notes whether its session was looked at, in it or in a copy's making.

    Attributes:
        session_used: was it?
    """

    def __init__(self, scope: Scope, session: Session) -> None:
        super().__init__(scope)
        super().__setitem__(SESSION, session)
        self._has_session = True
        self.session_used = False

    def _look(self) -> None:
        self.session_used = self.session_used or self._has_session

    def __getitem__(self, key: str) -> Any:
        if key == SESSION:
            self._look()
        return super().__getitem__(key)

    def __setitem__(self, key: str, value: Any) -> None:
        if key == SESSION:  # the app has sessions of its own, and sees to them
            self._has_session = False
        super().__setitem__(key, value)

    def __iter__(self) -> Iterator[str]:  # without this, dict(scope) and {**scope} would ask for no value
        return super().__iter__()

    def __or__(self, other: Any) -> Any:
        self._look()
        return super().__or__(other)

    def __ror__(self, other: Any) -> Any:
        self._look()
        return super().__ror__(other)

    def get(self, key: str, default: Any = None, /) -> Any:
        """Return the value of a key."""
        if key == SESSION:
            self._look()
        return super().get(key, default)

    def pop(self, key: str, *default: Any) -> Any:
        """Remove a key and return its value."""
        if key == SESSION:
            self._look()
        return super().pop(key, *default)

    def setdefault(self, key: str, default: Any = None, /) -> Any:
        """Return the value of a key."""
        if key == SESSION:
            self._look()
        return super().setdefault(key, default)

    def copy(self) -> dict[str, Any]:
        """Return a copy."""
        self._look()
        return super().copy()

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]
        """Return keys and values."""
        self._look()
        return super().items()

    def values(self) -> ValuesView[Any]:  # type: ignore[override]
        """Return the values."""
        self._look()
        return super().values()


class SessionResponse:
    """What the user's application answers: with the session's cookie, for a browser that does not have it.

    A response that sets the cookie, or that was made by a look at the session, is its browser's alone: shared caches
    are told not to keep it.

    Args:
        cookie: the request's.
        session: its session.
        scope: what the application is given.
        send: takes the response (ASGI).
        renewals: what becomes of the session while the request is handled.
    """

    def __init__(
        self, cookie: SessionCookie, session: Session, scope: SessionScope, send: Send, renewals: Renewals
    ) -> None:
        self._cookie = cookie
        self._renewals = renewals
        self._session = session
        self._scope = scope
        self._send = send
        self.is_own = False
        """Does the worker itself answer? Then a new session begins with another response."""

    async def send(self, message: Message) -> None:
        """Take a message of the application's (ASGI)."""
        kind = message["type"]
        if kind in ("http.response.start", "websocket.accept", "websocket.http.response.start"):
            headers = _headers(message)
            cookie = self._to_set()
            self._renewals.told = True
            if kind != "websocket.accept" and (cookie is not None or self._scope.session_used):
                keep_private(headers)
            message = _with_cookie(message, headers, cookie)
        elif kind == "websocket.http.response.body":
            message = {"body": b"", **message}  # it may be left out, too
        await self._send(message)

    def _to_set(self) -> str | None:
        session_id = self._session.id
        if self._renewals.changed:
            if self._session.is_over:
                return self._cookie.expired()
            return self._cookie.written(session_id) if session_id == self._renewals.session_id else None
        if self.is_own or session_id != self._cookie.session_id:  # or it was renewed for another client
            return None
        return self._cookie.to_set(session_id)


def keep_private(headers: MutableHeaders) -> None:
    """Have no shared cache keep a response, and others only for who sends the same cookies (RFC 9111)."""
    vary = [name.strip().lower() for value in headers.getlist("vary") for name in value.split(",")]
    if "*" not in vary and "cookie" not in vary:
        headers.append("vary", "Cookie")
    for name in FOR_SHARED_CACHES:
        del headers[name]
    asked = [found.strip() for found in _DIRECTIVE.findall(", ".join(headers.getlist("cache-control")))]
    names = [directive.partition("=")[0].strip().lower() for directive in asked]
    kept = [directive for directive, name in zip(asked, names, strict=True) if name not in ("", "public", "s-maxage")]
    if "no-store" not in names and not any(directive.lower() == "private" for directive in kept):
        kept.append("private")
    headers["cache-control"] = ", ".join(kept)


def _headers(message: Message) -> MutableHeaders:
    """Return a copy of a message's header fields, of which there may be none."""
    return MutableHeaders(raw=[(name.lower(), value) for name, value in message.get("headers") or ()])


def _with_cookie(message: Message, headers: MutableHeaders, cookie: str | None) -> Message:
    """Return a message with other header fields and a cookie, after whose response the TCP connection ends.

    The connection was made without that cookie, so a balancer may have brought it to a worker that is not the one that
    the session will always be brought to.
    """
    if cookie is not None:
        headers.append("set-cookie", cookie)
        if message["type"] == "http.response.start":
            headers["connection"] = "close"
    return {**message, "headers": headers.raw}
