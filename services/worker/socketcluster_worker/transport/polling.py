"""Engine.IO over HTTP: the handshake, polling requests, and which session a WebSocket belongs to."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from socketcluster_wire import engineio as wire
from socketcluster_wire.close_codes import CloseCode
from socketcluster_wire.engineio import ErrorCode
from socketcluster_wire.errors import MalformedPacketError
from socketcluster_worker.connection import Connection, Handshake, Receiver
from socketcluster_worker.identity import Identity
from socketcluster_worker.origins import OriginPolicy
from socketcluster_worker.transport.content_coding import accepts_gzip
from socketcluster_worker.transport.engine import EngineOptions, EngineSession, EngineWebSocket
from socketcluster_worker.transport.websocket import WebSocket

PLAIN = "text/plain; charset=UTF-8"
NO_STORE = {"cache-control": "no-store"}
"""Header of every answer: it is for one client, at one time."""
COMPRESSION_THRESHOLD = 1024
"""Bytes from which on the body of a polling response is compressed."""
COMPRESSION_LEVEL = 1  # the loop waits for it
TRANSPORTS = ("polling", "websocket")

MakeReceiver = Callable[[Connection, Handshake, str], Receiver]
"""Makes the message protocol of a new connection; the last argument is the session's id."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not served."""

    status: int
    error: tuple[int, str]
    reason: str = ""
    """What the error's message goes on with."""

    def body(self) -> bytes:
        """Return Engine.IO's error JSON."""
        code, message = self.error
        return msgspec.json.encode({"code": code, "message": f"{message}: {self.reason}" if self.reason else message})


