"""``worker``: what ``run(worker)`` of a controller is given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from socketcluster_worker.api.data.tree import AppTree
from socketcluster_worker.api.http_server import HTTPServer
from socketcluster_worker.api.sockets.events import make_handler
from socketcluster_worker.api.sockets.ws_server import WSServer
from socketcluster_worker.tasks import Tasks

F = TypeVar("F", bound=Callable[[], Any])


class Worker:
    """One process of the cluster; each runs the controller once.

    Attributes:
        id: eight characters, the same after a restart.
        name: for people.
        app_name: the option of that name.
        http_server: the user's own pages and endpoints.
        ws_server: the connected clients.
        store: data that the whole application shares.
    """

    def __init__(
        self,
        worker_id: str,
        name: str,
        app_name: str,
        *,
        http_server: HTTPServer,
        ws_server: WSServer,
        store: AppTree,
        tasks: Tasks,
    ) -> None:
        self.id = worker_id
        self.name = name
        self.app_name = app_name
        self.http_server = http_server
        self.ws_server = ws_server
        self.store = store
        self._tasks = tasks

    def every(self, seconds: float) -> Callable[[F], F]:
        """Decorate a function, plain or async, that is to be called every so many seconds on this worker.

        A call that takes longer than that delays the next; what it raises is logged, and the calls go on.

        Raises:
            ValueError: the time is not positive.
            TypeError: it is no number, or what is decorated is no function, or wants an argument.
        """
        if not isinstance(seconds, int | float):
            raise TypeError(f"every() wants a number of seconds, not {seconds!r}: @worker.every(1.0)")
        if not seconds > 0:
            raise ValueError(f"every() wants a positive time, not {seconds!r}")

        def decorate(function: F) -> F:
            if make_handler(function).least:
                raise TypeError(f"{_name(function)} is called without arguments")
            self._tasks.spawn(self._repeat(function, seconds), f"every({seconds}) {_name(function)}")
            return function

        return decorate

    async def _repeat(self, function: Callable[[], Any], seconds: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        while True:
            await asyncio.sleep(due - loop.time())
            await self._tasks.run_and_wait(function, (), f"every({seconds}) {_name(function)}")
            due = max(due + seconds, loop.time())


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))
