"""``on``, ``once`` and ``off``: who is called when an event happens."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import Any, ClassVar, TypeVar, overload

from socketcluster_worker.errors import MissingArgumentError, ReservedEventError
from socketcluster_worker.reserved_events import RESERVED_EVENTS

F = TypeVar("F", bound=Callable[..., Any])

CATCH_ALL = "*"
"""The event whose handlers get every event of a client, with its name first."""
MAX_SERIAL_CALLS = 1000
"""Calls of one serial handler that may be under way or waiting."""


def check_emitted(event: str) -> None:
    """Raise ``ReservedEventError`` if the application must not send an event of that name."""
    if event in RESERVED_EVENTS:
        raise ReservedEventError(f"{event!r} is an event of the protocols' own: choose another name")


@dataclass(slots=True, eq=False)  # frozen, it took twice as long to make one
class Handler:
    """A function, and how many arguments it can take."""

    function: Callable[..., Any]
    once: bool
    least: int
    most: int | None
    takes_any: bool = False
    """Is it called whatever is missing? Of each event, say."""

    def call(self, args: tuple[Any, ...]) -> Any:
        """Call the function: surplus arguments are left out; missing ones are ``None``, but where they are annotated.

        Raises:
            MissingArgumentError: an annotated argument is missing.
        """
        if self.most is not None and len(args) > self.most:
            args = args[: self.most]
        elif len(args) < self.least:
            if not self.takes_any:
                _check_missing(self.function, len(args), self.least)
            args += (None,) * (self.least - len(args))
        return self.function(*args)


def _check_missing(function: Callable[..., Any], given: int, least: int) -> None:
    """Raise ``MissingArgumentError`` if one of the arguments that did not come is annotated."""
    name = _first_annotated(function, given, least)
    if name is not None:
        raise MissingArgumentError(f"{name}: it is missing")


def _first_annotated(function: Callable[..., Any], given: int, least: int) -> str | None:
    """Return the name of the first annotated parameter among those from ``given`` to ``least``."""
    try:
        parameters = [*inspect.signature(function).parameters.values()][given:least]
    except (TypeError, ValueError):  # a builtin
        return None
    return next((one.name for one in parameters if one.annotation is not one.empty), None)


def make_handler(
    function: Callable[..., Any], *, once: bool = False, takes_any: bool = False, given: int | None = None
) -> Handler:
    """Look at a function's signature once, so that calling it is cheap.

    Args:
        function: plain or async.
        once: see ``Emitter.once``.
        takes_any: see ``Handler``.
        given: how many arguments it will always get; ``None``: what a client sends.

    Raises:
        TypeError: it is no function, or wants what it will never get.
    """
    least, most = _arity(function)
    if given is not None and least > given and (name := _first_annotated(function, given, least)) is not None:
        raise TypeError(f"{_name(function)} is called with {given} argument(s), and would get nothing for {name!r}")
    return Handler(function, once, least, most, takes_any)


def _arity(function: Callable[..., Any]) -> tuple[int, int | None]:
    """Return how many arguments a function wants at least, and takes at most; ``None``: any number.

    Handlers are added for each client anew, and ``inspect.signature`` takes longer than all the rest of that: what most
    functions take stands in their code.

    Raises:
        TypeError: it is no function, yields, or needs an argument by keyword.
    """
    if type(function) is FunctionType and not function.__dict__:
        code = function.__code__  # nothing wraps it, and what it takes is all there
        if not code.co_kwonlyargcount and not code.co_flags & _YIELDS:
            most = code.co_argcount
            return max(most - len(function.__defaults__ or ()), 0), None if code.co_flags & inspect.CO_VARARGS else most
    if type(function) is Serial:
        function = function.__wrapped__
    inner: Any = function
    bound = 0
    while not hasattr(inner, "__signature__"):
        if type(inner) is MethodType:
            inner, bound = inner.__func__, bound + 1
        elif hasattr(inner, "__wrapped__"):
            inner = inner.__wrapped__
        elif type(inner) is FunctionType:
            code = inner.__code__
            if code.co_kwonlyargcount or code.co_flags & _YIELDS:
                _check_callable(function)
            most = code.co_argcount - bound
            least = max(most - len(inner.__defaults__ or ()), 0)
            return least, None if code.co_flags & inspect.CO_VARARGS else most
        else:
            break
    _check_callable(function)
    least, most = 0, 0
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a builtin may have no signature
        return 0, None
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            return least, None
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            most += 1
            if parameter.default is parameter.empty:
                least += 1
    return least, most


_YIELDS = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


def _check_callable(function: Callable[..., Any]) -> None:
    """Raise ``TypeError`` unless a function can be called with what comes, and does something then."""
    if not callable(function) or inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise TypeError(f"what is called is a function, plain or async, not {function!r}")
    try:
        parameters = inspect.signature(function, follow_wrapped=False).parameters.values()  # as it is called
    except (TypeError, ValueError):
        return
    for one in parameters:
        if one.kind is one.KEYWORD_ONLY and one.default is one.empty:
            raise TypeError(f"{_name(function)}: nobody gives {one.name!r}, which goes by keyword only")


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))


class Serial:
    """A function, plain or async, that is called again only after its call before has ended, in the order of the calls.

    Args:
        function: what is called.
    """

    __slots__ = ("__wrapped__", "_turn", "_waiting", "when_all_began")

    def __init__(self, function: Callable[..., Any]) -> None:
        self.__wrapped__ = function  # whose signature is looked at
        self._turn = asyncio.Lock()  # those who wait for it get it in their order
        self._waiting = 0
        self.when_all_began: Callable[[], None] | None = None
        """Is called once when no call waits for its turn any more."""

    @property
    def waits(self) -> bool:
        """Does a call wait for its turn?"""
        return self._waiting > 0

    async def __call__(self, *args: Any) -> Any:
        """Call the function when it is this call's turn."""
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1
            if self.when_all_began is not None and not self._waiting:
                asyncio.get_running_loop().call_soon(self.when_all_began)
                self.when_all_began = None
        try:
            result = self.__wrapped__(*args)
            return await result if inspect.isawaitable(result) else result
        finally:
            self._turn.release()


