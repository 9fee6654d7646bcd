"""What a store is to know of this worker and does not know yet, because it refused it or did not answer.

Which sessions have sockets here, what is subscribed and what is watched are states, not messages: the last one counts,
and it is told until the owner has it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from socketcluster_proto.v1 import store_pb2
from socketcluster_runtime.logs.conditions import Condition
from socketcluster_runtime.logs.logging import get_logger
from socketcluster_store_client.messages import Operation

log = get_logger(__name__)

RETRY_PAUSE = 1.0
"""Seconds until a state is told again, at most: what is refused for a moment, a tenth of it later."""
TOLD_AT_ONCE = 1000
"""States of one partition that are told then; the rest follow after another pause, which is twice as long."""

SESSIONS = store_pb2.VERB_SESSION_ATTACH
CHANNELS = store_pb2.VERB_CHANNEL_SUBSCRIBE
WATCHES = store_pb2.VERB_WATCH
CHECKS = store_pb2.VERB_SESSION_CHECK
_KINDS: dict[int, int] = {
    SESSIONS: SESSIONS,
    store_pb2.VERB_SESSION_DETACH: SESSIONS,
    CHANNELS: CHANNELS,
    store_pb2.VERB_CHANNEL_UNSUBSCRIBE: CHANNELS,
    WATCHES: WATCHES,
    store_pb2.VERB_UNWATCH: WATCHES,
    CHECKS: CHECKS,
}


class State(NamedTuple):
    """Names what is to be told, not what it is at present."""

    kind: int
    name: str = ""
    """Of the session or channel."""
    keys: tuple[str, ...] = ()
    """The key chain of a watch."""


def state_of(operation: Operation) -> State | None:
    """Return the state that an operation tells, if it tells one."""
    kind = _KINDS.get(operation.verb)
    if kind is None:
        return None
    if kind == CHECKS:
        return State(kind)
    return State(kind, operation.session_id or operation.name, tuple(operation.keys))


class Teller(Protocol):
    """The route of a partition."""

    untold: dict[State, None]

    def tell_again(self, at_most: int) -> bool:
        """Tell states that are untold; return whether others are left that can be told now."""


class Resync:
    """Has the routes of a worker tell again, after a pause, what they could not."""

    def __init__(self, routes: Sequence[Teller]) -> None:
        self._routes = routes
        self._timer: asyncio.TimerHandle | None = None
        self._pause = 0.0  # the last one
        self._told_at = -math.inf  # by the loop's clock, the last time
        self._closed = False
        self._refused = Condition(
            log,
            "the stores do not know yet what is attached, subscribed or watched here; they are told again",
            over="the stores have been told again what is attached, subscribed and watched here",
        )

    def note(self, why: str) -> None:
        """Note that a state is untold, and why."""
        if not self._closed:
            self._refused.add(last=why)
            self._arm()

    def close(self) -> None:
        """Tell nothing any more."""
        self._closed = True
        self._refused.close()
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            is_first = loop.time() - self._told_at > 2 * RETRY_PAUSE
            self._pause = RETRY_PAUSE / 10 if is_first else min(2 * self._pause, RETRY_PAUSE)
            self._timer = loop.call_later(self._pause, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._told_at = asyncio.get_running_loop().time()
        left = [route.tell_again(TOLD_AT_ONCE) for route in self._routes if route.untold]
        if any(left):
            self._arm()
