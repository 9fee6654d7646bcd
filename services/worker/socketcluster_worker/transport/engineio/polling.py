"""Engine.IO over HTTP: the handshake, polling requests, and which session a WebSocket belongs to."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from socketcluster_wire import engineio as wire
from socketcluster_wire.close_codes import CloseCode
from socketcluster_wire.engineio import ErrorCode, Packet
from socketcluster_worker.connection import Connection, Handshake, Receiver
from socketcluster_worker.endpoints.origins import OriginPolicy
from socketcluster_worker.ids import IdGenerator
from socketcluster_worker.transport.engineio.engine import EngineSession
from socketcluster_worker.transport.engineio.numbering import (
    OPENING,
    PARAMETER,
    NumberedSession,
    number_of,
)
from socketcluster_worker.transport.engineio.options import EngineOptions, Farewell
from socketcluster_worker.transport.engineio.posts import Outcome, Reading, take_packets, unless_cut_off
from socketcluster_worker.transport.engineio.upgrade import EngineWebSocket
from socketcluster_worker.transport.http.content_coding import accepts_gzip
from socketcluster_worker.transport.http.request_body import Lost, disconnected, read_body
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
class EngineErrorReply:
    """What a request is answered that is not served: Engine.IO's error, as JSON."""

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
        ids: makes the sids.
        options: times and sizes.
        origins: which pages may connect.
        make_receiver: makes the message protocol above a new connection.
        numbers: may clients number their polling requests?
        farewell: makes the last message of a client that goes by polling.
    """

    def __init__(
        self,
        ids: IdGenerator,
        options: EngineOptions,
        origins: OriginPolicy,
        make_receiver: MakeReceiver,
        *,
        numbers: bool = False,
        farewell: Farewell | None = None,
    ) -> None:
        self._ids = ids
        self._options = options
        self._origins = origins
        self._make_receiver = make_receiver
        self.numbers = numbers
        self._farewell = farewell
        self._sessions: dict[str, EngineSession] = {}
        self._forget = self._forget_session  # one method object for all of them

    def __len__(self) -> int:
        return len(self._sessions)

    def close_all(self, code: int, reason: str) -> None:
        """End every connection."""
        for session in tuple(self._sessions.values()):
            session.close(code, reason)

    def release_poll(self, sid: str) -> None:
        """Have a session's poll answered now, if one waits: its client's connection is about to end."""
        session = self._sessions.get(sid)
        if session is not None:
            session.release_poll()

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
        sid = handshake.parameter("sid")
        if handshake.parameter("transport") != "polling":
            return _refuse(EngineErrorReply(400, ErrorCode.BAD_REQUEST))  # a WebSocket that does not ask for an upgrade
        if sid is None:
            if method != "GET":
                return _refuse(EngineErrorReply(400, ErrorCode.BAD_HANDSHAKE_METHOD))
            session = self._open(handshake, session_id)
            return Response(wire.encode_payload([session.opening(upgrades=["websocket"])]), media_type=PLAIN)
        found = self._sessions.get(sid)
        if found is None:
            return _refuse(EngineErrorReply(400, ErrorCode.UNKNOWN_SID))
        if found.transport_name != "polling" or method not in ("GET", "POST"):
            return _refuse(EngineErrorReply(400, ErrorCode.BAD_REQUEST))
        if method == "POST":
            return _answer_post(await self._post(found, receive, handshake))
        got = await self._poll(found, receive, handshake)
        return _answer_post(got) if isinstance(got, Outcome) else _answer_poll(got, handshake)

    async def _poll(self, session: EngineSession, receive: Receive, handshake: Handshake) -> list[Packet] | Outcome:
        if isinstance(session, NumberedSession) and session.numbering is not None:
            number = number_of(handshake)
            return _without_number(session) if number is None else await session.numbering.poll(number, receive)
        future = session.poll()
        if future is None:
            return Outcome.BAD
        if not future.done():
            gone = asyncio.ensure_future(disconnected(receive))
            try:
                await asyncio.wait((future, gone), return_when=asyncio.FIRST_COMPLETED)
            finally:
                gone.cancel()
            if not future.done() or gone.done():
                session.break_off()  # a waiting poll is answered by that
        return future.result()

    async def _post(self, session: EngineSession, receive: Receive, handshake: Handshake) -> Outcome:
        def reading() -> Coroutine[Any, Any, bytes | Lost]:
            return read_body(receive, self._options.max_http_buffer_size, handshake.headers.get("content-length", ""))

        if isinstance(session, NumberedSession) and session.numbering is not None:
            number = number_of(handshake)
            return _without_number(session) if number is None else await session.numbering.post(number, reading)
        if session.closed:
            return Outcome.ENDED
        if not session.begin_post():
            return Outcome.BAD
        try:
            return await self._take(session, reading)
        finally:
            session.end_post()

    async def _take(self, session: EngineSession, reading: Reading) -> Outcome:
        body = await unless_cut_off(session, reading())
        if body is Lost.TOO_LARGE:
            return Outcome.TOO_LARGE
        if session.closed:
            return Outcome.CUT_OFF if isinstance(body, Lost) else Outcome.ENDED
        if isinstance(body, Lost):
            session.break_off()
            return Outcome.UNDECIDED
        return await take_packets(session, body)

    def _open(self, handshake: Handshake, session_id: str) -> EngineSession:
        sid = self._ids.new_id()
        handshake.pack()
        numbered = self.numbers and handshake.parameter(PARAMETER) == OPENING
        kind = NumberedSession if numbered else EngineSession
        session = self._sessions[sid] = kind(sid, self._options, self._forget, self._farewell)
        session.receiver = self._make_receiver(session, handshake, session_id)
        return session

    def _forget_session(self, sid: str) -> None:
        self._sessions.pop(sid, None)

    def _check(self, handshake: Handshake) -> EngineErrorReply | None:
        """Say why a request is not served, whatever it asks for."""
        if handshake.parameter("transport") not in TRANSPORTS:
            return EngineErrorReply(400, ErrorCode.UNKNOWN_TRANSPORT)
        if handshake.parameter("EIO") != wire.REVISION:
            return EngineErrorReply(400, ErrorCode.UNSUPPORTED_VERSION)
        if (reason := self._origins.refusal(handshake)) is not None:
            return EngineErrorReply(403, ErrorCode.FORBIDDEN, reason)
        return None

    # WebSocket.

    def check_upgrade(self, handshake: Handshake) -> EngineErrorReply | None:
        """Say why a WebSocket may not open, if it may not."""
        refusal = self._check(handshake)
        if refusal is not None:
            return refusal
        if handshake.parameter("transport") != "websocket":
            return EngineErrorReply(400, ErrorCode.BAD_REQUEST)
        sid = handshake.parameter("sid")
        if sid is None:
            return None
        return None if sid in self._sessions else EngineErrorReply(400, ErrorCode.UNKNOWN_SID)

    def attach(self, websocket: WebSocket, handshake: Handshake, session_id: str) -> None:
        """Take an open WebSocket that ``check_upgrade`` had nothing against: to take over, or as a new connection."""
        sid = handshake.parameter("sid")
        if sid is not None:
            session = self._sessions[sid]
            websocket.receiver = EngineWebSocket(websocket, session)
            if session.can_upgrade:
                session.probe(websocket)
            else:  # closed, not refused: so the reference does it, and clients count on the opening handshake
                websocket.close(CloseCode.PROTOCOL_ERROR, "the session has a WebSocket already, or has ended")
            return
        session = EngineSession(self._ids.new_id(), self._options, self._forget, self._farewell)
        websocket.receiver = EngineWebSocket(websocket, session)
        self._sessions[session.sid] = session
        session.adopt(websocket)
        session.receiver = self._make_receiver(session, handshake, session_id)


def _refuse(refusal: EngineErrorReply, headers: dict[str, str] | None = None) -> Response:
    return Response(refusal.body(), refusal.status, headers, media_type="application/json")


def _without_number(session: EngineSession) -> Outcome:
    session.fail(CloseCode.PROTOCOL_ERROR, "a polling request has no number")
    return Outcome.BAD


def _answer_poll(packets: list[Packet], handshake: Handshake) -> Response:
    body = wire.encode_payload(packets)
    headers = {}
    if len(body) >= COMPRESSION_THRESHOLD and accepts_gzip(handshake.headers.get("accept-encoding", "")):
        body = gzip.compress(body, COMPRESSION_LEVEL)
        headers["content-encoding"] = "gzip"
    return Response(body, media_type=PLAIN, headers=headers)


def _answer_post(outcome: Outcome) -> Response | None:
    """Return the answer to a request with packets, or that there is none to a poll; ``None``: nobody waits for one."""
    match outcome:
        case Outcome.TAKEN:
            return Response("ok", media_type="text/html")
        case Outcome.TOO_LARGE:
            return Response(status_code=413, headers={"connection": "close"})
        case Outcome.BAD:
            return _refuse(EngineErrorReply(400, ErrorCode.BAD_REQUEST))
        case Outcome.ENDED:
            return _refuse(EngineErrorReply(400, ErrorCode.UNKNOWN_SID))
        case Outcome.CUT_OFF:
            return _refuse(EngineErrorReply(400, ErrorCode.UNKNOWN_SID), headers={"connection": "close"})
        case Outcome.UNDECIDED:
            return None
