"""``@ws_server.middleware(stage)``: the application's say in what clients may do."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, get_args, overload

from socketcluster_runtime.settings import did_you_mean
from socketcluster_worker.api.sockets.events import Handler, make_handler
from socketcluster_worker.errors import EventError

M = TypeVar("M", bound=Callable[..., Any])
Judge = TypeVar(
    "Judge", bound=Callable[[Any], Awaitable[None] | None] | Callable[[], Awaitable[None] | None]
)  # of an Action, which knows sockets, which know their namespaces, which know this

Stage: TypeAlias = Literal["handshake", "event", "subscribe", "publish_in", "publish_out", "authenticate"]
"""What an ``Action`` may be."""
STAGES: tuple[Stage, ...] = get_args(Stage)


class Asked(Protocol):
    """What middleware is asked about: an ``Action``."""

    stage: str

    @property
    def connected(self) -> bool:
        """Is the client still there?"""


class Middleware:
    """The middleware of a namespace, by stage, in the order in which it was added.

    Args:
        always_asked: stages that are active even without any.
    """

    __slots__ = ("_returning_nothing", "by_stage")

    def __init__(self, always_asked: Iterable[str] = ()) -> None:
        self.by_stage: dict[str, tuple[Handler, ...]] = dict.fromkeys(always_asked, ())
        """Who is asked, by stage; a stage that is not there is not active."""
        self._returning_nothing: set[Handler] = set()

    def __call__(self, stage: Stage) -> Callable[[Judge], Judge]:
        """Decorate a function, plain or async, that is shown an ``Action`` before what its stage names.

        It lets the action happen by returning nothing, perhaps after changing it; it refuses it by raising
        ``EventError``, whose name, message and data the client gets. If it raises anything else, or returns something,
        the action is refused too: that is logged, and the client learns only that it failed. At the stage
        ``publish_out`` a refusal means that the socket does not get the message.

        Raises:
            ValueError: there is no such stage.
            TypeError: what is decorated is no function, or wants more than the action.
        """
        _check(stage)

        def decorate(function: Judge) -> Judge:
            self._returning_nothing.add(self._add(stage, function))
            return function

        return decorate

    @overload
    def use(self, stage: str) -> Callable[[M], M]: ...
    @overload
    def use(self, stage: str, function: M) -> M: ...
    def use(self, stage: str, function: M | None = None) -> M | Callable[[M], M]:
        """Add ``function(action)`` as ``middleware`` does, but it may return: ``False`` refuses the action, too.

        The client gets a ``SilentMiddlewareBlockedError`` then. Without a function, a decorator.

        Raises:
            ValueError: there is no such stage.
            TypeError: what is added is no function, or wants more than the action.
        """
        _check(stage)
        if function is None:

            def decorate(decorated: M) -> M:
                self._add(stage, decorated)
                return decorated

            return decorate
        self._add(stage, function)
        return function

    def _add(self, stage: str, function: Callable[..., Any]) -> Handler:
        handler = make_handler(function, given=1)
        self.by_stage[stage] = (*self.by_stage.get(stage, ()), handler)
        return handler

    def active(self, stage: str) -> bool:
        """Is that stage's middleware to be asked?"""
        return stage in self.by_stage

    async def run(self, action: Asked) -> None:
        """Ask every middleware of the action's stage.

        Raises:
            EventError: one of them refuses.
            TypeError: one of them returned something and was not to.
            RuntimeError: what one of them waited for was cancelled.
        """
        for handler in self.by_stage.get(action.stage, ()):
            result = handler.call((action,))
            if inspect.isawaitable(result):
                try:
                    result = await result
                except asyncio.CancelledError as error:
                    task = asyncio.current_task()
                    if task is None or task.cancelling() or not action.connected:
                        raise
                    raise RuntimeError("what the middleware waited for was cancelled") from error  # not who asks it
            if result is None:
                continue
            if handler in self._returning_nothing:
                name = getattr(handler.function, "__qualname__", repr(handler.function))
                raise TypeError(f"middleware {name} returned {result!r}: it returns nothing, and refuses by EventError")
            if result is False:
                text = f"the action was blocked by middleware of the stage {action.stage!r}"
                raise EventError(text, name="SilentMiddlewareBlockedError")


def _check(stage: str) -> None:
    if stage not in STAGES:
        raise ValueError(f"there is no stage {stage!r}, only {', '.join(STAGES)}{did_you_mean(str(stage), STAGES)}")
