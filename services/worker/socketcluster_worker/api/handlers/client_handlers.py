"""Handlers of clients' events that are added once, for all clients of a namespace."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from socketcluster_worker.api.handlers.arguments import Arguments
from socketcluster_worker.api.sockets.events import Handler

PREFIX = "on_"
"""Begins the names of the methods of ``Handlers`` that are handlers."""


class ClientHandler(Handler):
    """A function that gets the socket first, then what its client sent, checked where it is annotated."""

    __slots__ = ("_arguments",)

    def __init__(self, function: Callable[..., Any]) -> None:
        if not callable(function) or inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise TypeError(f"a handler is a function, plain or async, not {function!r}")
        super().__init__(function, once=False, least=1, most=None)
        self._arguments = Arguments(function, own=1)

    def call(self, args: tuple[Any, ...]) -> Any:
        """Call the function.

        Raises:
            EventError: ``ValidationError``: an argument is not what the function wants.
        """
        return self.function(*self._arguments.check(args))

    def check(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return what the function is to be called with.

        Raises:
            EventError: as ``call``.
        """
        return self._arguments.check(args)


class Handlers:
    """Handlers of one namespace, as a class's methods: ``ws_server.register(Chat())``.

    ::

        class Chat(Handlers, namespace="/chat"):
            async def on_join(self, socket: Socket, room: str) -> list[str]: ...

    ``on_<event>(self, socket, ...)`` is what ``@namespace.handler("<event>")`` decorates. Methods with the names of the
    namespace's own events get what handlers of these get: ``on_connection(self, socket)``,
    ``on_disconnect(self, socket, code, reason)``, and so on.

    Attributes:
        namespace: whose handlers they are; ``/`` unless the class says another one.
    """

    namespace: ClassVar[str] = "/"

    def __init_subclass__(cls, *, namespace: str | None = None, **more: Any) -> None:
        super().__init_subclass__(**more)
        if namespace is not None:
            cls.namespace = namespace

    def by_event(self) -> Iterator[tuple[str, Callable[..., Any]]]:
        """Yield the methods that are handlers, by event; for the namespace."""
        for name in dir(self):
            if name.startswith(PREFIX) and callable(method := getattr(self, name)):
                yield name.removeprefix(PREFIX), method
