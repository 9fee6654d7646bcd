"""A bad network: a TCP proxy between clients and a cluster that delays, limits, cuts, stops and answers itself."""

from __future__ import annotations

import asyncio
import random
from typing import Self

from support.network.adverse.conditions import HANG, Block, Break, Conditions, Way
from support.network.adverse.connection import Connection
from support.network.adverse.http import PORTAL, Request

__all__ = ["HANG", "PORTAL", "AdverseProxy", "Block", "Break", "Connection", "Request", "Way"]


class AdverseProxy(Conditions):
    """A proxy on a free port of 127.0.0.1; see ``Conditions`` for what connections meet.

    Args:
        target: the URL of what is behind it.
        seed: what happens at random follows from it, as far as the order of what comes does.

    Attributes:
        port: its port; it stays the same.
        url: where clients connect.
        connections: those that are open.
        accepted: how many there were.
    """

    def __init__(self, target: str, seed: int = 0) -> None:
        super().__init__(chance=random.Random(seed))
        host, _, port = target.rpartition("//")[2].rstrip("/").rpartition(":")
        self._target = host, int(port)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.connections: set[Connection] = set()
        self.accepted = 0
        self.go()

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.refuse()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def open(self) -> None:
        """Accept connections, again after ``refuse``."""
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Close the port, and cut what is open: connections are refused."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut(reset=True)

    def stop(self) -> None:
        """Deliver nothing, on old and new connections: the other side is unreachable."""
        self.flowing.clear()

    def go(self) -> None:
        """Deliver again, what was held first."""
        self.flowing.set()

    def hang(self, *kinds: str) -> None:
        """Leave the connections that are open, or those of these kinds, half-open: nothing comes through for ever."""
        for connection in self.connections:
            if not kinds or connection.kind in kinds:
                connection.hanging = True

    def cut(self, *kinds: str, reset: bool = False) -> None:
        """End the connections that are open, or those of these kinds, by FIN or RST."""
        for connection in list(self.connections):
            if not kinds or connection.kind in kinds:
                connection.cut(reset=reset)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        connection = Connection(self, self._target, reader, writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections.add(connection)
        try:
            await connection.run()
        except asyncio.CancelledError:
            pass  # it was cut, and nobody waits for it
        finally:
            self.connections.discard(connection)
            self._tasks.discard(task)
