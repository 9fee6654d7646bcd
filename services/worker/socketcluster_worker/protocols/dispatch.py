"""From an event that a client sent to the handlers that it is for, and back with their answer."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from types import CoroutineType
from typing import Any, Protocol

from socketcluster_runtime.logs import logging
from socketcluster_store_client.errors import LinkError, OperationError, StoreUnavailableError
from socketcluster_wire.socketcluster import CallId
from socketcluster_worker.api.handlers.client_handlers import ClientHandler
from socketcluster_worker.api.sockets.action import Action
from socketcluster_worker.api.sockets.events import CATCH_ALL, Handler, Serial
from socketcluster_worker.api.sockets.namespace import Namespace
from socketcluster_worker.api.sockets.socket import Socket
from socketcluster_worker.errors import EventError, NotSerializableError
from socketcluster_worker.protocols.backpressure import Backpressure
from socketcluster_worker.protocols.event_queue import ROOM, ClientEnd, EventQueue
from socketcluster_worker.tasks import BEGIN_AT_ONCE, NEVER_AWAITED

log = logging.get_logger(__name__)

MAX_RUNNING = 1000
"""Async handlers of one socket that may be under way; its events wait until one of them has ended."""
OWN_EVENTS = frozenset({"disconnect", CATCH_ALL})
"""What a socket's handlers hear from the server itself; a client that sends it has nobody to hear it."""
ALL_OWN_EVENTS = OWN_EVENTS | {"authenticate", "deauthenticate"}
"""The same of sockets whose protocol has auth tokens; what other clients send by these names are events like any."""


class Answerer(Protocol):
    """Carries answers back to the client."""

    def respond(self, call_id: CallId, result: Any) -> None:
        """Send what a handler returned.

        Raises:
            NotSerializableError: it has no JSON form.
        """

    def fail(self, call_id: CallId, name: str, message: str, data: object = None) -> None:
        """Send that a call failed.

        Raises:
            TypeError, ValueError: one of these has no JSON form.
        """

    def unhandled(self, call_id: CallId, name: str) -> None:
        """Note that nobody handles the event of a call."""


class _Gone:
    """Carries no answers."""

    def respond(self, call_id: CallId, result: Any) -> None:
        """Do nothing."""

    def fail(self, call_id: CallId, name: str, message: str, data: object = None) -> None:
        """Do nothing."""

    def unhandled(self, call_id: CallId, name: str) -> None:
        """Do nothing."""


GONE: Answerer = _Gone()


