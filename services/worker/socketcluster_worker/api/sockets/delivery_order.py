"""One order for what reaches a client by two ways, where broadcasts go through the store before they are delivered.

A broadcast's recipients on the worker that makes it are those at the time when it is made, so that whoever leaves a
room after it still gets it. What the worker sends to one of them alone before the broadcast has come back from the
store (an acknowledgement, a call, the end of the connection) waits for that. Who has nothing on its way waits for
nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from socketcluster_store_client.messages import Position, read_published


class Recipient(Protocol):
    """What is asked of a socket."""

    turn: int
    """Number of the last broadcast to it that is on its way; 0: none is."""

    def take_turn(self, heard: int) -> None:
        """Send what has waited for broadcasts up to a number."""


R = TypeVar("R", bound=Recipient)


class _OnItsWay(Generic[R]):
    """A broadcast that was published and not heard yet."""

    __slots__ = ("position", "sockets")

    def __init__(self, sockets: Sequence[R]) -> None:
        self.sockets = sockets
        self.position: Position | None = None  # once the store has answered


class DeliveryOrder(Generic[R]):
    """The broadcasts of one namespace that this worker made, by number.

    Attributes:
        sent: the number of the last one; the first has 1.
        heard: the number of the last one that came back.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.heard = 0
        self._latest = Position(0, 0)
        self._on_their_way: dict[int, _OnItsWay[R]] = {}

    def begin(self, sockets: Sequence[R], sent: asyncio.Future[bytes]) -> None:
        """Note a broadcast, and who is to get it here; what is sent to them alone waits until it is heard."""
        self.sent += 1
        number = self.sent
        self._on_their_way[number] = _OnItsWay(sockets)
        for socket in sockets:
            socket.turn = number
        sent.add_done_callback(lambda answered: self._answered(number, answered))

    def recipients(self, number: int) -> Sequence[R] | None:
        """Return who is to get a broadcast that was heard; ``None``: that is not known any more."""
        found = self._on_their_way.get(number)
        return None if found is None else found.sockets

    def end(self, number: int) -> None:
        """Let what waits for a broadcast go out: it was delivered, or never will be."""
        self.heard = max(self.heard, number)
        found = self._on_their_way.pop(number, None)
        for socket in () if found is None else found.sockets:
            socket.take_turn(self.heard)

    def reached(self, position: Position, *, missed: bool = False) -> None:
        """Note how far this worker has heard the namespace; what was missed on the way does not come any more."""
        self._latest = position
        if missed:
            for number, one in tuple(self._on_their_way.items()):
                if one.position is not None and one.position <= position:
                    self.end(number)

    def _answered(self, number: int, answered: asyncio.Future[bytes]) -> None:
        found = self._on_their_way.get(number)
        if found is None:
            return
        if answered.cancelled() or answered.exception() is not None:
            self.end(number)
            return
        published = read_published(answered.result())
        found.position = Position(published.epoch, published.offset)
        if found.position <= self._latest:  # and yet it was not heard
            self.end(number)
