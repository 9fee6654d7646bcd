"""A process that makes load: ``python -m socketcluster.bench.generator``, started by :mod:`generators`.

It reads a line of JSON, its plan and its number, connects, says ``ready``, and waits for a line with the time at which
to begin. It says how it goes a few times a second; it stops early at one more line, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import time
from typing import Any

import msgspec
import uvloop

from socketcluster.bench.modes import Crowd, FatalError
from socketcluster.bench.plan import Plan
from socketcluster.bench.tally import Snapshot
from socketcluster_runtime.sockets import descriptors

TELL_EVERY = 0.25
"""Seconds between two snapshots."""
TICK = 0.01
"""Seconds between two looks at how late a timer is."""


class Assignment(msgspec.Struct):
    """What a generator is told first."""

    plan: Plan
    index: int


class Begin(msgspec.Struct):
    """What it is told next: the time, of the monotonic clock in nanoseconds."""

    at: int


class Generator:
    """One process of a run."""

    def __init__(self, assignment: Assignment) -> None:
        self._crowd = Crowd(assignment.plan, assignment.index)
        self._phase = "connecting"
        self._fatal = ""
        self._measured_since: tuple[float, float] | None = None

    async def run(self, commands: asyncio.StreamReader) -> None:
        """Go through all phases; end early where standard input does."""
        telling = asyncio.create_task(self._tell_again())
        ticking = asyncio.create_task(self._tick())
        working = asyncio.create_task(self._work(commands))
        try:
            await working
            await commands.read()  # whoever started it may want to see more of it
        finally:
            for task in (telling, ticking, working):
                task.cancel()
            self._crowd.close()

    async def _work(self, commands: asyncio.StreamReader) -> None:
        try:
            await self._crowd.connect()
        except FatalError as error:
            self._fatal = str(error)
        self._enter("ready")
        line = await commands.readline()
        if not line or self._fatal:
            return
        begin = msgspec.json.decode(line, type=Begin)
        ending = asyncio.create_task(self._stop_when_told(commands))
        gc.collect()
        gc.freeze()
        await asyncio.sleep(max(0.0, (begin.at - time.monotonic_ns()) / 1e9))
        self._measured_since = time.monotonic(), time.process_time()
        self._enter("running")
        await self._crowd.run()
        self._measure()
        self._measured_since = None
        await self._crowd.settle()
        self._enter("done")
        await ending

    async def _stop_when_told(self, commands: asyncio.StreamReader) -> None:
        await commands.readline()
        self._crowd.stop()

    async def _tick(self) -> None:
        """Measure how late a timer is, which is how late answers are looked at."""
        while True:
            due = time.monotonic_ns() + round(TICK * 1e9)
            await asyncio.sleep(TICK)
            if self._measured_since is not None:
                self._crowd.tally.lag.record(time.monotonic_ns() - due)

    async def _tell_again(self) -> None:
        while True:
            await asyncio.sleep(TELL_EVERY)
            self._measure()
            self._tell()

    def _enter(self, phase: str) -> None:
        self._phase = phase
        self._tell()

    def _measure(self) -> None:
        if self._measured_since is not None:
            began, used = self._measured_since
            seconds = time.monotonic() - began
            if seconds > 0:
                self._crowd.tally.seconds = seconds
                self._crowd.tally.busiest = (time.process_time() - used) / seconds

    def _tell(self) -> None:
        snapshot = msgspec.json.encode(Snapshot(self._phase, self._crowd.tally, self._fatal))
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.buffer.write(snapshot + b"\n")
            sys.stdout.buffer.flush()


async def main() -> None:
    """Be told what to do, and do it."""
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: _reading(commands), sys.stdin)
    assignment = msgspec.json.decode(await commands.readline(), type=Assignment)
    await Generator(assignment).run(commands)


def _reading(commands: asyncio.StreamReader) -> Any:
    return asyncio.StreamReaderProtocol(commands)


if __name__ == "__main__":
    descriptors.raise_limit()
    gc.set_threshold(50_000, 20, 100)
    uvloop.run(main())
