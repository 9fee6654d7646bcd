"""A server and its clients, as works have them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.drive.remote import Remote
from bench.peers.running import Running
from bench.peers.side import Side

QUIET = 0.02
"""Share of a core below which a server has settled."""


@dataclass(frozen=True)
class Options:
    """How a run is to be.

    Attributes:
        rounds: in which each server has its turn.
        seconds: that a turn lasts.
        most: of anything, such as clients; a run that only tries the harness out has few.
        leaves: how many clients come and leave.
        tiny: is it only tried out whether everything works?
    """

    rounds: int = 5
    seconds: float = 2.0
    most: int = 1_000_000
    leaves: int = 1_000_000
    tiny: bool = False

    @property
    def few(self) -> int:
        """Rounds of what takes long."""
        return min(self.rounds, 2)

    def many(self, count: int) -> int:
        """Return so many, or as many as there may be."""
        return min(count, self.most)

    def sizes(self, counts: Sequence[int]) -> list[tuple[int, int]]:
        """Return pairs of a size that is wanted and how many there may be of it, each of the latter once."""
        pairs: dict[int, int] = {}
        for count in counts:
            pairs.setdefault(self.many(count), count)
        return [(wanted, count) for count, wanted in pairs.items()]


@dataclass
class Stand:
    """A server that runs, and its clients.

    Attributes:
        failed: does it no longer take part?
        settles: is it waited for until it has nothing left to do?
    """

    side: Side
    running: Running
    remotes: list[Remote]
    failed: bool = False
    settles: bool = True

    @property
    def name(self) -> str:
        """The server's."""
        return self.side.name

    async def call(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Have the first process of the load generator do something."""
        return await self.remotes[0].call(name, **arguments)

    async def call_each(self, name: str, **arguments: Any) -> list[dict[str, Any]]:
        """Have each process of the load generator do the same at once."""
        return await asyncio.gather(*(remote.call(name, **arguments) for remote in self.remotes))

    async def open(self, count: int) -> None:
        """Add clients, as many from each process.

        Raises:
            GeneratorError: not all were served.
        """
        share = -(-count // len(self.remotes))
        counts = [max(0, min(share, count - number * share)) for number in range(len(self.remotes))]
        await asyncio.gather(
            *(remote.call("open", count=count) for remote, count in zip(self.remotes, counts, strict=True) if count)
        )
        await self.remotes[0].call("check")

    async def measured(self, name: str, **arguments: Any) -> tuple[dict[str, Any], float]:
        """Do the same as ``call``; return what was counted, and the CPU seconds of all the server's processes."""
        used = self.running.cpu()
        found = await self.call(name, **arguments)
        return found, self.running.cpu() - used

    async def settle(self, patience: float = 15.0) -> None:
        """Return when the server has nothing left to do, or after ``patience`` seconds."""
        end = time.monotonic() + patience
        while self.settles and time.monotonic() < end:
            used, began = self.running.cpu(), time.monotonic()
            await asyncio.sleep(0.2)
            if self.running.cpu() - used < QUIET * (time.monotonic() - began):
                return
