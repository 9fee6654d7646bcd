"""Which request goes where: the realtime endpoints, the browser client, and the user's own application."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from socketcluster_runtime.logs import logging
from socketcluster_runtime.logs.throttle import Throttle
from socketcluster_runtime.session_cookies import SessionCookies
from socketcluster_store_client.errors import StoreUnavailableError
from socketcluster_wire import http_response
from socketcluster_wire.close_codes import CloseCode
from socketcluster_wire.deflate import DeflateOptions
from socketcluster_wire.engineio import ErrorCode, encode_payload
from socketcluster_wire.request_head import Target
from socketcluster_wire.socketcluster import encode_disconnect
from socketcluster_worker.api.sockets.session import MAX_TOKEN, Renewals, renewals
from socketcluster_worker.api.worker import Worker
from socketcluster_worker.connection import Connection, Handshake, Receiver
from socketcluster_worker.endpoints import client_files, session_fetch
from socketcluster_worker.endpoints.hosts import HostPolicy
from socketcluster_worker.endpoints.origins import OriginPolicy
from socketcluster_worker.endpoints.session_cookie import SessionCookie, SessionResponse, SessionScope
from socketcluster_worker.health.readiness import Readiness
from socketcluster_worker.ids import IdGenerator
from socketcluster_worker.protocols.context import Context, SocketClusterOptions, Timing
from socketcluster_worker.protocols.engineio import EngineIOPeer
from socketcluster_worker.protocols.socketcluster.browser import BrowserPeer
from socketcluster_worker.protocols.socketcluster.peer import SocketClusterPeer
from socketcluster_worker.protocols.socketcluster.v1 import SocketClusterV1Peer
from socketcluster_worker.protocols.socketio import SocketIOPeer
from socketcluster_worker.settings import WorkerSettings
from socketcluster_worker.tokens import Tokens
from socketcluster_worker.transport.engineio.engine import NOOP
from socketcluster_worker.transport.engineio.numbering import PARAMETER
from socketcluster_worker.transport.engineio.options import EngineOptions
from socketcluster_worker.transport.engineio.polling import NO_STORE, PLAIN, EngineErrorReply, EngineServer
from socketcluster_worker.transport.http.forward import EXTENSION, Forwarder
from socketcluster_worker.transport.websocket import WebSocket, WebSocketOptions

log = logging.get_logger(__name__)

NO_SNIFF = {"x-content-type-options": "nosniff"}
RETRY = NO_STORE | {"retry-after": "1"}
_ELSEWHERE = RETRY | {"connection": "close"}
"""Headers of an answer to a client that another worker is to serve."""


class Router:
    """All that one worker serves; an ASGI app for HTTP, and ``upgrade`` for WebSockets.

    Attributes:
        open_websockets: the connections that are open by WebSocket.
        refused: is told of requests that could not be read.
        body_window: seconds in each of which a request's body must get on.
        health_path: where it is asked for the worker's health.
    """

    def __init__(
        self,
        worker: Worker,
        settings: WorkerSettings,
        ids: IdGenerator,
        cookies: SessionCookies,
        tokens: Tokens,
        forwarder: Forwarder,
        readiness: Readiness,
    ) -> None:
        self._worker = worker
        self._settings = settings
        self._ids = ids
        self._cookies = cookies
        self._forwarder = forwarder
        self._readiness = readiness
        self._context = Context(
            worker.ws_server,
            ids,
            Timing(
                settings.heartbeat_interval,
                settings.heartbeat_timeout,
                settings.handshake_timeout,
                settings.ack_timeout,
            ),
            SocketClusterOptions(settings.strict_handshake, settings.batch_interval),
            tokens,
            settings.max_http_buffer_size,
        )
        self._raw_peer = SocketClusterPeer if settings.protocol_version == 2 else SocketClusterV1Peer
        self.open_websockets: set[WebSocket] = set()
        self.body_window = 1.5 * settings.handshake_timeout
        self._websocket_options = WebSocketOptions(
            settings.max_http_buffer_size,
            settings.max_buffered_bytes,
            settings.slow_consumer,
            DeflateOptions(
                settings.deflate_threshold, settings.client_no_context_takeover, settings.deflate_window_bits
            )
            if settings.per_message_deflate
            else None,
            worker.ws_server.subprotocol,
        )
        self._origins = OriginPolicy(settings.origins, match_protocol=settings.match_origin_protocol)
        self._hosts = HostPolicy(settings.allowed_hosts)
        self._client_files = client_files.ClientFiles(settings.client_files)
        self._raw_path = settings.path
        self.health_path = settings.path + "health"
        self._fetch_path = settings.path + session_fetch.NAME
        self._fetch = session_fetch.SessionFetch(worker.ws_server.sessions, self._origins)
        options = EngineOptions(
            settings.heartbeat_interval,
            settings.heartbeat_timeout,
            settings.max_http_buffer_size,
            settings.max_buffered_bytes,
            settings.slow_consumer,
        )
        self._engines: dict[str, EngineServer] = {}
        make = partial(EngineServer, ids, options, self._origins)
        engines = {
            settings.path + "engine/": make(self._socketcluster_on_engine, numbers=True, farewell=encode_disconnect),
            settings.socketio_path: make(self._socketio),
            settings.engineio_path: make(self._engineio),
        }
        for path, engine in engines.items():
            self._engines[path] = self._engines[path.rstrip("/")] = engine
        self.refused = Throttle(lambda count: log.info("requests were refused", requests=count, last=self.refused.last))

    @property
    def connections(self) -> int:
        """How many clients are connected, by whatever transport."""
        return len(self._worker.ws_server.sockets)

    def clients(self, code: CloseCode, reason: str) -> Iterator[Callable[[], None]]:
        """Return what ends each client's connection; one that has no socket yet is left to its own time limits."""
        for namespace in self._worker.ws_server.everybody():
            for socket in namespace.sockets:
                yield partial(socket.disconnect, code, reason)

    def close_all(self, code: CloseCode, reason: str) -> None:
        """End every client's connection."""
        for namespace in self._worker.ws_server.everybody():
            for socket in tuple(namespace.sockets):
                socket.disconnect(code, reason)
        for engine in self._engines.values():
            engine.close_all(code, reason)
        for websocket in tuple(self.open_websockets):
            websocket.close(code, reason)
        self._forwarder.close()
        self.refused.close()

    # HTTP.

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3)."""
        target = scope["path"] + ("?" + scope["query_string"].decode("latin-1") if scope["query_string"] else "")
        secure = scope["scheme"] in ("https", "wss")
        handshake = Handshake.parse(target, scope["headers"], scope.get("client"), secure=secure)
        path = scope["path"]
        renewals.set(None)  # a request that waits for the one before has a context made of that one's
        engine = self._engines.get(path)
        if engine is not None and scope["type"] == "http":
            await self._serve_engine(engine, scope, receive, send, handshake)
            return
        own = self._own(path, scope) if scope["type"] == "http" else None
        if own is not None:
            await own(scope, receive, send)
            return
        cookie = self._cookie(handshake)
        if path == self._fetch_path and scope["type"] == "http":
            await self._fetch.serve(scope, receive, send, handshake, cookie)
            return
        session = self._worker.ws_server.sessions.get(cookie.session_id)
        told = SessionScope(scope, session)
        changed = Renewals(session)
        renewals.set(changed)  # for this request's task, and what that starts
        response = SessionResponse(cookie, session, told, send, changed)
        try:
            answered = await self._worker.http_server.serve(told, receive, response.send)
        except ClientDisconnect:  # while its request was read: nothing has failed
            return
        except StoreUnavailableError as error:
            if scope["type"] != "http":
                raise
            self._worker.ws_server.tasks.unavailable(error, f"a handler of {path!r:.100}")
            if not changed.told:
                await PlainTextResponse("no store answered\n", 503, headers=NO_SNIFF | RETRY)(scope, receive, send)
            return
        if not answered:
            response.is_own = True
            await PlainTextResponse("not found\n", 404, headers=NO_SNIFF)(scope, receive, response.send)

    async def _serve_engine(
        self, engine: EngineServer, scope: Scope, receive: Receive, send: Send, handshake: Handshake
    ) -> None:
        """Serve a request of a polling client, here or where its session is.

        A poll that is broken off ends its session. Should the client only have ended its own direction, it is told so;
        where that is for another worker to tell, it gets a noop, and is told by its next poll. One that numbers its
        requests is to send this one again instead: the session's worker may have answered it with something else.
        """
        started = False

        async def noting(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        if not await self._forward(scope, receive, noting, handshake):
            cookie = self._cookie(handshake)
            if cookie.brought is not None:
                handshake.has_session = True
                self._worker.ws_server.sessions.shown(cookie.brought)
            opens = scope["method"] == "GET" and handshake.parameter("sid") is None
            if opens and (reason := self._readiness.refusal):  # by a connection that it has kept, or past the balancer
                refused = PlainTextResponse(f"{reason}\n", 503, headers=_ELSEWHERE)
                await refused(scope, receive, noting)
                return
            answer = cookie.opening(noting) if opens else noting
            await engine.serve(scope, receive, answer, handshake, cookie.session_id)
        if started:
            return
        if engine.numbers and handshake.parameter(PARAMETER) is not None:
            answer_again = Response(status_code=503, headers=NO_STORE | {"connection": "close"})
            await answer_again(scope, receive, send)
        else:
            noop = encode_payload([NOOP])
            await Response(noop, media_type=PLAIN, headers=NO_STORE)(scope, receive, send)

    async def _forward(self, scope: Scope, receive: Receive, send: Send, handshake: Handshake) -> bool:
        """Have a request answered by the worker whose session it names; return whether that was so."""
        if (
            scope["type"] != "http"
            or scope["method"] not in ("GET", "POST")
            or EXTENSION in scope.get("extensions", ())
        ):
            return False
        owner = self._forwarder.owner_of(handshake)
        return owner is not None and await self._forwarder.poll(scope, receive, send, owner, handshake.address)

    def _cookie(self, handshake: Handshake) -> SessionCookie:
        return SessionCookie(self._cookies, self._ids, handshake, self._worker.ws_server.sessions)

    def _own(self, path: str, scope: Scope) -> Response | None:
        """Return what is the same for everybody: it belongs to no session, and begins none."""
        name = path[1:]
        if name in client_files.NAMES:
            return self._client_files.response(name, scope)
        headers = NO_SNIFF | NO_STORE
        if path == self.health_path:
            name, reason = self._worker.name, self._readiness.reason
            if reason:
                said = {"status": "not ready", "worker": name, "reason": reason}
                return JSONResponse(said, 503, headers=headers)
            return JSONResponse({"status": "ok", "worker": name}, headers=headers)
        if self._is_raw(path):
            text = "this is a WebSocket endpoint\n"
            return PlainTextResponse(text, 426, headers=headers | {"upgrade": "websocket"})
        return None

    def is_for_us(self, host: str, path: str, *, secure: bool) -> bool:
        """May a request for this host be served? Who asks for the worker's health may know no name of it."""
        return self._hosts.allows(host, secure=secure) or path == self.health_path

    def polls(self, path: str) -> bool:
        """Do polling requests go to this path?"""
        return path in self._engines

    def release_poll(self, path: str, target: str) -> None:
        """Have a polling request answered now, whose connection is about to end: its client polls on by another one."""
        self._engines[path].release_poll(Target.parse(target).parameters().get("sid", [""])[-1])

    def max_body(self, path: str) -> int:
        """Return how many bytes a request's body may have."""
        if path == self._fetch_path:
            return MAX_TOKEN
        return self._settings.max_http_buffer_size if path in self._engines else self._settings.max_request_body

    def _is_raw(self, path: str) -> bool:
        return path == self._raw_path or path == self._raw_path[:-1]

    # WebSocket.

    def serves(self, path: str) -> bool:
        """Is a WebSocket at this path one of the realtime endpoints'?"""
        return self._is_raw(path) or path in self._engines

    def forward(
        self, transport: asyncio.Transport, handshake: Handshake, target: bytes, raw_headers: list[tuple[bytes, bytes]]
    ) -> bool:
        """Give a request to open a WebSocket to the worker whose session it names; return whether that was so."""
        owner = self._forwarder.owner_of(handshake) if handshake.path in self._engines else None
        if owner is None:
            return False
        refuse = partial(_refuse, transport, EngineErrorReply(400, ErrorCode.UNKNOWN_SID))
        self._forwarder.upgrade(transport, handshake, (target, raw_headers), owner, refuse)
        return True

    def upgrade(
        self, transport: asyncio.Transport, handshake: Handshake, raw_headers: list[tuple[bytes, bytes]] | None = None
    ) -> WebSocket | None:
        """Answer a request to open a WebSocket; return it if it is open. The header fields, if they are at hand."""
        websocket = WebSocket(self._websocket_options, opened=self.open_websockets)
        cookie = self._cookie(handshake)
        if cookie.brought is not None:
            handshake.has_session = True
        session_id = cookie.session_id
        to_set = cookie.to_set(session_id)
        extra_headers = [] if to_set is None else [("Set-Cookie", to_set)]
        engine = self._engines.get(handshake.path)
        if engine is not None:
            refusal = engine.check_upgrade(handshake)
        else:
            reason = self._origins.refusal(handshake)
            refusal = None if reason is None else EngineErrorReply(403, ErrorCode.FORBIDDEN, reason)
        if refusal is None and self._readiness.refusal and (engine is None or handshake.parameter("sid") is None):
            refusal = EngineErrorReply(503, ErrorCode.FORBIDDEN, self._readiness.refusal)
        if refusal is not None:
            _refuse(transport, refusal)
            return None
        if not websocket.accept(transport, handshake, raw_headers, extra_headers):
            return None
        handshake.pack()
        if engine is not None:
            engine.attach(websocket, handshake, session_id)
        else:
            websocket.receiver = self._raw_peer(websocket, self._context, handshake, session_id, pings=True)
        websocket.begin()
        return websocket

    # Which message protocol goes with which endpoint.

    def _socketcluster_on_engine(self, connection: Connection, handshake: Handshake, session_id: str) -> Receiver:
        return BrowserPeer(connection, self._context, handshake, session_id)

    def _socketio(self, connection: Connection, handshake: Handshake, session_id: str) -> Receiver:
        return SocketIOPeer(connection, self._context, handshake, session_id)

    def _engineio(self, connection: Connection, handshake: Handshake, session_id: str) -> Receiver:
        return EngineIOPeer(connection, self._context, handshake, session_id)


def _refuse(transport: asyncio.Transport, refusal: EngineErrorReply) -> None:
    unkept = [("Cache-Control", "no-store")]
    transport.write(http_response.closing(refusal.status, "application/json", refusal.body(), fields=unkept))
    transport.close()
