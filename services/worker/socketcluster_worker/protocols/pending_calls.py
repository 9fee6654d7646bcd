"""Calls to a client that it has not answered yet: SocketCluster's responses, Socket.IO's acknowledgements."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from socketcluster_wire.socketcluster import CallId
from socketcluster_worker.errors import CallTimeoutError, SocketClosedError


class PendingCalls:
    """Those of one socket.

    Args:
        first_id: the id of its first call; they rise.
    """

    __slots__ = ("_answers", "_next_id")

    def __init__(self, first_id: int) -> None:
        self._next_id = first_id
        self._answers: dict[CallId, asyncio.Future[Any]] | None = None  # made with the first call

    def __len__(self) -> int:
        return len(self._answers or ())

    async def call(self, what: str, send: Callable[[int], None], timeout: float) -> Any:
        """Send a call, and return its answer.

        Args:
            what: the call's name, for people.
            send: sends it with this id; if it raises, the next call has the id.
            timeout: seconds that the client has.

        Raises:
            CallTimeoutError: no answer came in time.
            RemoteError: the client answered with an error.
            SocketClosedError: the client went before it answered.
        """
        call_id = self._next_id
        # Who does not read is disconnected while it is sent, perhaps: then it fails at once, and not by the time-out.
        if self._answers is None:
            self._answers = {}
        answers = self._answers
        answer = answers[call_id] = asyncio.get_running_loop().create_future()
        try:
            send(call_id)
            self._next_id += 1
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise CallTimeoutError(f"no answer to {what!r} within {timeout} s") from None
        finally:
            answers.pop(call_id, None)

    def take(self, call_id: CallId | None) -> asyncio.Future[Any] | None:
        """Return what waits for a call's answer, which has come; ``None`` if nobody does any more."""
        answer = self._answers.pop(call_id, None) if self._answers and call_id is not None else None
        return None if answer is None or answer.done() else answer

    def end(self, code: int) -> None:
        """Have no call answered any more: the client is gone."""
        answers, self._answers = self._answers or {}, None
        for answer in answers.values():
            if not answer.done():
                answer.set_exception(SocketClosedError(f"the client is gone ({code})"))
