"""Clients whose head has arrived: a worker is chosen for each, and another one if that fails."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from socketcluster_balancer.counters import BalancerCounters
from socketcluster_balancer.entrance.client import Client
from socketcluster_balancer.entrance.limits import Limits
from socketcluster_balancer.entrance.plain import PlainClient, PlainReception
from socketcluster_balancer.entrance.reception import Reception
from socketcluster_balancer.errors import NoDescriptorError, NoHandoffError, WorkerUnreachableError
from socketcluster_balancer.placement.choice import choose
from socketcluster_balancer.placement.handoff import HandoffLink
from socketcluster_balancer.placement.watched_worker import SUSPICION, WatchedWorker
from socketcluster_balancer.placement.workers import Workers
from socketcluster_balancer.settings import BalancerSettings
from socketcluster_runtime.logs.conditions import Condition
from socketcluster_runtime.logs.logging import get_logger
from socketcluster_runtime.secrets.keys import Purpose, derive_key
from socketcluster_runtime.session_cookies import session_cookie_name
from socketcluster_runtime.sockets.accepting import NO_DESCRIPTOR
from socketcluster_runtime.sockets.capacity import Room
from socketcluster_runtime.sockets.relay import Relay
from socketcluster_wire import proxy_protocol

log = get_logger(__name__)

RETRY_INTERVAL = 0.05
"""Seconds after which a worker is looked for again for clients that wait."""


class Dispatcher:
    """Gives each client to a worker.

    Args:
        settings: the balancer's.
        limits: on connections.
        counters: the balancer's.
        reception: answers the clients that no worker takes.
        workers: those that there are, who tell it what becomes of them.
        room: for clients, in this process.
    """

    def __init__(
        self,
        settings: BalancerSettings,
        limits: Limits,
        counters: BalancerCounters,
        reception: Reception[Any],
        workers: Workers,
        room: Room,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._settings = settings
        self._limits = limits
        self._counters = counters
        self._reception = reception
        self._workers = workers
        self._room = room
        self._key = derive_key(settings.shared_secret(), Purpose.PROXY_HEADERS)
        # which one a worker believes, a proxy with TLS in front may tell it; for the choice of a worker either will do
        self._cookies = [session_cookie_name(settings.app_name, secure=secure) for secure in (True, False)]
        self._draw: Callable[[int], int] = random.randrange
        self._suspicion_ends = 0.0
        self._closed = False
        self._waiting: list[Client] = []
        self._retry: asyncio.TimerHandle | None = None
        self._connecting: set[asyncio.Task[None]] = set()
        self.id = secrets.token_bytes(8)
        """What the balancer calls itself in front of what it copies."""
        self._relays: dict[Relay, bytes | None] = {}  # the keys of those that are counted
        self._no_relays = asyncio.Event()
        self._no_relays.set()
        self._refused = Condition(
            log, "no worker for clients: answered 503", over="clients find a worker again: none was answered 503"
        )
        workers.attach(self)

    @property
    def waiting(self) -> int:
        """How many clients wait for a worker."""
        return len(self._waiting)

    @property
    def relays(self) -> int:
        """How many clients' bytes are copied."""
        return len(self._relays)

    def make_link(self, worker: WatchedWorker, path: str) -> HandoffLink | None:
        """Make the link by which sockets go to ``worker``; there is none where clients come by TLS."""
        if not isinstance(self._reception, PlainReception):
            return None
        failed, declined = partial(self._failed, worker), partial(self._declined, worker)
        return HandoffLink(path, self._settings, self._reception.taken, failed, declined, self._limits.leave)

    def place(self, client: Client) -> None:
        """Give a client to a worker, let it wait for one, or answer it 503."""
        while (worker := self._choose(client)) is not None:
            try:
                self._give(client, worker)
            except WorkerUnreachableError as error:
                self._counters.handovers_failed += 1
                self._suspect(worker, str(error), 1)
                client.tried += (worker.address,)
                continue
            except NoDescriptorError:
                self._no_descriptor(client)
                return
            worker.give()
            return
        self._wait(client)

    def workers_changed(self) -> None:
        """Place the clients that wait, if there is a worker now, or it is clear that there will be none."""
        if self._waiting and not self._workers.available and not self._workers.may_come:
            waiting, self._waiting = self._waiting, []
            for client in waiting:
                self._refuse(client)
        if self._waiting and self._workers.available:
            waiting, self._waiting = self._waiting, []
            for position, client in enumerate(waiting, 1):
                client.tried = ()
                self.place(client)
                if client.wanted is None and self._waiting and self._waiting[-1] is client:
                    # No worker took it: the others would fare no better.
                    self._waiting += waiting[position:]
                    return

    async def idle(self) -> None:
        """Return when no bytes are copied."""
        await self._no_relays.wait()

    async def close(self) -> None:
        """Cut off the clients whose bytes are copied, and forget those that wait."""
        self._closed = True
        for task in self._connecting:
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        for relay in tuple(self._relays):
            relay.abort()
        self._waiting.clear()
        if self._retry is not None:
            self._retry.cancel()
        self._refused.close()

    def _wait(self, client: Client) -> None:
        """Keep a client until there is a worker for it, or its time is up."""
        now = self._loop.time()
        if not client.wait_until:
            client.wait_until = now + self._settings.worker_wait
        in_vain = client.wait_until <= now or not (self._workers.available or self._workers.may_come)
        if in_vain or len(self._waiting) >= self._settings.max_waiting:
            self._refuse(client)
            return
        self._waiting.append(client)
        if self._retry is None:
            self._retry = self._loop.call_later(RETRY_INTERVAL, self._retry_waiting)

    def _retry_waiting(self) -> None:
        """Refuse the clients whose time is up; a worker that failed to take the others may have recovered."""
        self._retry = None
        now = self._loop.time()
        late = [client for client in self._waiting if client.wait_until <= now]
        self._waiting = [client for client in self._waiting if client.wait_until > now]
        for client in late:
            self._refuse(client)
        self.workers_changed()
        if self._waiting and self._retry is None:
            self._retry = self._loop.call_later(RETRY_INTERVAL, self._retry_waiting)

    def _choose(self, client: Client) -> WatchedWorker | None:
        workers = self._workers.available
        if client.wanted is not None:
            wanted = client.wanted
            workers = tuple(worker for worker in workers if not wanted.isdisjoint(worker.called))
        if client.tried:
            workers = tuple(worker for worker in workers if worker.address not in client.tried)
        if len(workers) > 1:
            workers = tuple(worker for worker in workers if not worker.hung) or workers
        if self._suspicion_ends and workers:
            now = self._loop.time()
            if now < self._suspicion_ends:
                workers = tuple(worker for worker in workers if worker.suspect_until <= now) or workers
            else:
                self._suspicion_ends = 0.0
        if not workers:
            return None
        head = client.head
        if head is None:
            return choose(workers, None, None, self._draw)
        cookie = None
        if head.header("cookie") is not None:
            cookie = head.cookie(self._cookies[0]) or head.cookie(self._cookies[1])
        return choose(workers, head.sid, cookie, self._draw)

    def _suspect(self, worker: WatchedWorker, reason: str, clients: int) -> None:
        """Choose a worker for a while only if there is no other; ``reason`` is told unless that has been said."""
        now = self._loop.time()
        if clients and worker.suspect_until <= now and not worker.hung and reason:
            log.warning("worker takes no clients", worker=worker.name, reason=reason, clients=clients)
        worker.suspect_until = self._suspicion_ends = now + SUSPICION

    def _failed(self, worker: WatchedWorker, clients: Sequence[Client], reason: str) -> None:
        """A worker did not take clients that it was given."""
        if self._closed:
            return
        self._counters.handovers_failed += len(clients)
        self._suspect(worker, reason, len(clients))
        for client in clients:
            client.tried += (worker.address,)
            self.place(client)

    def _declined(self, worker: WatchedWorker, client: Client) -> None:
        """A worker has no descriptor for a client; its status says so, too."""
        self._failed(worker, [client], "")

    def _no_descriptor(self, client: Client) -> None:
        """Answer a client that cannot be given to a worker because this process has no descriptor for that."""
        self._room.refuse()
        self._counters.refused["no_descriptor"] += 1
        self._reception.answer(client, 503)

    def _refuse(self, client: Client) -> None:
        self._refused.add()
        self._counters.refused["no_worker"] += 1
        self._reception.answer(client, 503)

    def _give(self, client: Client, worker: WatchedWorker) -> None:
        if worker.link is not None and isinstance(client, PlainClient):
            try:
                worker.link.submit(client)
            except NoHandoffError as error:
                log.debug("no handover to this worker", worker=worker.name, reason=str(error))
            else:
                return
        if worker.http is None:
            raise WorkerUnreachableError("it neither takes sockets over on this host nor serves HTTP")
        task = self._loop.create_task(self._connect(client, worker, worker.http))
        self._connecting.add(task)
        task.add_done_callback(self._connected)

    async def _connect(self, client: Client, worker: WatchedWorker, http: tuple[str, int]) -> None:
        relay = Relay(self._relay_ended)
        try:
            async with asyncio.timeout(self._settings.handoff_timeout):
                await _reach(relay, worker, http)
        except OSError as error:  # TimeoutError is one
            relay.abort()
            if error.errno in NO_DESCRIPTOR:
                self._no_descriptor(client)
            else:
                self._failed(worker, [client], error.strerror or "no connection in time")
            return
        try:
            header = proxy_protocol.encode(*client.addresses(), tls=client.secure, key=self._key, balancer=self.id)
            self._relays[relay] = None
            self._no_relays.clear()
            await client.go_on_in(relay, header + client.data)
        except OSError:  # the client has gone
            relay.abort()
            self._relay_ended(relay)
            self._reception.release(client)
            return
        if relay in self._relays:
            self._relays[relay] = client.key
            self._counters.relays += 1
            self._reception.forget(client)
        else:  # it ended meanwhile
            self._reception.release(client)

    def _connected(self, task: asyncio.Task[None]) -> None:
        self._connecting.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a client could not be spliced", exc_info=task.exception())

    def _relay_ended(self, relay: Relay) -> None:
        key = self._relays.pop(relay, None)
        if key is not None:
            self._limits.leave(key)
        if not self._relays:
            self._no_relays.set()


async def _reach(relay: Relay, worker: WatchedWorker, http: tuple[str, int]) -> None:
    """Connect to a worker; on this host a Unix socket costs half of what TCP does.

    Raises:
        OSError: it cannot be reached.
    """
    if worker.http_path:
        try:
            await relay.connect_unix(worker.http_path)
        except OSError:  # its queue is full, or it listens there no more
            pass
        else:
            return
    await relay.connect(*http)
