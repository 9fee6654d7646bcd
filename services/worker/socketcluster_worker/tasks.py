"""Runs handlers in the background: nothing they raise is lost, and a stopping worker can wait for them."""

from __future__ import annotations

import asyncio
import inspect
import sys
from asyncio import Task, get_running_loop
from collections.abc import Callable, Coroutine
from functools import partial
from types import CoroutineType
from typing import Any

from socketcluster_runtime.logs import logging
from socketcluster_runtime.logs.throttle import Throttle
from socketcluster_store_client.errors import StoreUnavailableError
from socketcluster_worker.errors import MissingArgumentError

log = logging.get_logger(__name__)

NEVER_AWAITED = frozenset({type(None), dict, str, list, int, bool, float, tuple})
"""Types of what most plain handlers return: none of these is a coroutine, and to ask costs more than to look here."""
BEGIN_AT_ONCE = sys.version_info >= (3, 12)
"""Does a coroutine run up to where it first waits when it is started? If not, it begins in the loop's next turn."""


class Tasks:
    """The tasks of one worker.

    Args:
        on_error: is told what a task raised, and what the task was for.
        on_unavailable: is told what failed as no store answered, where the client is answered otherwise.
    """

    def __init__(
        self,
        on_error: Callable[[BaseException, str], None],
        on_unavailable: Callable[[StoreUnavailableError, str], None] = lambda _error, _what: None,
    ) -> None:
        self._on_error = on_error
        self.unavailable = on_unavailable
        self._running: set[asyncio.Task[Any]] = set()
        self._unreachable = Throttle(self._log_unreachable)
        self._misfits = Throttle(self._log_misfits)
        self._kept_back: dict[str, Throttle] = {}

    def __len__(self) -> int:
        return len(self._running)

    def start(self, coroutine: Coroutine[Any, Any, Any], what: str) -> asyncio.Task[Any]:
        """Start a coroutine, at once where Python can; whoever calls this looks at how it ends.

        ``what`` says in a few words what it is for.
        """
        loop = get_running_loop()
        if BEGIN_AT_ONCE:  # most handlers never wait, and cost no turn of the loop then
            task = Task(coroutine, loop=loop, name=what, eager_start=True)  # type: ignore[call-arg]
        else:
            task = Task(coroutine, loop=loop, name=what)
        if not task.done():
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return task

    def spawn(self, coroutine: Coroutine[Any, Any, Any], what: str) -> asyncio.Task[Any] | None:
        """Start a coroutine; what it raises goes to ``on_error``. Return its task unless it has ended."""
        task = self.start(coroutine, what)
        if task.done():
            self._ended(task)
            return None
        task.add_done_callback(self._ended)
        return task

    def run(self, function: Callable[..., Any], args: tuple[Any, ...], what: str) -> asyncio.Task[Any] | None:
        """Call a plain or async function; what it raises goes to ``on_error``. Return its task unless it has ended."""
        try:
            result = function(*args)
        except MissingArgumentError as error:  # by the fault of a client that wants no answer
            self.misfit(what, error)
            return None
        except Exception as error:
            self._on_error(error, what)
            return None
        kind = type(result)
        if kind not in NEVER_AWAITED and (kind is CoroutineType or asyncio.iscoroutine(result)):
            return self.spawn(result, what)
        return None

    async def run_and_wait(self, function: Callable[..., Any], args: tuple[Any, ...], what: str) -> None:
        """Call a plain or async function and wait for its end; what it raises goes to ``on_error``."""
        try:
            result = function(*args)
            if inspect.isawaitable(result):
                await result
        except MissingArgumentError as error:
            self.misfit(what, error)
        except Exception as error:
            self._on_error(error, what)

    def watch(self, future: asyncio.Future[Any], what: str, *, is_told_again: bool = False) -> None:
        """Report what ``future`` fails with; for operations whose result nobody waits for.

        Args:
            future: the operation's.
            what: what it is for, in a few words.
            is_told_again: does the store client tell the stores again if none answers? It has logged that then.
        """

        def done(finished: asyncio.Future[Any]) -> None:
            error = None if finished.cancelled() else finished.exception()
            if error is not None and not (is_told_again and isinstance(error, StoreUnavailableError)):
                self._on_error(error, what)

        future.add_done_callback(done)

    async def drain(self, timeout: float) -> int:
        """Wait until the tasks have ended, at most ``timeout`` seconds, then cancel; return how many were cancelled."""
        if not self._running:
            return 0
        _, late = await asyncio.wait(set(self._running), timeout=timeout)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=1.0)
        return len(late)

    def report(self, error: BaseException, what: str) -> None:
        """Pass an error on that was caught elsewhere."""
        self._on_error(error, what)

    def unreachable(self, protocol: str, event: str, error: BaseException) -> None:
        """Log that one of several clients cannot be sent an event; whoever sends it to all of them is told nothing."""
        self._unreachable.add(f"{protocol}, {event!r:.100}: {error!r:.200}")

    def _log_unreachable(self, count: int) -> None:
        log.warning("clients could not be sent an event", count=count, last=self._unreachable.last)

    def misfit(self, what: str, error: BaseException) -> None:
        """Log that a client sent what no handler takes, and wants no answer; ``what`` says for what it is."""
        self._misfits.add(f"{what:.100}: {error!s:.200}")

    def _log_misfits(self, count: int) -> None:
        log.warning("events did not have what their handlers want", count=count, last=self._misfits.last)

    def kept_back(self, event: str) -> None:
        """Log that an event was not sent to a browser client, which has one of its own by that name."""
        throttle = self._kept_back.get(event)
        if throttle is None:
            throttle = self._kept_back[event] = Throttle(partial(_log_kept_back, event))
        throttle.add()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_error(error, task.get_name())


def _log_kept_back(event: str, count: int) -> None:
    log.error(
        "an event was not sent to browser clients, which have one of their own by that name: choose another name",
        name=event,
        count=count,
    )
