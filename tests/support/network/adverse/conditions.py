"""What connections through an adverse proxy meet."""

from __future__ import annotations

import asyncio
import enum
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from support.network.adverse.http import Request

if TYPE_CHECKING:
    from support.network.adverse.connection import Connection

HANG = b""
"""In the place of an answer: none ever comes."""


class Way(enum.StrEnum):
    """A direction."""

    UP = "up"
    DOWN = "down"


class Block(enum.StrEnum):
    """How WebSockets are blocked."""

    REFUSED = "refused"
    """400."""
    HANGING = "hanging"
    """Nothing answers."""
    CLOSED = "closed"
    """101, and then the connection is closed."""
    SWALLOWED = "swallowed"
    """101, and then no frame comes through."""
    SWALLOWED_AFTER_ONE = "swallowed after one"
    """101, one frame each way - an upgrade's probe with its answer - and then none."""

    @property
    def frames(self) -> int | None:
        """How many frames each way come through; ``None``: all."""
        return {Block.SWALLOWED: 0, Block.SWALLOWED_AFTER_ONE: 1}.get(self)


@dataclass(frozen=True)
class Break:
    """Where a connection is broken.

    Attributes:
        after: bytes that pass in that direction before; 0: the connection is broken as soon as it is there.
        way: the direction.
        reset: by RST, else FIN.
    """

    after: int = 0
    way: Way = Way.DOWN
    reset: bool = True


@dataclass
class Conditions:
    """What connections meet; each may be changed at any time.

    Attributes:
        chance: what happens at random is drawn from it.
        latency: seconds, each way.
        jitter: up to so many seconds more; a connection's bytes stay in order.
        rate: bytes a second each way, of all connections together; ``None``: no limit.
        breaks: is asked by each new connection where it will break, if at all.
        lost_answers: how probable it is that the answer to a request on a connection that was used before is lost: the
            server has taken the request and answered, and the client's connection is reset before the first byte.
            Browsers repeat such a request by themselves.
        answer: is asked by each request for an answer by the network itself, ``HANG`` among them; ``None``: the server
            is asked.
        block: how WebSockets are blocked.
        gateway_timeout: seconds after which a poll that is not answered is answered 504.
        on_step: hears of each step of a connection before it is passed on: the kind of a request (``Request.kind``),
            ``answer`` at an answer's first byte, ``up 1``, ``down 1`` and so on at a WebSocket's first, second frame.
            It may cut connections; what a connection would have passed on is gone then.
    """

    chance: random.Random = field(default_factory=random.Random)
    latency: float = 0.0
    jitter: float = 0.0
    rate: float | None = None
    breaks: Callable[[random.Random], Break | None] = lambda _random: None
    lost_answers: float = 0.0
    answer: Callable[[Request], bytes | None] = lambda _request: None
    block: Block | None = None
    gateway_timeout: float | None = None
    on_step: Callable[[Connection, str], None] = lambda _connection, _step: None

    flowing: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while bytes are delivered at all."""
    free: dict[Way, float] = field(default_factory=lambda: {Way.UP: 0.0, Way.DOWN: 0.0})
    """When the line can take the next bytes, on the loop's clock."""
    answers_lost: int = 0
