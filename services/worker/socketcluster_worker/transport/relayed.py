"""Connections whose bytes a balancer copies: before it stops, they end in their own protocol, one after the other."""

from __future__ import annotations

import asyncio
import math
import random
from typing import Protocol, cast, runtime_checkable
from weakref import WeakKeyDictionary, WeakSet

from socketcluster_runtime.logs import logging

log = logging.get_logger(__name__)

STEP = 0.05
"""Seconds between two portions of connections that end; each has one at least."""
GRACE = 30.0
"""Seconds after the last of them for which connections are waited for that were still on their way."""
MAX_SECONDS = 600.0
"""For so long, at most, the ends are spread."""


@runtime_checkable
class Leaving(Protocol):
    """A protocol of asyncio whose client can be sent away."""

    def leave(self) -> None:
        """End the connection as soon as what is under way is done, so that its client comes by another one."""


class Relayed:
    """The relayed connections of a worker.

    Clients who were all sent away at once would all come back at once, each with a TLS handshake.
    """

    def __init__(self) -> None:
        self._connections: dict[bytes, WeakSet[asyncio.BaseTransport]] = {}
        self._ending: dict[bytes, asyncio.Task[None]] = {}

    def add(self, balancer: bytes, transport: asyncio.BaseTransport) -> None:
        """Note a connection and the balancer that it comes by."""
        connections = self._connections.get(balancer)
        if connections is None:
            self._connections = {each: those for each, those in self._connections.items() if those}
            connections = self._connections[balancer] = WeakSet()
        connections.add(transport)

    def end(self, balancer: bytes, seconds: float) -> int:
        """Send the clients away that came by a balancer, and those that are still on their way, over ``seconds``.

        Returns:
            How many there are.
        """
        count = len(self._open(balancer))
        if balancer not in self._ending:
            if count:
                log.info("a balancer stops: the clients that it relays are told to reconnect", connections=count)
            task = asyncio.get_running_loop().create_task(self._end(balancer, min(max(seconds, 0.0), MAX_SECONDS)))
            self._ending[balancer] = task
            task.add_done_callback(lambda _: self._ending.pop(balancer, None))
        return count

    def close(self) -> None:
        """Leave those that remain to whoever ends the others."""
        for task in tuple(self._ending.values()):
            task.cancel()

    async def _end(self, balancer: bytes, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        told: WeakKeyDictionary[asyncio.BaseTransport, object] = WeakKeyDictionary()  # which of its protocols was
        while True:
            open_ones = self._open(balancer)
            left = end - loop.time()
            if left <= 0 and (not open_ones or left <= -GRACE):
                return
            rest = [each for each in open_ones if each.get_protocol() is not told.get(each)]
            portion = math.ceil(len(rest) * STEP / left) if left > STEP else len(rest)
            for transport in random.sample(rest, portion):
                protocol = told[transport] = transport.get_protocol()
                if isinstance(protocol, Leaving):
                    protocol.leave()
            await asyncio.sleep(STEP)

    def _open(self, balancer: bytes) -> list[asyncio.Transport]:
        those = self._connections.get(balancer, ())
        return [cast(asyncio.Transport, each) for each in those if not each.is_closing()]
