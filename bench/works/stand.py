"""What works stand on: the servers of a run, their clients, the rounds in which they have their turns."""

from __future__ import annotations

import asyncio
import itertools
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.network import certificates

from bench.drive.remote import GeneratorError, Remote
from bench.peers.install import Peers
from bench.peers.running import Running
from bench.peers.side import TLS, Side, Wanted
from bench.reporting.sections import Measurements, Section

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
        for found in await asyncio.gather(
            *(remote.call("open", count=count) for remote, count in zip(self.remotes, counts, strict=True) if count)
        ):
            if found["errors"]:
                raise GeneratorError(f"clients were not served: {found['errors']}")
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


@dataclass
class Bench:
    """A run.

    Attributes:
        sides: the servers that take part, and are here.
        busy: of each work, the greatest share of a core that a process of the load generator used.
        late: of each work, how late its timers were at worst, in seconds.
    """

    options: Options
    peers: Peers
    sides: Sequence[Side]
    measurements: Measurements = field(default_factory=Measurements)
    busy: dict[str, dict[str, float]] = field(default_factory=dict)
    late: dict[str, dict[str, float]] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

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
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            files = certificates.make(folder, "bench") if secure else None
            certificate = None if files is None else (files.cert, files.key)
            ready: dict[str, Running] = {}

            async def start(side: Side) -> None:
                own = folder / side.key
                own.mkdir()
                try:
                    ready[side.name] = await side.start(self.peers, Wanted(own, certificate=certificate, **wanted))
                except RuntimeError as error:
                    self.failed(section, side.name, error)
                else:
                    stack.push_async_callback(ready[side.name].stop)

            await asyncio.gather(*(start(side) for side in sides if not secure or TLS in side.can))
            stands: list[Stand] = []
            for side in sides:
                if side.name in ready:
                    stand = Stand(side, ready[side.name], [], settles=not self.options.tiny)
                    for _ in range(generators):
                        remote = Remote(
                            side.dialect,
                            stand.running.port,
                            next(self._numbers),
                            self._health_of(section.key, side.name),
                            None if certificate is None else certificate[0],
                        )
                        stack.push_async_callback(remote.stop)
                        await remote.start()
                        stand.remotes.append(remote)
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
