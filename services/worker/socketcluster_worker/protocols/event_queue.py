"""What a client sent and has to wait for its turn: one queue for each socket, whatever makes it wait."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

from socketcluster_worker import fairness
from socketcluster_worker.api.sockets.socket import Socket
from socketcluster_worker.protocols.backpressure import Backpressure

END_TIMEOUT = 10.0
"""Seconds that a client's end may wait for what was sent before it; what still waits then is dropped."""
ROOM = object()
"""Holds events until fewer handlers run; the end of the client does not wait for that."""
_BEGINNING = object()
_TURN = object()
_CLOSED = object()


class EventQueue:
    """The events, requests and the end of one client, in the order in which they came.

    Whoever takes one may ``hold`` the queue, a middleware's question say; what comes then is ``put``, until all who
    hold it have released it. From the beginning on it is held until ``begin``.

    Args:
        backpressure: is told what waits.

    Attributes:
        held: must what comes now be put here? If not, it is taken at once, and costs nothing here.
    """

    __slots__ = ("_at_end", "_backpressure", "_holders", "_releasing", "_waiting", "held")

    def __init__(self, backpressure: Backpressure) -> None:
        self.held = True
        self._backpressure = backpressure
        self._holders: tuple[object, ...] = (_BEGINNING,)  # never more than a few
        self._waiting: deque[tuple[Callable[..., None], tuple[Any, ...], int]] | None = None  # nearly always nothing
        self._releasing = False
        self._at_end: Callable[[], None] | None = None

    def __len__(self) -> int:
        return 0 if self._waiting is None else len(self._waiting)

    def begin(self) -> None:
        """Take what has waited, and what comes."""
        self.release(_BEGINNING)

    def put(self, take: Callable[..., None], *args: Any) -> None:
        """Have ``take(*args)`` called in its turn."""
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append((take, args, self._backpressure.wait()))

    def hold(self, holder: object) -> None:
        """Have everything wait that comes from now on."""
        self.held = True
        if holder not in self._holders:
            self._holders = (*self._holders, holder)

    def release(self, holder: object) -> None:
        """Take what has waited, and what comes, unless somebody else has it wait."""
        if holder in self._holders:
            others = self._holders
            self._holders = () if len(others) == 1 else tuple(other for other in others if other is not holder)
        if self._releasing:  # called by the loop below, which goes on: a middleware may answer at once
            return
        if not self._holders:
            self._take_all()
        self._end_if_due()

    def rest(self) -> None:
        """Let other clients have their turn before the next one is taken."""
        self.hold(_TURN)
        fairness.later(partial(self.release, _TURN))

    def _take_all(self) -> None:
        self._releasing = True
        end = monotonic() + fairness.SLICE
        try:
            while self._waiting and not self._holders:
                take, args, size = self._waiting.popleft()
                self._backpressure.stop_waiting(size)
                take(*args)
                if self._waiting and not self._holders and monotonic() >= end:
                    self.rest()
        finally:
            self._releasing = False
            if not self._waiting:
                self._waiting = None
            self.held = bool(self._holders)

    def end(self, then: Callable[[], None]) -> None:
        """Call ``then`` once all that has come has been taken, and is over where it held the queue."""
        self._at_end = then
        self._end_if_due()

    def _end_if_due(self) -> None:
        if self._at_end is not None and not self._waiting and all(holder is ROOM for holder in self._holders):
            then, self._at_end = self._at_end, None
            then()

    def close(self) -> None:
        """Take nothing any more; what waits is dropped."""
        self.hold(_CLOSED)
        self._at_end = None
        waiting, self._waiting = self._waiting, None
        for _, _, size in waiting or ():
            self._backpressure.stop_waiting(size)


class ClientEnd:
    """The end of a connection that its client ended in good order, while something that came before it waits.

    Nothing is taken from the client any more, and nothing sent to it: for that the socket is closed already.

    Args:
        socket: whose end it is.
        tell: tells the application; called once.
    """

    __slots__ = ("_socket", "_tell", "_timer")

    def __init__(self, socket: Socket, tell: Callable[[], None]) -> None:
        self._socket = socket
        self._tell = tell
        self._timer = asyncio.get_running_loop().call_later(END_TIMEOUT, self.come)
        socket.connected = False
        socket.end_now = self.come

    def come(self) -> None:
        """Tell, unless that was done; what still waits is dropped by that."""
        if self._socket.end_now is not None:
            self._socket.end_now = None
            self._timer.cancel()
            self._tell()
