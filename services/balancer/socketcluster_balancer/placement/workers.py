"""The workers that there are, and how each one is: one Watch stream an address."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from secrets import token_bytes
from typing import Protocol

import grpc
from grpc import aio

from socketcluster_balancer.placement.handoff import HandoffLink
from socketcluster_balancer.placement.others import Others
from socketcluster_balancer.placement.signs_of_life import OwnTime, pause
from socketcluster_balancer.placement.watched_worker import WatchedWorker
from socketcluster_balancer.settings import BalancerSettings
from socketcluster_proto.v1.worker_pb2 import WatchRequest, WorkerStatus
from socketcluster_proto.v1.worker_pb2_grpc import WorkerStub
from socketcluster_runtime import rpc
from socketcluster_runtime.addresses import follow, is_name, split_host_port
from socketcluster_runtime.logs.conditions import Condition
from socketcluster_runtime.logs.logging import get_logger

log = get_logger(__name__)

MIN_BACKOFF = 0.05
MAX_BACKOFF = 1.0
"""Seconds between two attempts to reach a worker; a random part of up to a half is taken off."""

REFUSED_WITHIN = 0.5
"""Seconds within which a host says that nobody listens there; one whose process hangs accepts, and says nothing."""


class Observer(Protocol):
    """Who is told of workers, and gives them clients."""

    def make_link(self, worker: WatchedWorker, path: str) -> HandoffLink | None:
        """Make the link to a worker's handoff path, if there can be one."""

    def workers_changed(self) -> None:
        """Learn that a worker's status has arrived, or a worker has gone."""