class Dispatch:
    """Starts the handlers of one socket's events, in the order in which they arrived.

    While a middleware is asked about an event, in serial mode its handlers run, or ``MAX_RUNNING`` async handlers are
    under way, what comes after it waits.

    Args:
        namespace: whose middleware is asked.
        socket: whose handlers are called.
        answerer: carries answers back.
        backpressure: is told what is under way.
        queue: where what the client sends waits for its turn.
    """

    __slots__ = (
        "_answerer",
        "_backpressure",
        "_client_handlers",
        "_handlers",
        "_middleware",
        "_namespace",
        "_own_events",
        "_queue",
        "_running",
        "_socket",
        "_tasks",
    )

    def __init__(
        self, namespace: Namespace, socket: Socket, answerer: Answerer, backpressure: Backpressure, queue: EventQueue
    ) -> None:
        self._namespace = namespace
        self._socket = socket
        self._answerer = answerer
        self._backpressure = backpressure
        self._queue = queue
        self._tasks = namespace.tasks
        self._middleware = namespace.middleware.by_stage
        self._handlers = socket.by_event
        self._client_handlers = namespace.client_handlers
        self._own_events = ALL_OWN_EVENTS if socket.has_tokens else OWN_EVENTS
        self._running = 0

    def begin(self) -> None:
        """Let events through, once the handlers of "connection" have begun: async ones do in the loop's next turn."""
        asyncio.get_running_loop().call_soon(self._queue.begin)

    def event(self, name: str, args: tuple[Any, ...], call_id: CallId | None) -> None:
        """Take an event, or have it wait; with a call's id it wants an answer."""
        if self._queue.held:
            self._queue.put(self.take, name, args, call_id)
        elif "event" in self._middleware:
            self._judge(name, args, call_id)
        elif BEGIN_AT_ONCE:
            self._start(name, args, call_id)
        else:
            self._start_late(name, args, call_id)

    def take(self, name: str, args: tuple[Any, ...], call_id: CallId | None) -> None:
        """Take an event whose turn it is."""
        if "event" in self._middleware:
            self._judge(name, args, call_id)
        elif BEGIN_AT_ONCE:
            self._start(name, args, call_id)
        else:
            self._start_late(name, args, call_id)

    def end(self, tell: Callable[[], None]) -> None:
        """Tell the application that the client has gone, in good order, once all has begun that it sent before.

        In serial mode, once that has ended. Nothing more arrives.

        Args:
            tell: does so; called once, after ``END_TIMEOUT`` at the latest.
        """
        end = ClientEnd(self._socket, tell)
        if not self._socket.is_in and not self._queue:
            end.come()
        else:
            self._queue.end(partial(self._end_behind_calls, end))

    def _end_behind_calls(self, end: ClientEnd) -> None:
        """Nothing waits in the queue any more, but calls of handlers may that have their own turns."""
        if self._socket.is_in:
            for handlers in self._handlers.values():
                for handler in handlers:
                    if isinstance(handler.function, Serial) and handler.function.waits:
                        handler.function.when_all_began = partial(self._end_behind_calls, end)
                        return
        end.come()

    def close(self) -> None:
        """Answer nothing any more: the client is gone, and its end told."""
        self._answerer = GONE

    def raised(self, error: Exception, name: str, call_id: CallId | None) -> None:
        """Tell the client, and where it is the server's fault the log, what a handler or middleware raised."""
        if isinstance(error, EventError):
            answer: tuple[Any, ...] = error.name, error.message, error.data
        elif isinstance(error, LinkError):
            is_internal = type(error) is OperationError  # of no kind: by no fault of the caller
            error_name = "InternalServerError" if is_internal else type(error).__name__
            answer = error_name, "the store did not carry the operation out"
            if isinstance(error, StoreUnavailableError):
                self._namespace.tasks.unavailable(error, f"a handler of {name!r}")
            else:
                log.warning("an operation on the store failed", event_name=name, error=str(error))
        else:
            answer = "InternalServerError", f"the handler of {name!r} failed"
            self._namespace.handler_failed(error, f"a handler of {name!r}")
        if call_id is not None:
            self._fail(call_id, *answer)

    def _fail(self, call_id: CallId, name: str, message: str, data: object = None) -> None:
        try:
            self._answerer.fail(call_id, name, message, data)
        except (TypeError, ValueError, RecursionError) as error:  # all three are whatever a handler put into its error
            self._namespace.handler_failed(error, "an error's way to the client")
            self._answerer.fail(call_id, "InternalServerError", "the error could not be sent")

    def _start_late(self, name: str, args: tuple[Any, ...], call_id: CallId | None) -> None:
        """Start handlers, and have what comes next wait until those have begun that are async."""
        before = self._running
        self._start(name, args, call_id)
        if self._running > before:
            self._queue.hold(self)
            asyncio.get_running_loop().call_soon(self._queue.release, self)

    def _is_under_way(self, task: asyncio.Task[Any]) -> None:
        """Count a handler that has not ended yet."""
        self._running += 1
        task.add_done_callback(partial(self._has_ended, self._backpressure.begin()))
        if self._running >= MAX_RUNNING:
            self._queue.hold(ROOM)

    def _has_ended(self, size: int, _task: asyncio.Task[Any]) -> None:
        self._running -= 1
        self._backpressure.end(size)
        if self._running == MAX_RUNNING - 1:
            self._queue.release(ROOM)

    def _judge(self, name: str, args: tuple[Any, ...], call_id: CallId | None) -> None:
        """Ask the middleware about an event; what comes next waits."""
        self._queue.hold(self)
        action = Action("event", self._socket, event=name, args=args)
        size = self._backpressure.begin()
        self._namespace.run(self._start_if_allowed, (action, call_id, size), "middleware of the stage 'event'")

    async def _start_if_allowed(self, action: Action, call_id: CallId | None, size: int) -> None:
        name = action.event
        try:
            if self._socket.is_in:  # else it has gone before this began
                await self._namespace.middleware.run(action)
        except Exception as error:
            self.raised(error, name, call_id)
        else:
            if self._socket.is_in:
                self._backpressure.size = size  # others may have come meanwhile
                await self._carry_on(action, call_id)
        finally:
            self._backpressure.end(size)
            self._queue.release(self)

    async def _carry_on(self, action: Action, call_id: CallId | None) -> None:
        """Have an event handled that the middleware let through."""
        if self._namespace.serial:
            await self._carry_out(action.event, action.args, call_id)
            return
        self._start(action.event, action.args, call_id)
        if not BEGIN_AT_ONCE:
            await asyncio.sleep(0)

    async def _carry_out(self, name: str, args: tuple[Any, ...], call_id: CallId | None) -> None:
        """Call the handlers of an event one after the other; each may take its time."""
        handlers = self._socket.handlers(name) if name not in self._own_events else ()
        for handler in self._socket.handlers(CATCH_ALL):
            await self._namespace.run_and_wait(handler.call, ((name, *args),), f"a handler of {CATCH_ALL!r}")
        first: tuple[ClientHandler, ...] = self._client_handlers.get(name, ()) if name not in self._own_events else ()
        for_client = (self._socket, *args)
        if call_id is not None:
            if not first and not handlers:
                self._answerer.unhandled(call_id, name)
                return
            result = _result(first[0], for_client) if first else _result(handlers[0], args)
            task = self._tasks.start(result, name)
            await asyncio.wait((task,))
            self._finished(name, call_id, task)
            first, handlers = (first[1:], handlers) if first else ((), handlers[1:])
        for handler in first:
            checked = self._check(handler, for_client, name)
            if checked is not None:
                await self._namespace.run_and_wait(handler.function, checked, f"a handler of {name!r}")
        for handler in handlers:
            await self._namespace.run_and_wait(handler.call, (args,), f"a handler of {name!r}")

    def _start(self, name: str, args: tuple[Any, ...], call_id: CallId | None) -> None:
        if name in self._own_events:
            handlers: tuple[Handler, ...] = ()
        else:
            handlers = self._socket.handlers(name) if self._socket.once_events else self._handlers.get(name, ())
        for handler in self._socket.handlers(CATCH_ALL) if CATCH_ALL in self._handlers else ():
            self._call(handler, (name, *args), CATCH_ALL)
        if name in self._client_handlers and name not in self._own_events:
            self._start_for_clients(name, (self._socket, *args), call_id)
            call_id = None  # it has its answer
        if call_id is None:
            for handler in handlers:  # as in _call, and a call less
                task = self._tasks.run(handler.call, (args,), f"a handler of {name!r}")
                if task is not None:
                    self._is_under_way(task)
        elif handlers:
            self._procedure(handlers[0], args, name, call_id)
            if len(handlers) > 1:
                for handler in handlers[1:]:
                    self._call(handler, args, name)
        else:
            self._answerer.unhandled(call_id, name)

    def _start_for_clients(self, name: str, args: tuple[Any, ...], call_id: CallId | None) -> None:
        """Start the handlers that the namespace has for all clients; the first one answers."""
        handlers = self._client_handlers[name]
        if call_id is not None:
            self._procedure(handlers[0], args, name, call_id)
            handlers = handlers[1:]
        for handler in handlers:
            checked = self._check(handler, args, name)
            if checked is not None:
                task = self._tasks.run(handler.function, checked, f"a handler of {name!r}")
                if task is not None:
                    self._is_under_way(task)

    def _check(self, handler: ClientHandler, args: tuple[Any, ...], name: str) -> tuple[Any, ...] | None:
        """Return what to call a handler with whose answer nobody wants; ``None``: the client sent something else."""
        try:
            return handler.check(args)
        except EventError as error:  # by the client's fault, whom nobody can tell
            self._namespace.tasks.misfit(f"a handler of {name!r}", error)
        except Exception as error:  # a type's own checks are code of the application
            self._namespace.handler_failed(error, f"a handler of {name!r}")
        return None

    def _call(self, handler: Handler, args: tuple[Any, ...], name: str) -> None:
        """Call a handler whose return value nobody wants."""
        task = self._tasks.run(handler.call, (args,), f"a handler of {name!r}")
        if task is not None:
            self._is_under_way(task)

    def _procedure(self, handler: Handler, args: tuple[Any, ...], name: str, call_id: CallId) -> None:
        """Call the handler whose return value, or error, is the answer."""
        try:
            result = handler.call(args)
        except Exception as error:
            self.raised(error, name, call_id)
            return
        kind = type(result)
        if kind in NEVER_AWAITED:
            try:
                self._answerer.respond(call_id, result)
            except NotSerializableError as error:
                self.raised(error, name, call_id)
        elif kind is CoroutineType:
            task = self._tasks.start(result, name)
            if not task.done():
                task.add_done_callback(partial(self._finished, name, call_id))
                self._is_under_way(task)
                return
            self._finished(name, call_id, task)
        elif inspect.isawaitable(result):
            task = self._tasks.start(_wait(result), f"a handler of {name!r}")
            task.add_done_callback(partial(self._finished, name, call_id))
            self._is_under_way(task)
        else:
            self._respond(result, name, call_id)

    def _finished(self, name: str, call_id: CallId, task: asyncio.Task[Any]) -> None:
        try:
            self._answerer.respond(call_id, task.result())
        except asyncio.CancelledError:
            self._answerer.fail(call_id, "InternalServerError", f"the handler of {name!r} was cancelled")
        except Exception as error:
            self.raised(error, name, call_id)

    def _respond(self, result: Any, name: str, call_id: CallId) -> None:
        try:
            self._answerer.respond(call_id, result)
        except NotSerializableError as error:
            self.raised(error, name, call_id)


async def _wait(pending: Awaitable[Any]) -> Any:
    return await pending


async def _result(handler: Handler, args: tuple[Any, ...]) -> Any:
    """Return what a plain or async handler returns."""
    result = handler.call(args)
    return await result if inspect.isawaitable(result) else result
