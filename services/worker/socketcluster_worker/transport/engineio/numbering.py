"""Polling requests of a client that numbers them: one that comes again is neither handled nor answered anew.

A browser repeats a request by itself when the connection that it had kept is reset before the answer's first byte, a
POST too, and nothing tells the page. So our own client gives each poll and each POST the next number of its kind, from
1 on, as ``seq`` in the query, and goes on only once it has the answer: what has the last number is that request again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import Receive

from socketcluster_wire.close_codes import CloseCode
from socketcluster_wire.engineio import Packet
from socketcluster_worker.connection import Handshake
from socketcluster_worker.transport.engineio.engine import NOOP, EngineSession
from socketcluster_worker.transport.engineio.options import EngineOptions, Farewell
from socketcluster_worker.transport.engineio.posts import Outcome, Reading, take_packets, unless_cut_off
from socketcluster_worker.transport.http.request_body import Lost, disconnected
from socketcluster_worker.transport.websocket import WebSocket

PARAMETER = "seq"
"""The query's parameter that has a request's number."""
OPENING = "0"
"""The number of the request that opens a session."""
MAX_DIGITS = 15
"""So many digits a number has at most; JavaScript counts exactly that far."""


def number_of(handshake: Handshake) -> int | None:
    """Return a request's number; ``None`` if it has none, or what it has is no number."""
    text = handshake.parameter(PARAMETER) or ""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else None


class Numbering:
    """The last poll and the last POST of one session, and what they were answered.

    What is kept is at most the packets of one answer, until the next poll comes.

    Args:
        session: that session; it ends when a number is left out.
    """

    def __init__(self, session: EngineSession) -> None:
        self._session = session
        self._loop = asyncio.get_running_loop()
        self._polled = 0
        self._answer: asyncio.Future[list[Packet]] | None = None  # to the last poll
        self._let_go: asyncio.Future[None] | None = None  # has the request that waits for it return
        self._posted = 0
        self._outcome: asyncio.Future[Outcome] | None = None  # of the last POST
        self._read = False  # has all of that one's body come?

    async def poll(self, number: int, receive: Receive) -> list[Packet] | Outcome:
        """Return the packets that a poll is answered with, or why there are none."""
        session = self._session
        session.come_back()
        if number < self._polled or not number:
            return [NOOP]
        if number > self._polled:
            if session.told:
                return Outcome.ENDED
            if number > self._polled + 1:
                session.fail(CloseCode.PROTOCOL_ERROR, "a poll has another number than the next")
                return Outcome.BAD
            self._polled = number
            if self._answer is None or self._answer.done():  # else a noop was all that the client had for the last one
                self._answer = session.poll()
        answer = self._answer
        assert answer is not None  # noqa: S101  # no poll of the session waits beside the numbered ones
        if self._let_go is not None:
            self._let_go.set_result(None)
            self._let_go = None
        return answer.result() if answer.done() else await self._wait(answer, receive)

    async def _wait(self, answer: asyncio.Future[list[Packet]], receive: Receive) -> list[Packet] | Outcome:
        let_go = self._let_go = self._loop.create_future()
        gone = asyncio.ensure_future(disconnected(receive))
        try:
            await asyncio.wait((answer, let_go, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if self._let_go is let_go:
                self._let_go = None
        if let_go.done():  # a noop would be an answer, if the other one is a late copy of this one: it would go on
            return Outcome.UNDECIDED
        if gone.done():  # its client may only have ended its own direction, and take this for the answer
            self._session.release_poll()
            self._session.break_off()
        return answer.result()

    async def post(self, number: int, reading: Reading) -> Outcome:
        """Take the packets of a request, unless they have been; return what became of them."""
        session = self._session
        session.come_back()
        before = self._outcome
        if number < self._posted or not number:
            return Outcome.TAKEN
        if number == self._posted and before is not None and (self._read or before.done()):
            return await asyncio.shield(before)
        if number > self._posted:
            if number > self._posted + 1 or not (before is None or before.done()):
                session.fail(CloseCode.PROTOCOL_ERROR, "a request with packets has another number than the next")
                return Outcome.BAD
            self._posted, self._outcome, self._read = number, self._loop.create_future(), False
        if session.cut_off is not None:  # the same request, of which not all has come
            session.cut_off()
        outcome = await self._take(reading)
        if outcome is not Outcome.UNDECIDED and self._outcome is not None and not self._outcome.done():
            self._outcome.set_result(outcome)
        return outcome

    async def _take(self, reading: Reading) -> Outcome:
        session = self._session
        if session.closed:
            return self._late(Outcome.ENDED)
        body = await unless_cut_off(session, reading())
        if body is Lost.TOO_LARGE:
            return Outcome.TOO_LARGE
        if session.closed:
            return self._late(Outcome.CUT_OFF if isinstance(body, Lost) else Outcome.ENDED)
        if body is Lost.GONE:
            session.break_off()
        if isinstance(body, Lost):
            return Outcome.UNDECIDED
        self._read = True
        return await take_packets(session, body)

    def _late(self, outcome: Outcome) -> Outcome:
        """Say what becomes of packets that came after the end: while it is told why, a client is not to give up."""
        return Outcome.TAKEN if self._session.is_telling else outcome


class NumberedSession(EngineSession):
    """The session of a client that numbers its polling requests; see ``EngineSession``."""

    def __init__(
        self, sid: str, options: EngineOptions, forget: Callable[[str], None], farewell: Farewell | None = None
    ) -> None:
        super().__init__(sid, options, forget, farewell)
        self.numbered = True
        self.numbering: Numbering | None = Numbering(self)
        """What is known of the requests, until the client goes by WebSocket."""

    def _go_over(self, websocket: WebSocket) -> None:
        super()._go_over(websocket)
        self.numbering = None