class Workers:
    """Watches the workers of all addresses.

    Args:
        settings: name the addresses.
    """

    def __init__(self, settings: BalancerSettings) -> None:
        self.available: tuple[WatchedWorker, ...] = ()
        """The workers that may be given clients."""
        self.any_ready = asyncio.Event()
        """Set once a worker has been ready."""
        self._settings = settings
        self.metadata = rpc.credentials(settings.shared_secret())
        """Shows workers that the balancer belongs to the cluster."""
        self.tls = settings.rpc_tls()
        """What connections to workers are secured with; ``None`` if they are not."""
        self._observer: Observer | None = None
        self.hangs = 0
        """How often a worker was found to hang."""
        self._own_time = OwnTime()
        self._pause = 0.0
        self._look_now = asyncio.Event()
        self._full = Condition(
            log, "worker is out of descriptors: it is given no clients", over="no worker is out of descriptors any more"
        )
        self._others = Others(self.metadata)
        self._workers: dict[str, WatchedWorker] = {}
        self._wanted: dict[str, set[str]] = {}
        """By name: the addresses that it had at the last look-up; a fixed address is its own name."""

    def attach(self, observer: Observer) -> None:
        """Tell ``observer`` from now on."""
        self._observer = observer

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._look())
                for address in self._settings.workers:
                    if is_name(address):
                        tasks.create_task(follow(address, partial(self._want, address, tasks)))
                    else:
                        self._want(address, tasks, [address])
        finally:
            for worker in self._workers.values():
                if worker.link is not None:
                    worker.link.close("the balancer stops")
                worker.hanging.close()
            self._full.close()

    @property
    def may_come(self) -> bool:
        """May one that is not available be there in a moment? Not if all hang or are full: those take their time."""
        return not self._workers or any(not (worker.silent or worker.full) for worker in self._workers.values())

    @property
    def known(self) -> tuple[WatchedWorker, ...]:
        """All workers that are watched, there or not."""
        return tuple(self._workers.values())

    def _want(self, name: str, tasks: asyncio.TaskGroup, addresses: Iterable[str]) -> None:
        wanted = self._wanted[name] = set(addresses)
        for address in wanted - self._workers.keys():
            worker = self._workers[address] = WatchedWorker(address, own_time=self._own_time)
            tasks.create_task(self._watch(worker))

    def _is_wanted(self, address: str) -> bool:
        return any(address in addresses for addresses in self._wanted.values())

    async def _watch(self, worker: WatchedWorker) -> None:
        """Follow one address until it is wanted no more."""
        loop = asyncio.get_running_loop()
        backoff = MIN_BACKOFF
        reported: object = None
        while True:
            heard, began = False, loop.time()
            telling: asyncio.Task[None] | None = None
            problem: tuple[grpc.StatusCode | None, str | None] = (None, "the stream ended")
            try:
                async with rpc.connect(worker.address, self.tls) as channel:
                    stub = WorkerStub(channel)
                    name = token_bytes(8)
                    request = WatchRequest(balancer_id=self._settings.name, stream=name)
                    async for status in stub.Watch(request, metadata=self.metadata):
                        self._learn(worker, status)
                        if not heard:
                            worker.open_beats(status.beats_path, name)
                            heard, worker.stub = True, stub
                            telling = asyncio.create_task(self._others.tell(worker, stub))
            except aio.AioRpcError as error:
                problem = error.code(), error.details()
            finally:
                worker.stub = None
                worker.close_beats()
                if telling is not None:
                    telling.cancel()
            if heard:
                self._lose(worker)
                backoff, reported = MIN_BACKOFF, (problem[0], False)
            elif worker.hung and loop.time() - began < REFUSED_WITHIN:
                worker.sign_of_life.forget()  # it has gone: a new one may come
                worker.hanging.close()
                self._refresh()
            if not self._is_wanted(worker.address):
                self._drop(worker)
                return
            kind = problem[0], rpc.is_about_tls(problem[1])
            if reported != kind:
                reported = kind
                _report(worker, *problem)
            await asyncio.sleep(backoff * random.uniform(0.5, 1))  # noqa: S311  # spreads the load, hides nothing
            backoff = min(2 * backoff, MAX_BACKOFF)

    def _learn(self, worker: WatchedWorker, status: WorkerStatus) -> None:
        was = (worker.ready, worker.draining)
        if status.full:
            if not worker.full:
                self._full.add(worker=status.name, worker_id=status.worker_id, connections=status.connections)
            was = (False, worker.draining)  # that it is not ready is said; and it comes and goes with its clients
        elif worker.full:
            was = (True, worker.draining)
        if worker.worker_id != status.worker_id:
            worker.worker_id, worker.name = status.worker_id, status.name
            log.info("worker joined", worker=worker.name, worker_id=worker.worker_id, address=worker.address)
            was = (False, False)
            worker.suspect_until = 0.0
            worker.http_path = status.http_path if Path(status.http_path).is_socket() else ""
            worker.forget_clients()
        worker.tags = tuple(status.tags)
        worker.called = frozenset((worker.worker_id, worker.name, *worker.tags))
        worker.ready, worker.draining, worker.full = status.ready, status.draining, status.full
        self._own_time.go_on(asyncio.get_running_loop().time())
        worker.sign_of_life.heard(status.worker_id, status.alive_every_ms)
        if worker.sign_of_life.left < self._pause:
            self._look_now.set()
        worker.reaches_stores = status.reaches_stores
        worker.connections = status.connections
        worker.http = (status.http_host or host_of(worker.address), status.http_port) if status.http_port else None
        path = status.handoff_path if self._settings.handoff else ""
        if worker.link is not None and worker.link.path != path:
            worker.link.close("the worker listens elsewhere now")
            worker.link = None
        if worker.link is None and path and self._observer is not None:
            worker.link = self._observer.make_link(worker, path)
        if (worker.ready, worker.draining) != was:
            event = "worker draining" if worker.draining else "worker ready" if worker.ready else "worker not ready"
            log.info(event, worker=worker.name, worker_id=worker.worker_id, connections=worker.connections)
        self._lives(worker)

    def _lives(self, worker: WatchedWorker) -> None:
        """Put to use what was heard of a worker."""
        if not worker.hung:
            worker.hanging.end(worker=worker.name, worker_id=worker.worker_id)
        self._refresh()

    def _lose(self, worker: WatchedWorker) -> None:
        """The stream broke: the worker is gone until it says otherwise."""
        log.info("worker left", worker=worker.name, worker_id=worker.worker_id, address=worker.address)
        worker.worker_id = ""
        worker.ready = worker.draining = worker.full = False
        worker.sign_of_life.lost()
        worker.forget_clients()
        self._refresh()

    async def _look(self) -> None:
        """Find the workers that hang."""
        loop = asyncio.get_running_loop()
        while True:
            self._look_now.clear()
            looked_at = self._own_time.seconds_at_look
            self._own_time.go_on(loop.time())
            for worker in self.known:
                before = worker.hung, worker.silent, worker.seen_for
                worker.look_at_beats(looked_at)
                if worker.sign_of_life.missing and not worker.silent:
                    self._hangs(worker)
                elif before != (worker.hung, worker.silent, worker.seen_for):
                    self._lives(worker)
            self._pause = pause(worker.sign_of_life for worker in self.known)
            self._own_time.look(loop.time(), self._pause)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause):
                    await self._look_now.wait()

    def _hangs(self, worker: WatchedWorker) -> None:
        self.hangs += 1
        worker.sign_of_life.hangs()
        worker.hanging.add(
            worker=worker.name, worker_id=worker.worker_id, silent_for=round(worker.sign_of_life.silent_for, 1)
        )
        self._refresh()
        if worker.link is not None and worker.link.pending:
            worker.link.close("it hangs")  # what it has not acknowledged is for others; what it has taken lives on

    def _drop(self, worker: WatchedWorker) -> None:
        worker.hanging.close()
        del self._workers[worker.address]
        if worker.link is not None:
            worker.link.close("the worker is gone")
            worker.link = None

    def _refresh(self) -> None:
        self.available = tuple(worker for worker in self._workers.values() if worker.available)
        if self.available:
            self.any_ready.set()
        self._others.refresh(self.available)
        if self._observer is not None:
            self._observer.workers_changed()


def host_of(address: str) -> str:
    """Return the host that a gRPC address names; a Unix socket's is this one."""
    return "127.0.0.1" if address.startswith("unix:") else split_host_port(address, any_port=True)[0]


def _report(worker: WatchedWorker, code: grpc.StatusCode | None, details: str | None) -> None:
    if code is grpc.StatusCode.UNAUTHENTICATED:
        log.error("a worker refuses this balancer: their SOCKETCLUSTER_SECRET differs", address=worker.address)
    elif rpc.is_about_tls(details):
        log.error(
            "a worker and this balancer do not accept each other's TLS",
            address=worker.address,
            error=details,
            what_to_do=rpc.TLS_ADVICE,
        )
    else:
        log.debug("no worker there yet", address=worker.address, code=code and code.name, details=details)