def _is(function: Callable[..., Any], wanted: Callable[..., Any]) -> bool:
    return function == wanted or (isinstance(function, Serial) and function.__wrapped__ == wanted)


class Emitter:
    """Keeps the handlers of events, in the order in which they were added."""

    EVENTS: ClassVar[Mapping[str, int]] = {}
    """Its own events, and how many arguments their handlers get."""
    HAS_OTHERS: ClassVar[bool] = True
    """Are there events of other names?"""
    once_events: frozenset[str] = frozenset()
    """The events with handlers that are called once; nearly always none."""

    def __init__(self) -> None:
        self.by_event: dict[str, tuple[Handler, ...]] = {}
        """Who is there for each event; ``handlers`` tells who is to be called."""

    @overload
    def on(self, event: str) -> Callable[[F], F]: ...
    @overload
    def on(self, event: str, handler: F) -> F: ...
    def on(self, event: str, handler: F | None = None) -> F | Callable[[F], F]:
        """Call ``handler`` whenever ``event`` happens; without a handler, a decorator.

        Raises:
            ValueError: this object has no such event.
            TypeError: the handler is no function, or wants what it will never get.
        """
        return self._register(event, handler, once=False)

    @overload
    def once(self, event: str) -> Callable[[F], F]: ...
    @overload
    def once(self, event: str, handler: F) -> F: ...
    def once(self, event: str, handler: F | None = None) -> F | Callable[[F], F]:
        """Call ``handler`` the next time that ``event`` happens; without a handler, a decorator."""
        return self._register(event, handler, once=True)

    def off(self, event: str, handler: Callable[..., Any] | None = None) -> None:
        """Forget a handler of ``event``, or all of them."""
        kept = tuple(h for h in self.by_event.get(event, ()) if handler is not None and not _is(h.function, handler))
        if kept:
            self.by_event[event] = kept
        else:
            self.by_event.pop(event, None)

    def handlers(self, event: str) -> tuple[Handler, ...]:
        """Return who is to be called now; those added by ``once`` are forgotten by that."""
        found = self.by_event.get(event)
        if found is None:
            return ()
        if event in self.once_events:
            self.once_events -= {event}
            kept = tuple(handler for handler in found if not handler.once)
            if kept:
                self.by_event[event] = kept
            else:
                del self.by_event[event]
        return found

    def add_handler(self, event: str, handler: Callable[..., Any]) -> None:
        """Do what ``on`` does with an event whose name is only known at runtime."""
        self._register(event, handler, once=False)

    def _register(self, event: str, handler: F | None, *, once: bool) -> F | Callable[[F], F]:
        if not isinstance(event, str):
            raise TypeError(f'an event has a name, and {event!r} is none: @{type(self).__name__.lower()}.on("name")')
        if not self.HAS_OTHERS and event not in self.EVENTS:
            raise ValueError(f"{type(self).__name__} has no event {event!r}, only {', '.join(sorted(self.EVENTS))}")
        if handler is None:

            def decorate(function: F) -> F:
                self._add(event, function, once)
                return function

            return decorate
        self._add(event, handler, once)
        return handler

    def _add(self, event: str, function: Callable[..., Any], once: bool) -> None:
        given = self.EVENTS.get(event)
        handler = make_handler(function, once=once, takes_any=event == CATCH_ALL, given=given)
        self.by_event[event] = (*self.by_event.get(event, ()), handler)
        if once:
            self.once_events |= {event}
