"""A run, as works have it: its servers, the rounds in which they have their turns, what was measured."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from bench.drive.remote import GeneratorError
from bench.peers.running import Running
from bench.peers.side import TLS, Side
from bench.reporting.sections import Measurements, Section
from bench.works.servers import Servers
from bench.works.stand import Options, Stand


@dataclass
class Bench:
    """A run.

    Attributes:
        sides: the servers that take part, and are here.
        busy: of each work, the greatest share of a core that a process of the load generator used.
        late: of each work, how late its timers were at worst, in seconds.
    """

    options: Options
    servers: Servers
    sides: Sequence[Side]
    measurements: Measurements = field(default_factory=Measurements)
    busy: dict[str, dict[str, float]] = field(default_factory=dict)
    late: dict[str, dict[str, float]] = field(default_factory=dict)

    def able(self, *abilities: str) -> list[Side]:
        """Return the servers that can all of that."""
        return [side for side in self.sides if side.can.issuperset(abilities)]

    def say(self, line: str) -> None:
        """Tell whoever waits what is going on."""
        print(line, file=sys.stderr, flush=True)  # noqa: T201

    @asynccontextmanager
    async def stands(
        self, section: Section, sides: Sequence[Side], *, generators: int = 1, secure: bool = False, **wanted: Any
    ) -> AsyncIterator[list[Stand]]:
        """Run servers, with so many processes of the load generator each; one that fails to start is noted."""
        async with AsyncExitStack() as stack:
            ready: dict[str, Running] = {}

            async def start(side: Side) -> None:
                try:
                    ready[side.name] = await self.servers.running(stack, side, secure=secure, **wanted)
                except RuntimeError as error:
                    self.failed(section, side.name, error)

            await asyncio.gather(*(start(side) for side in sides if not secure or TLS in side.can))
            stands: list[Stand] = []
            for side in sides:
                if side.name in ready:
                    stand = Stand(side, ready[side.name], [], settles=not self.options.tiny)
                    health = self._health_of(section.key, side.name)
                    for number in range(generators):
                        stand.remotes.append(
                            await self.servers.remote(stack, side, stand.running.port, number, health, secure=secure)
                        )
                    stands.append(stand)
            yield stands

    def _health_of(self, work: str, side: str) -> Callable[[float, float], None]:
        def told(busy: float, late: float) -> None:
            for kept, value in ((self.busy, busy), (self.late, late)):
                sides = kept.setdefault(work, {})
                sides[side] = max(sides.get(side, 0.0), value)

        return told

    def failed(self, section: Section, name: str, error: Exception) -> None:
        """Note that a server could not do its work."""
        text = " ".join(str(error).split())[:500]
        section.notes.append(f"**{name} failed:** {text}")
        self.say(f"  {section.key}: {name} failed: {error}")

    async def each(
        self, section: Section, stands: Sequence[Stand], do: Callable[[Stand], Awaitable[None]], what: str
    ) -> None:
        """Do something with each server; one that fails is noted, and takes no further part."""
        for stand in stands:
            if not stand.failed:
                began = time.monotonic()
                try:
                    await do(stand)
                except GeneratorError as error:
                    stand.failed = True
                    self.failed(section, stand.name, error)
                else:
                    self.say(f"  {section.key}: {stand.name}: {what} ({time.monotonic() - began:.1f} s)")

    async def rounds(
        self, section: Section, stands: Sequence[Stand], do: Callable[[Stand], Awaitable[None]], what: str, count: int
    ) -> None:
        """Do something with each server in turn, and again."""
        for number in range(count):
            await self.each(section, stands, do, f"{what}, round {number + 1} of {count}")
