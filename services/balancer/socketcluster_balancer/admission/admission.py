"""Shows clients to the controller's middleware before they are placed; whatever happens there, each gets an answer."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

from socketcluster_balancer.admission.controller import Controller
from socketcluster_balancer.api import Middleware, Request, stages_of
from socketcluster_balancer.counters import BalancerCounters
from socketcluster_balancer.entrance import responses
from socketcluster_balancer.entrance.client import Client
from socketcluster_balancer.entrance.deadlines import DeadlineQueue
from socketcluster_balancer.entrance.reception import Reception
from socketcluster_balancer.errors import RefusedError
from socketcluster_balancer.settings import BalancerSettings
from socketcluster_runtime import controllers
from socketcluster_runtime.logs.logging import get_logger
from socketcluster_runtime.logs.throttle import Throttle
from socketcluster_runtime.session_cookies import SessionCookies
from socketcluster_runtime.time_limit import TimeLimit, TookTooLong

log = get_logger(__name__)


MAX_RUNNING = 1024
"""Clients that async middleware may work for at a time; more are answered 503."""


class Admission:
    """Lets clients in, or refuses them, as the controller's middleware says.

    Args:
        settings: the balancer's.
        controller: whose middleware is asked.
        counters: the balancer's.
        reception: answers the clients that are not let in.
        place: is given each client that is let in.
    """

    def __init__(
        self,
        settings: BalancerSettings,
        controller: Controller,
        counters: BalancerCounters,
        reception: Reception[Any],
        place: Callable[[Client], object],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._path = controller.path
        self._counters = counters
        self._by_stage = controller.balancer.by_stage
        self._cookies = SessionCookies(settings.app_name, settings.shared_secret())
        self._reception = reception
        self._place = place
        self._limit = TimeLimit(settings.controller_timeout)
        self._deadlines: DeadlineQueue[Client] = DeadlineQueue(settings.controller_timeout, self._too_slow)
        self._running: dict[asyncio.Task[None], Client] = {}
        """The async middleware under way, also that which goes on after its client was answered."""
        self._failed = Throttle(
            lambda count: log.error("the controller failed", error=self._failed.last, clients=count)
        )
        self._late = Throttle(
            lambda count: log.error("the controller took too long", path=str(self._path), clients=count)
        )
        self._full = Throttle(lambda count: log.error("the controller is busy with others", clients=count))

    @property
    def running(self) -> int:
        """How many clients the controller's async middleware works for."""
        return len(self._running)

    def examine(self, client: Client) -> None:
        """Let a client in, or refuse it, now or when async middleware has ended."""
        head = client.head
        if head is None:
            raise AssertionError("a client without a head is not examined")
        functions = [function for stage in stages_of(head) for function in self._by_stage[stage]]
        if not functions:
            self._place(client)
            return
        if len(self._running) >= MAX_RUNNING:
            self._full.add()
            self._counters.refused["controller"] += 1
            self._reception.respond(client, responses.answer(503, head))
            return
        try:
            address, secure = client.identity()
        except OSError:
            self._reception.release(client)
            return
        host = None if client.told is None else client.told.host
        request = Request(head, address, self._cookies, secure=secure, host=host)
        try:
            waiting = self._ask(request, functions)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # of whatever kind: the client is not to be forgotten
            self._refuse(client, error)
            return
        if waiting is None:
            self._admit(client, request)
        else:
            task = self._loop.create_task(waiting)
            self._running[task] = client
            self._deadlines.add(client)
            task.add_done_callback(partial(self._answered, request))

    def close(self) -> None:
        """Stop; clients whose middleware is under way are left to whoever closes them."""
        self._deadlines.close()
        for task in tuple(self._running):
            task.cancel()
        for throttle in (self._failed, self._late, self._full):
            throttle.close()

    def _ask(self, request: Request, functions: list[Middleware]) -> Any:
        """Call plain functions; return a coroutine that goes on from the first async one, ``None`` if there is none."""
        for position, function in enumerate(functions):
            with self._limit.running():
                result = function(request)
            if inspect.isawaitable(result):
                return self._go_on(request, function, result, functions[position + 1 :])
            _check(function, result)
        return None

    async def _go_on(
        self, request: Request, function: Middleware, result: Awaitable[object], functions: list[Middleware]
    ) -> None:
        _check(function, await result)
        rest = self._ask(request, functions)
        if rest is not None:
            await rest

    def _answered(self, request: Request, task: asyncio.Task[None]) -> None:
        client = self._running.pop(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if not self._deadlines.discard(client):  # it was answered, or the balancer stops
            return
        if error is None:
            self._admit(client, request)
        else:
            self._refuse(client, error)

    def _too_slow(self, client: Client) -> None:
        self._refuse(client, TookTooLong())
        for task, its_client in self._running.items():
            if its_client is client:
                task.cancel()

    def _admit(self, client: Client, request: Request) -> None:
        try:
            client.wanted = _names(request.worker)
        except Exception as error:  # it may be the controller's own iterable
            self._refuse(client, error)
            return
        self._place(client)

    def _refuse(self, client: Client, error: BaseException) -> None:
        if isinstance(error, RefusedError):
            response = responses.refusal(error, client.head)
        elif isinstance(error, TookTooLong):
            self._late.add()
            response = responses.answer(503, client.head)
        else:
            self._failed.add(controllers.where(self._path, error))
            response = responses.answer(500, client.head)
        self._counters.refused["controller"] += 1
        self._reception.respond(client, response)


def _check(function: Middleware, result: object) -> None:
    """Make sure that nobody is let in by middleware that meant to refuse.

    Raises:
        TypeError: it returned something.
    """
    if result is not None:
        name = getattr(function, "__qualname__", repr(function))
        raise TypeError(f"middleware {name} returned {result!r}: it returns nothing, and refuses by RefusedError")


def _names(worker: str | Iterable[str] | None) -> frozenset[str] | None:
    if worker is None:
        return None
    names = (worker,) if isinstance(worker, str) else tuple(worker) if isinstance(worker, Iterable) else (worker,)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"request.worker is the name, id or tag of a worker, or several, not {worker!r}")
    return frozenset(names)
