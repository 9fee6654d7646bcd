"""``worker.http_server``: the user's own pages and endpoints."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar, Literal, Protocol, TypeVar, overload

from starlette import requests
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from socketcluster_store_client.errors import SessionOverError
from socketcluster_worker.api.sockets.events import Emitter, Handler
from socketcluster_worker.api.sockets.session import Session


class Request(requests.Request):
    """A request to the user's own pages: Starlette's, with the session of its browser."""

    @property
    def session(self) -> Session:  # type: ignore[override]  # Starlette's is the dict of a middleware of its own
        """The session of the browser, the same object that its sockets have."""
        session: Session = self.scope["session"]
        return session


Asked = TypeVar("Asked", bound=Callable[[Request], Any] | Callable[[], Any])


class RequestEvents(Protocol):
    """``on`` and ``once`` of ``http_server``."""

    @overload
    def __call__(self, event: Literal["req"]) -> Callable[[Asked], Asked]: ...
    @overload
    def __call__(self, event: Literal["req"], handler: Asked) -> Asked: ...


class HTTPServer(Emitter):
    """Serves whatever is not one of the realtime endpoints.

    ``on("req", handler)`` adds ``handler(request)``, plain or async, with a ``Request``. It answers by returning a
    Starlette response, a text (HTML if it begins with ``<``), bytes, or a dict or list (JSON); by returning ``None``
    it leaves the request to the next handler. It may also raise Starlette's ``HTTPException``, or FastAPI's. Mounted
    apps come first.
    """

    EVENTS: ClassVar = {"req": 1}
    HAS_OTHERS = False
    on: RequestEvents  # type: ignore[assignment]  # of this event only
    once: RequestEvents  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self._mounts: list[tuple[str, ASGIApp]] = []
        self._states: dict[int, dict[str, Any]] = {}  # by the app's identity

    def mount(self, app: ASGIApp, path: str = "/") -> None:
        """Give the requests below ``path`` to an ASGI app: FastAPI, Starlette, Django, ...; the longest path wins.

        Raises:
            ValueError: the path does not begin with a slash, or is taken.
            TypeError: that is no app.
        """
        if not callable(app) or not isinstance(path, str):
            raise TypeError(f"mount(app, path) takes an ASGI app and a path, not {app!r} and {path!r}")
        if not path.startswith("/"):
            raise ValueError(f"a path to mount at begins with a slash: {path!r}")
        prefix = path.rstrip("/")
        if any(prefix == taken for taken, _ in self._mounts):
            raise ValueError(f"another app is mounted at {path!r}")
        self._mounts.append((prefix, app))
        self._mounts.sort(key=lambda mount: len(mount[0]), reverse=True)

    @property
    def apps(self) -> list[tuple[str, ASGIApp]]:
        """The mounted apps, each once, with a path at which it is mounted."""
        apps = {id(app): (prefix or "/", app) for prefix, app in reversed(self._mounts)}
        return list(apps.values())

    def started(self, app: ASGIApp, state: dict[str, Any]) -> None:
        """Note what a mounted app keeps from its start on (ASGI's lifespan state): each of its requests gets that."""
        self._states[id(app)] = state

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Serve one request (ASGI 3), whose scope becomes the mounted app's; return false if nobody here answers."""
        path = scope["path"]
        for prefix, app in self._mounts:
            if path == prefix or path.startswith(prefix + "/"):
                scope["root_path"] = scope.get("root_path", "") + prefix
                scope["state"] = dict(self._states.get(id(app), ()))
                await app(scope, receive, send)
                return True
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})  # before accepting it, this is an answer 403
            return True
        request = Request(scope, receive)
        for handler in self.handlers("req"):
            response = await _answer(handler, request)
            if response is not None:
                await response(scope, receive, send)
                return True
        return False


async def _answer(handler: Handler, request: Request) -> Response | None:
    try:
        result = handler.call((request,))
        if inspect.isawaitable(result):
            result = await result
    except HTTPException as error:
        return _refusal(error)
    except SessionOverError:  # another login or logout of the same browser was faster
        return PlainTextResponse("the session is over\n", 409, {"cache-control": "no-store"})
    if result is None or isinstance(result, Response):
        return result
    if isinstance(result, str):
        return HTMLResponse(result) if result.lstrip().startswith("<") else PlainTextResponse(result)
    if isinstance(result, bytes):
        return Response(result, media_type="application/octet-stream")
    return JSONResponse(result)


def _refusal(error: HTTPException) -> Response:
    if error.status_code in (204, 304):
        return Response(status_code=error.status_code, headers=error.headers)
    if isinstance(error.detail, str):
        return PlainTextResponse(error.detail, error.status_code, error.headers)
    return JSONResponse({"detail": error.detail}, error.status_code, error.headers)  # FastAPI's may be anything
