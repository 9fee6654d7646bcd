"""Polling requests that bring packets, each a POST: their bodies, and what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from enum import Enum
from typing import Any

from socketcluster_wire import engineio as wire
from socketcluster_wire.close_codes import CloseCode
from socketcluster_wire.engineio import Packet
from socketcluster_wire.errors import MalformedPacketError
from socketcluster_worker.transport.engineio.engine import EngineSession
from socketcluster_worker.transport.http.request_body import Lost

Reading = Callable[[], Coroutine[Any, Any, bytes | Lost]]
"""Begins to read the body of a request."""


class Outcome(Enum):
    """What became of a request with packets."""

    TAKEN = "its packets were taken"
    TOO_LARGE = "it is over the limit"
    BAD = "it broke the protocol"
    ENDED = "its session has ended"
    CUT_OFF = "its session ended before all of it had come"
    UNDECIDED = "its client is gone, or it came again, before all of it had come"


async def unless_cut_off(session: EngineSession, reading: Coroutine[Any, Any, bytes | Lost]) -> bytes | Lost:
    """Return what ``reading`` does, unless the session's ``cut_off`` is called before."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  # this is a coroutine
    was_cut_off = False

    def cut_off() -> None:
        nonlocal was_cut_off
        was_cut_off = True
        task.cancel()

    session.cut_off = cut_off
    try:
        return await reading
    except asyncio.CancelledError:
        if not was_cut_off or task.uncancel():
            raise
        return Lost.CUT_OFF
    finally:
        if session.cut_off is cut_off:
            session.cut_off = None


async def take_packets(session: EngineSession, body: bytes) -> Outcome:
    """Have a session take the packets of a body; return when it has taken them all."""
    try:
        packets: Iterator[Packet] = wire.iterate_payload(body)
    except MalformedPacketError:
        session.fail(CloseCode.PROTOCOL_ERROR, "a polling request was malformed")
        return Outcome.BAD
    return Outcome.TAKEN if await session.post(packets) else Outcome.BAD
