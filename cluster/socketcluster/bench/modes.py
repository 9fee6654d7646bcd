"""What the clients of one process do, in each mode, and what is counted meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Awaitable, Callable
from time import monotonic_ns

from socketcluster.bench.advice import NO_ANSWER
from socketcluster.bench.client import Client
from socketcluster.bench.connect import Connector
from socketcluster.bench.dialects import text_of
from socketcluster.bench.plan import Mode, Plan
from socketcluster.bench.tally import Tally

LONGEST_PAUSE = 1.0
"""Seconds before a client tries again that was not served in a storm: half of that to all of it, from a tenth on."""
SWEEP_EVERY = 0.5
"""Seconds between two looks for answers that do not come any more."""
JOIN_AT_ONCE = 100


class FatalError(Exception):
    """It makes no sense to go on; the text is a kind of error."""


class Crowd:
    """The clients of one process; an ``Observer`` to each.

    Args:
        plan: what is done.
        index: which of the processes this is; the first one publishes.
    """

    def __init__(self, plan: Plan, index: int) -> None:
        self.tally = Tally()
        self._plan = plan
        self._index = index
        self._connector = Connector(plan, self.tally, self)
        self._clients: dict[Client, None] = {}
        self._publisher: Client | None = None
        self._measuring = False
        self._fixed = bool(plan.rate)
        self._joining: dict[Client, asyncio.Future[str]] = {}
        self._rate = plan.rate if plan.mode is Mode.BROADCAST else plan.rate / plan.processes
        self._stopping = asyncio.Event()

    # What clients tell.

    def answered(self, client: Client, due: int, error: str) -> None:
        """Count an answer; without a rate, the client sends the next message."""
        joining = self._joining.pop(client, None)
        if joining is not None:
            joining.set_result(error)
            return
        if error:
            self.tally.unanswered += 1
            self.tally.fail(error)
        else:
            self.tally.answered += 1
            if self._plan.mode is Mode.ACK:
                self.tally.latency.record(monotonic_ns() - due)
        if self._measuring and not self._fixed:
            self._send(client, monotonic_ns())

    def delivered(self, due: int) -> None:
        """Count a broadcast that has come."""
        if self._plan.mode is Mode.BROADCAST:
            self.tally.delivered += 1
            self.tally.latency.record(monotonic_ns() - due)

    def ended(self, client: Client, reason: str) -> None:
        """Count a connection that is lost, and the messages that were on it."""
        if client is self._publisher:
            self._publisher = None
        elif client not in self._clients:
            return
        self._clients.pop(client, None)
        self.tally.open -= 1
        self.tally.lost += 1
        self.tally.fail(reason)
        self.tally.unanswered += len(client.pending)
        client.pending.clear()
        joining = self._joining.pop(client, None)
        if joining is not None:
            joining.set_result(reason)

    # What the process does, one after the other.

    async def connect(self) -> None:
        """Open all connections, and make members of them.

        Raises:
            FatalError: there is nobody, or the server does not answer what the mode needs.
        """
        try:
            await self._connector.resolve()
        except OSError as error:
            raise FatalError(f"no such host: {error.strerror}") from None
        first = self._plan.first(self._index)
        count = self._plan.share(self._index)
        clients = await self._connector.open_all(first, count)
        self._clients = dict.fromkeys(clients)
        if not clients and count:
            raise FatalError(max(self.tally.errors, key=self.tally.errors.__getitem__))
        if self._plan.mode is Mode.ACK and self._index == 0:
            await self._ask(clients[0], lambda client: client.call(text_of(0, self._plan.size), 0))
        if self._plan.mode is Mode.BROADCAST:
            await self._join_all(clients)
            if self._index == 0:
                await self._open_publisher()

    async def run(self) -> None:
        """Do what the mode is about."""
        self._measuring = True
        try:
            await _MODES[self._plan.mode](self)
        finally:
            self._measuring = False

    async def settle(self) -> None:
        """Wait for the answers that are still to come, for as long as they may take."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._plan.timeout
        while self._waiting() and loop.time() < end:  # noqa: ASYNC110  # an event would cost each answer
            await asyncio.sleep(0.01)
        self._give_up(monotonic_ns())

    def stop(self) -> None:
        """End ``run`` early."""
        self._stopping.set()

    def close(self) -> None:
        """End all connections."""
        for client in [*self._clients, *([self._publisher] if self._publisher else [])]:
            client.close()
        self._clients.clear()
        self.tally.open = 0

    # Parts.

    async def _ask(self, client: Client, send: Callable[[Client], None]) -> None:
        """Send what is to be answered before anything is measured.

        Raises:
            FatalError: it is not.
        """
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._joining[client] = answer
        send(client)
        try:
            async with asyncio.timeout(self._plan.timeout):
                error = await answer
        except TimeoutError:
            self._joining.pop(client, None)
            raise FatalError(NO_ANSWER) from None
        if error:
            raise FatalError(error)

    async def _join_all(self, clients: list[Client]) -> None:
        left = list(clients)

        async def some() -> None:
            while left:
                if self._connector.dialect.joins:
                    await self._ask(left.pop(), Client.join)
                else:
                    left.pop()
                self.tally.joined += 1

        outcomes = await asyncio.gather(*(some() for _ in range(JOIN_AT_ONCE)), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _open_publisher(self) -> None:
        """Open one more connection, that publishes; where members need not join, the first of them does."""
        if not self._connector.dialect.joins:
            self._publisher = next(iter(self._clients))
            return
        self._publisher = await self._connector.open(self._plan.connections)
        if self._publisher is None:
            raise FatalError(max(self.tally.errors, key=self.tally.errors.__getitem__))
        self.tally.opened -= 1  # it is no member
        self.tally.open -= 1

    def _send(self, client: Client, due: int) -> None:
        self.tally.sent += 1
        text = text_of(due, self._plan.size)
        if self._plan.mode is Mode.BROADCAST:
            client.publish(text, due)
        else:
            client.call(text, due)

    async def _paced(self, senders: Callable[[], Client | None]) -> None:
        """Send at the plan's rate until the time is over.

        What is late is sent at once, and its time counts from when it was due.
        """
        interval = 1e9 / self._rate
        began = monotonic_ns()
        end = began + round(self._plan.duration * 1e9)
        for number in itertools.count():
            due = began + round(number * interval)
            if due >= end or self._stopping.is_set():
                return
            if (wait := due - monotonic_ns()) > 0:
                await asyncio.sleep(wait / 1e9)
            elif number % 100 == 0:
                await asyncio.sleep(0)  # answers are taken, however late this is
            sender = senders()
            if sender is None:
                return
            self._send(sender, due)

    async def _pass(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._plan.duration):
                await self._stopping.wait()

    async def _sweep(self) -> None:
        """Count what has waited for too long as unanswered, again and again."""
        while True:
            await asyncio.sleep(SWEEP_EVERY)
            self._give_up(monotonic_ns() - round(self._plan.timeout * 1e9))

    def _give_up(self, before: int) -> None:
        for client in [*self._clients, *([self._publisher] if self._publisher else [])]:
            for number in [number for number, due in client.pending.items() if due < before]:
                client.answered(number, NO_ANSWER)

    def _waiting(self) -> bool:
        return any(client.pending for client in [*self._clients, *([self._publisher] if self._publisher else [])])

    # Modes.

    async def _ack(self) -> None:
        sweeping = asyncio.create_task(self._sweep())
        try:
            if self._fixed:
                turns = itertools.cycle(list(self._clients))
                await self._paced(
                    lambda: next(client for client in turns if client in self._clients) if self._clients else None
                )
            else:
                for client in list(self._clients):
                    self._send(client, monotonic_ns())
                await self._pass()
        finally:
            sweeping.cancel()

    async def _broadcast(self) -> None:
        if self._index:
            await self._pass()
        elif self._fixed:
            await self._paced(lambda: self._publisher)
        elif self._publisher is not None:
            self._send(self._publisher, monotonic_ns())
            await self._pass()

    async def _idle(self) -> None:
        await self._pass()

    async def _storm(self) -> None:
        """End all connections, and open as many at once."""
        first = self._plan.first(self._index)
        count = len(self._clients)
        self.close()
        self.tally.opened = 0
        began = monotonic_ns()
        deadline = asyncio.get_running_loop().time() + max(self._plan.duration, self._plan.timeout)
        await asyncio.gather(*(self._come_back(number, began, deadline) for number in range(first, first + count)))

    async def _come_back(self, number: int, began: int, deadline: float) -> None:
        pause = LONGEST_PAUSE / 10
        while not self._stopping.is_set():
            client = await self._connector.open(number)
            if client is not None:
                self._clients[client] = None
                self.tally.latency.record(monotonic_ns() - began)
                return
            if asyncio.get_running_loop().time() + pause > deadline:
                return
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311  # spreads them, hides nothing
            pause = min(2 * pause, LONGEST_PAUSE)


_MODES: dict[Mode, Callable[[Crowd], Awaitable[None]]] = {
    Mode.ACK: Crowd._ack,
    Mode.BROADCAST: Crowd._broadcast,
    Mode.IDLE: Crowd._idle,
    Mode.STORM: Crowd._storm,
}
