"""``use(stage, middleware)``: the application's say in what clients may do."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar, overload

from socketcluster_worker.api.sockets.events import Handler, make_handler
from socketcluster_worker.errors import EventError

M = TypeVar("M", bound=Callable[..., Any])

STAGES = ("handshake", "event", "subscribe", "publish_in", "publish_out", "authenticate")
"""What an ``Action`` may be."""


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

    __slots__ = ("by_stage",)

    def __init__(self, always_asked: Iterable[str] = ()) -> None:
        self.by_stage: dict[str, tuple[Handler, ...]] = dict.fromkeys(always_asked, ())
        """Who is asked, by stage; a stage that is not there is not active."""

    @overload
    def use(self, stage: str) -> Callable[[M], M]: ...
    @overload
    def use(self, stage: str, function: M) -> M: ...
    def use(self, stage: str, function: M | None = None) -> M | Callable[[M], M]:
        """Call ``function(action)``, plain or async, before what its stage names; without a function, a decorator.

        It lets the action happen by returning, and refuses it by raising ``EventError``, whose name, message and data
        the client gets, or by returning ``False`` (``SilentMiddlewareBlockedError``). At the stage ``publish_out`` a
        refusal means that the socket does not get the message.

        Raises:
            ValueError: there is no such stage.
        """
        if stage not in STAGES:
            raise ValueError(f"there is no stage {stage!r}, only {', '.join(STAGES)}")
        if function is None:

            def decorate(decorated: M) -> M:
                self.by_stage[stage] = (*self.by_stage.get(stage, ()), make_handler(decorated))
                return decorated

            return decorate
        self.by_stage[stage] = (*self.by_stage.get(stage, ()), make_handler(function))
        return function

    def active(self, stage: str) -> bool:
        """Is that stage's middleware to be asked?"""
        return stage in self.by_stage

    async def run(self, action: Asked) -> None:
        """Ask every middleware of the action's stage.

        Raises:
            EventError: one of them refuses.
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
            if result is False:
                text = f"the action was blocked by middleware of the stage {action.stage!r}"
                raise EventError(text, name="SilentMiddlewareBlockedError")