class EngineServer:
    """The Engine.IO sessions of one endpoint.

    Args:
        identity: makes the sids.
        options: times and sizes.
        origins: which pages may connect.
        make_receiver: makes the message protocol above a new connection.
    """

    def __init__(
        self, identity: Identity, options: EngineOptions, origins: OriginPolicy, make_receiver: MakeReceiver
    ) -> None:
        self._identity = identity
        self._options = options
        self._origins = origins
        self._make_receiver = make_receiver
        self._sessions: dict[str, EngineSession] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def close_all(self, code: int, reason: str) -> None:
        """End every connection."""
        for session in tuple(self._sessions.values()):
            session.close(code, reason)

    # HTTP.

    async def serve(self, scope: Scope, receive: Receive, send: Send, handshake: Handshake, session_id: str) -> None:
        """Serve one request of a polling client (ASGI 3)."""
        if scope["method"] == "OPTIONS":
            await Response(status_code=204, headers=self._origins.preflight(handshake) | NO_STORE)(scope, receive, send)
            return
        response = await self._respond(scope["method"], receive, handshake, session_id)
        if response is not None:
            response.headers.update(self._origins.headers(handshake) | NO_STORE)
            await response(scope, receive, send)

    async def _respond(self, method: str, receive: Receive, handshake: Handshake, session_id: str) -> Response | None:
        refusal = self._check(handshake)
        if refusal is not None:
            return _refuse(refusal)
        sid = handshake.query.get("sid")
        if handshake.query["transport"] != "polling":
            return _refuse(Refusal(400, ErrorCode.BAD_REQUEST))  # a WebSocket that does not ask for an upgrade
        if sid is None:
            if method != "GET":
                return _refuse(Refusal(400, ErrorCode.BAD_HANDSHAKE_METHOD))
            session = self._open(handshake, session_id)
            return Response(wire.encode_payload([session.opening(upgrades=["websocket"])]), media_type=PLAIN)
        found = self._sessions.get(sid)
        if found is None:
            return _refuse(Refusal(400, ErrorCode.UNKNOWN_SID))
        if found.transport_name != "polling" or method not in ("GET", "POST"):
            return _refuse(Refusal(400, ErrorCode.BAD_REQUEST))
        if method == "POST":
            return await self._post(found, receive, handshake)
        return await self._poll(found, receive, handshake)

    async def _poll(self, session: EngineSession, receive: Receive, handshake: Handshake) -> Response | None:
        future = session.poll()
        if future is None:
            return _refuse(Refusal(400, ErrorCode.BAD_REQUEST))
        if not future.done():
            gone = asyncio.ensure_future(disconnected(receive))
            try:
                await asyncio.wait((future, gone), return_when=asyncio.FIRST_COMPLETED)
            finally:
                gone.cancel()
            if not future.done() or gone.done():
                session.break_off()  # a waiting poll is answered by that
        body = wire.encode_payload(future.result())
        headers = {}
        if len(body) >= COMPRESSION_THRESHOLD and accepts_gzip(handshake.headers.get("accept-encoding", "")):
            body = gzip.compress(body, COMPRESSION_LEVEL)
            headers["content-encoding"] = "gzip"
        return Response(body, media_type=PLAIN, headers=headers)

    async def _post(self, session: EngineSession, receive: Receive, handshake: Handshake) -> Response | None:
        if session.closed:
            return _refuse(Refusal(400, ErrorCode.UNKNOWN_SID))
        if not session.begin_post():
            return _refuse(Refusal(400, ErrorCode.BAD_REQUEST))
        try:
            return await self._take(session, receive, handshake)
        finally:
            session.end_post()

    async def _take(self, session: EngineSession, receive: Receive, handshake: Handshake) -> Response | None:
        limit = self._options.max_http_buffer_size
        reading = read_body(receive, limit, handshake.headers.get("content-length", ""))
        body = await _unless_ended(session, reading)
        if body is None:
            return Response(status_code=413, headers={"connection": "close"})
        if isinstance(body, str):
            if session.closed:
                return _refuse(Refusal(400, ErrorCode.UNKNOWN_SID), headers={"connection": "close"})
            session.break_off()
            return None
        if session.closed:  # it ended while the body was read
            return _refuse(Refusal(400, ErrorCode.UNKNOWN_SID))
        try:
            packets = wire.iterate_payload(body)
        except MalformedPacketError:
            session.fail(CloseCode.PROTOCOL_ERROR, "a polling request was malformed")
            return _refuse(Refusal(400, ErrorCode.BAD_REQUEST))
        if not await session.post(packets):
            return _refuse(Refusal(400, ErrorCode.BAD_REQUEST))
        return Response("ok", media_type="text/html")

    def _open(self, handshake: Handshake, session_id: str) -> EngineSession:
        sid = self._identity.new_id()
        session = EngineSession(sid, self._options, self._forget)
        self._sessions[sid] = session
        session.receiver = self._make_receiver(session, handshake, session_id)
        return session

    def _forget(self, sid: str) -> None:
        self._sessions.pop(sid, None)

    def _check(self, handshake: Handshake) -> Refusal | None:
        """Say why a request is not served, whatever it asks for."""
        if handshake.query.get("transport") not in TRANSPORTS:
            return Refusal(400, ErrorCode.UNKNOWN_TRANSPORT)
        if handshake.query.get("EIO") != wire.REVISION:
            return Refusal(400, ErrorCode.UNSUPPORTED_VERSION)
        if (reason := self._origins.refusal(handshake)) is not None:
            return Refusal(403, ErrorCode.FORBIDDEN, reason)
        return None

    # WebSocket.

    def check_upgrade(self, handshake: Handshake) -> Refusal | None:
        """Say why a WebSocket may not open, if it may not."""
        refusal = self._check(handshake)
        if refusal is not None:
            return refusal
        if handshake.query["transport"] != "websocket":
            return Refusal(400, ErrorCode.BAD_REQUEST)
        sid = handshake.query.get("sid")
        if sid is None:
            return None
        return None if sid in self._sessions else Refusal(400, ErrorCode.UNKNOWN_SID)

    def attach(self, websocket: WebSocket, handshake: Handshake, session_id: str) -> None:
        """Take an open WebSocket that ``check_upgrade`` had nothing against: to take over, or as a new connection."""
        sid = handshake.query.get("sid")
        if sid is not None:
            session = self._sessions[sid]
            websocket.receiver = EngineWebSocket(websocket, session)
            if session.can_upgrade:
                session.probe(websocket)
            else:  # closed, not refused: so the reference does it, and clients count on the opening handshake
                websocket.close(CloseCode.PROTOCOL_ERROR, "the session has a WebSocket already, or has ended")
            return
        session = EngineSession(self._identity.new_id(), self._options, self._forget)
        websocket.receiver = EngineWebSocket(websocket, session)
        self._sessions[session.sid] = session
        session.adopt(websocket)
        session.receiver = self._make_receiver(session, handshake, session_id)


def _refuse(refusal: Refusal, headers: dict[str, str] | None = None) -> Response:
    return Response(refusal.body(), refusal.status, headers, media_type="application/json")


async def _unless_ended(session: EngineSession, reading: Coroutine[Any, Any, bytes | str | None]) -> bytes | str | None:
    """Return the body of a request, ``"gone"`` if its session ends before it has come: nobody is to wait for that."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  # this is a coroutine
    session.cut_off = task.cancel
    try:
        return await reading
    except asyncio.CancelledError:
        if not session.closed or task.uncancel():
            raise
        return "gone"
    finally:
        session.cut_off = None


async def disconnected(receive: Receive) -> None:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def read_body(receive: Receive, limit: int, announced: str) -> bytes | str | None:
    """Return a request's body, ``None`` if it is over the limit, or ``"gone"`` if the client went away."""
    if announced.isdigit() and int(announced) > limit:
        return None
    parts: list[bytes] = []
    size = 0
    while True:
        message: Message | dict[str, Any] = await receive()
        if message["type"] == "http.disconnect":
            return "gone"
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            return None
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)
