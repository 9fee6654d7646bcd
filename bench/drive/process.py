"""The generator's process: ``python -m bench.drive.process DIALECT PORT NUMBER [AUTHORITY]``.

Each line of standard input is a command: the JSON of a list of its name and its arguments. Each has one line of answer:
the JSON of a map of what the command counted (``result``) or why it failed (``error``), the share of a core that this
process used meanwhile (``busy``), and how late its timers were, in seconds (``late``, the 99th percentile).
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from typing import Any

import uvloop

from bench.drive.driver import Driver
from bench.reporting.statistics import quantile
from socketcluster_runtime.sockets import descriptors

TICK = 0.005
"""Seconds between two looks at how late timers are."""


class Lateness:
    """Measures how late the loop's timers are."""

    def __init__(self) -> None:
        self._late: list[float] = []
        self._task: asyncio.Task[None] | None = None

    async def _look(self) -> None:
        while True:
            due = time.perf_counter() + TICK
            await asyncio.sleep(TICK)
            self._late.append(max(0.0, time.perf_counter() - due))

    def begin(self) -> None:
        """Start anew."""
        self._late = []
        self._task = asyncio.create_task(self._look())

    def end(self) -> float:
        """Return the 99th percentile, in seconds."""
        assert self._task is not None  # noqa: S101  # it was begun
        self._task.cancel()
        return quantile(sorted(self._late), 0.99) if self._late else 0.0


async def main(driver: Driver) -> None:
    """Obey until standard input ends."""
    lateness = Lateness()
    while line := await asyncio.to_thread(sys.stdin.readline):
        name, arguments = json.loads(line)
        lateness.begin()
        used, began = time.process_time(), time.perf_counter()
        said: dict[str, Any] = {}
        try:
            said["result"] = await getattr(driver, name)(**arguments)
        except Exception as error:
            said["error"] = f"{type(error).__name__}: {error}"
        took = time.perf_counter() - began
        said |= {"busy": (time.process_time() - used) / took, "late": lateness.end(), "took": took}
        print(json.dumps(said), flush=True)  # noqa: T201


if __name__ == "__main__":
    descriptors.raise_limit()
    gc.freeze()
    gc.set_threshold(200_000, 50, 100)  # a collection is a pause of the clock that measures
    dialect, port, number, *authority = sys.argv[1:]
    uvloop.run(main(Driver(dialect, int(port), int(number), authority[0] if authority else None)))
