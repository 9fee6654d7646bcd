"""Where clients come from, and go back to if there is no worker for them."""

from __future__ import annotations

import abc
import asyncio
import socket
from collections.abc import Callable
from typing import Generic, TypeVar

from socketcluster_balancer.counters import BalancerCounters
from socketcluster_balancer.entrance import responses
from socketcluster_balancer.entrance.client import Client
from socketcluster_balancer.entrance.deadlines import DeadlineQueue
from socketcluster_balancer.entrance.limits import NOBODY, Limits, OverLimit
from socketcluster_balancer.settings import BalancerSettings
from socketcluster_runtime.trusted_proxies import TELLING, TrustedProxies
from socketcluster_wire.errors import HeadTooLargeError, MalformedHeadError
from socketcluster_wire.proxy_protocol import ProxyHeader
from socketcluster_wire.request_head import RequestHead

LINGER = 1.0
"""Seconds that an answered client gets to take its answer and close."""
EARLY = 64
"""Bytes of a head up to which each piece is read for what it cannot be; then only its end is looked for."""
MAX_REFUSED = 256
"""Clients refused at once that get this time; with more at a time, the answer of some is lost in a reset."""
GRACE = 1.0
"""Seconds that a client which has not yet sent its head gets when the balancer is asked to stop."""

C = TypeVar("C", bound=Client)


class Reception(abc.ABC, Generic[C]):
    """Reads each client's first request head and passes the client on, or answers it itself.

    Args:
        settings: the balancer's.
        limits: on new connections.
        counters: the balancer's.
        proxies: those in front, who may say in the head whose connection it is.
    """

    def __init__(
        self,
        settings: BalancerSettings,
        limits: Limits,
        counters: BalancerCounters,
        proxies: TrustedProxies,
    ) -> None:
        self._limits = limits
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        self._max_head_bytes = settings.max_head_bytes
        self._proxies = proxies
        self._pass_on: Callable[[C], object] = self.release
        self._clients: set[C] = set()
        self._refused: set[C] = set()
        self._silent: DeadlineQueue[C] = DeadlineQueue(settings.first_byte_timeout, self._too_slow)
        self._reading: DeadlineQueue[C] = DeadlineQueue(settings.head_timeout, self._too_slow)
        self._leaving: DeadlineQueue[C] = DeadlineQueue(GRACE, self._too_slow)
        self._lingering: DeadlineQueue[C] = DeadlineQueue(LINGER, self._close_answered)
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def clients(self) -> int:
        """How many clients belong to the balancer: they have not sent their head, or wait, or are answered."""
        return len(self._clients)

    def pass_on_to(self, receiver: Callable[[C], object]) -> None:
        """Give ``receiver`` each client from now on whose head has arrived, and whom nobody reads from."""
        self._pass_on = receiver

    @abc.abstractmethod
    def accept(self, sock: socket.socket, host: str, header: ProxyHeader | None) -> None:
        """Take a new connection in, unless that is over a limit.

        Args:
            sock: the connection.
            host: the client's address.
            header: what a balancer in front said of the client.
        """

    def answer(self, client: C, status: int) -> None:
        """Answer a client that nobody reads from, and be rid of it."""
        self.respond(client, responses.answer(status, client.head))

    @abc.abstractmethod
    def respond(self, client: C, response: bytes) -> None:
        """Send a client that nobody reads from a whole response, and be rid of it."""

    @abc.abstractmethod
    def release(self, client: C) -> None:
        """End a client's connection, as far as it is this process's, and count it no more."""

    def forget(self, client: C) -> None:
        """Leave a client's connection to somebody else, who says to the limits when it has ended."""
        for deadlines in (self._silent, self._reading, self._leaving, self._lingering):
            deadlines.discard(client)
        self._refused.discard(client)
        self._clients.discard(client)
        if not self._clients:
            self._idle.set()

    def _ended(self, client: C) -> None:
        """Forget a client whose connection has ended."""
        if client in self._clients:
            self._limits.leave(client.key)
        self.forget(client)

    def hurry(self) -> None:
        """Shorten the time of clients that have not yet sent their head: the balancer is asked to stop."""
        for client in (*self._silent.pop_all(), *self._reading.pop_all()):
            self._leaving.add(client)

    async def idle(self) -> None:
        """Return when no client belongs to the balancer."""
        await self._idle.wait()

    def close(self) -> None:
        """Close every client that still belongs to the balancer."""
        for deadlines in (self._silent, self._reading, self._leaving, self._lingering):
            deadlines.close()
        for client in (*self._clients, *self._refused):
            self._close_answered(client)

    def _key(self, host: str) -> bytes:
        """Return what a new connection is counted under; that of a proxy has no client before its head is there."""
        return NOBODY if self._proxies.tell(host) else self._limits.key(host)

    def _admit(self, key: bytes) -> OverLimit | None:
        """Count a new connection, or say why it is to be refused."""
        refusal = self._limits.enter(key)
        if refusal is None:
            self._counters.accepted += 1
        else:
            self._counters.refused[refusal.value] += 1
        return refusal

    def _take_in(self, client: C) -> None:
        self._clients.add(client)
        self._idle.clear()

    def _look_for_head(self, client: C, known: int) -> int:
        """Look whether the client's head is complete; return the status to refuse it with, or 0.

        Args:
            client: whose.
            known: bytes of its data that were looked at before.
        """
        if known > EARLY and len(client.data) < self._max_head_bytes and not RequestHead.may_end(client.data, known):
            return 0
        try:
            client.head = RequestHead.parse(client.data, self._max_head_bytes)
        except MalformedHeadError:
            self._counters.refused["head_malformed"] += 1
            return 400
        except HeadTooLargeError:
            self._counters.refused["head_too_large"] += 1
            return 431
        return 0

    def _complete(self, client: C) -> None:
        """Pass a client on whose head has arrived and whom nobody reads from, unless it proves to be over a limit."""
        try:
            refusal = self._learn_from_proxy(client)
        except OSError:  # it has gone
            self.release(client)
            return
        if refusal is None:
            self._pass_on(client)
            return
        self._counters.refused[refusal.value] += 1
        self.respond(client, responses.answer(429, client.head, retry_after=self._limits.retry_after(refusal)))

    def _learn_from_proxy(self, client: C) -> OverLimit | None:
        """Learn whose request it is that a proxy in front has sent, if it is one; return why it must not be served.

        Raises:
            OSError: it has gone.
        """
        head, proxies = client.head, self._proxies
        if head is None or not (proxies.by_request or proxies.forgotten):
            return None
        peer, _ = client.addresses()
        if not proxies.tell(peer[0]):
            if proxies.forgotten is not None:
                fields = [(name.encode(), (head.header(name) or "").encode("latin-1")) for name in TELLING]
                proxies.forgotten.see([field for field in fields if field[1]], peer)
            return None
        client.told = proxies.read_joined(head.headers(), peer)
        key = self._limits.key(client.told.client[0])
        refusal = self._limits.name(key)
        if refusal is None:
            client.key = key
        return refusal

    def _too_slow(self, client: C) -> None:
        """Be rid of a client whose head has not arrived in time."""
        self._counters.refused["head_timeout" if client.data else "first_byte_timeout"] += 1
        self._hurry_away(client)

    @abc.abstractmethod
    def _hurry_away(self, client: C) -> None:
        """Answer a client that has begun to speak, and close the connection of one that has not."""

    @abc.abstractmethod
    def _close_answered(self, client: C) -> None:
        """Close a client that nobody else has, whatever is under way."""
