"""Where clients come from, and go back to if there is no worker for them."""

from __future__ import annotations

import abc
import asyncio
import socket
from collections.abc import Callable
from typing import Generic, TypeVar

from socketcluster_balancer import pages
from socketcluster_balancer.client import Client
from socketcluster_balancer.deadlines import Deadlines
from socketcluster_balancer.settings import BalancerSettings
from socketcluster_wire.errors import HeadTooLargeError, MalformedHeadError
from socketcluster_wire.request_head import RequestHead

LINGER = 1.0
"""Seconds that an answered client gets to take its answer and close."""
GRACE = 1.0
"""Seconds that a client which has not yet sent its head gets when the balancer is asked to stop."""

C = TypeVar("C", bound=Client)


class Reception(abc.ABC, Generic[C]):
    """Reads each client's first request head and passes the client on, or answers it itself.

    Args:
        settings: the balancer's.
        complete: is given each client whose head has arrived, and whom nobody reads from.
    """

    def __init__(self, settings: BalancerSettings, complete: Callable[[C], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._max_head_bytes = settings.max_head_bytes
        self._complete = complete
        self._clients: set[C] = set()
        self._reading: Deadlines[C] = Deadlines(settings.head_timeout, self._too_slow)
        self._leaving: Deadlines[C] = Deadlines(GRACE, self._too_slow)
        self._lingering: Deadlines[C] = Deadlines(LINGER, self._close_answered)
        self._idle = asyncio.Event()
        self._idle.set()

    @abc.abstractmethod
    def accept(self, sock: socket.socket) -> None:
        """Take a new connection in."""

    def answer(self, client: C, status: int) -> None:
        """Answer a client that nobody reads from, and be rid of it."""
        self.respond(client, pages.answer(status, client.head))

    @abc.abstractmethod
    def respond(self, client: C, response: bytes) -> None:
        """Send a client that nobody reads from a whole response, and be rid of it."""

    @abc.abstractmethod
    def release(self, client: C) -> None:
        """Close this process's descriptor of a client that is somebody else's now, or nobody's."""

    def forget(self, client: C) -> None:
        """Stop counting a client whose connection belongs to somebody else in this process."""
        for deadlines in (self._reading, self._leaving, self._lingering):
            deadlines.discard(client)
        self._clients.discard(client)
        if not self._clients:
            self._idle.set()

    def hurry(self) -> None:
        """Shorten the time of clients that have not yet sent their head: the balancer is asked to stop."""
        for client in self._reading.pop_all():
            self._leaving.add(client)

    async def idle(self) -> None:
        """Return when no client belongs to the balancer."""
        await self._idle.wait()

    def close(self) -> None:
        """Close every client that still belongs to the balancer."""
        for deadlines in (self._reading, self._leaving, self._lingering):
            deadlines.close()
        for client in tuple(self._clients):
            self._close_answered(client)

    def _take_in(self, client: C) -> None:
        self._clients.add(client)
        self._idle.clear()

    def _look_for_head(self, client: C) -> int:
        """Look whether the client's head is complete; return the status to refuse it with, or 0."""
        try:
            client.head = RequestHead.parse(client.data, self._max_head_bytes)
        except MalformedHeadError:
            return 400
        except HeadTooLargeError:
            return 431
        return 0

    @abc.abstractmethod
    def _too_slow(self, client: C) -> None:
        """Be rid of a client whose head has not arrived in time."""

    @abc.abstractmethod
    def _close_answered(self, client: C) -> None:
        """Close a client that nobody else has, whatever is under way."""
