"""``python -m networks SEED SEEDS [SITUATION ...]``: each situation on each transport, in a browser and in Node.

NETWORKS_AT_ONCE=30: how many share the machine. NETWORKS_SCALE=small: that of ``make test``. NETWORKS_LOGS=1: what
was done is told of runs without fault, too.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import tempfile
from pathlib import Path

from support.cluster.local import LocalCluster

from networks.clients import Platform, chromium, in_node, install
from networks.judge import Counts
from networks.situations import SITUATIONS
from networks.stage import CONTROLLER, FULL, OPTIONS, SHORT_HEARTBEATS, SMALL, Report, play

AT_ONCE = int(os.environ.get("NETWORKS_AT_ONCE", "30"))
"""Runs that share the machine."""
ROW = "{:<26} {:<16} {:<8} {:>5} {:>8} {:>9} {:>8} {:>6} {:>5} {:>5} {:>6} {:>7}"
HEAD = ("situation", "transport", "platform", "seeds", "messages", *list(Counts.__annotations__)[1:], "back")


async def main(seed: int, count: int, names: list[str]) -> int:
    """Run them all, as many side by side as the machine bears; return how many runs found something."""
    small = os.environ.get("NETWORKS_SCALE") == "small"
    scale = SMALL if small else FULL
    options = (*OPTIONS, *(SHORT_HEARTBEATS if small else ()))
    turns = asyncio.Semaphore(AT_ONCE)
    found = 0
    say(ROW.format(*HEAD))
    with tempfile.TemporaryDirectory() as folder:
        await install(Path(folder, "node"))
        async with LocalCluster(CONTROLLER, Path(folder, "data"), *options) as cluster, chromium() as browser:
            platforms: dict[str, Platform] = {"browser": browser.profile, "node": in_node(Path(folder, "node"))}

            async def one(name: str, transport: str, platform: str, seed: int) -> Report:
                async with turns:
                    try:
                        return await play(SITUATIONS[name], transport, seed, scale, cluster, platforms[platform])
                    except Exception as error:  # one run that cannot be made is to end no other
                        return Report(Counts(), 0, [f"it could not be made: {error!r}"], [])

            rows = {
                (name, transport, platform): [
                    asyncio.create_task(one(name, transport, platform, each)) for each in range(seed, seed + count)
                ]
                for name, platform in itertools.product(names, platforms)
                if platform == "browser" or not SITUATIONS[name].in_browsers_only
                for transport in SITUATIONS[name].transports
            }
            for row, tasks in rows.items():
                found += show(*row, dict(enumerate(await asyncio.gather(*tasks), seed)))
    return found


def show(name: str, transport: str, platform: str, reports: dict[int, Report]) -> int:
    """Print a row, and what is wrong; return how many runs that is."""
    counts = sum((report.counts for report in reports.values()), Counts())
    back = f"{max(report.back for report in reports.values()):.1f} s"
    say(ROW.format(name, transport, platform, len(reports), *vars(counts).values(), back))
    wrong = {seed: report for seed, report in reports.items() if report.violations}
    for seed, report in (reports if "NETWORKS_LOGS" in os.environ else wrong).items():
        say(f"--- seed {seed}, what was done:")
        for line in report.log:
            say(f"    {line}")
        say("    what must not have happened:")
        for line in report.violations:
            say(f"    {line}")
    return len(wrong)


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(bool(asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] or list(SITUATIONS)))))
