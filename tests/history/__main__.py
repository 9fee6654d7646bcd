"""``python -m history SEED SECONDS ENGINE [COUNT]``: a run, or one for each of so many seeds."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

import structlog
from support.machine import disk

from history.plan import plan
from history.record import Call, Told
from history.run import Report, run

MOST_ALIKE = 3
"""Violations of a kind that are shown: one fault may break the same rule for every key."""


def main(seed: int, seconds: float, engine: str, count: int) -> int:
    """Return how many runs found something."""
    found = 0
    for each in range(seed, seed + count):
        made = plan(each, seconds, engine, can_mount=disk.lack() is None)
        say(str(made))
        report = asyncio.run(run(made, say))
        if report.violations:
            found += 1
            show(report)
            say(f"seed {each} of engine {engine} shows {len(report.violations)} violations")
    return found


def show(report: Report) -> None:
    """Print what is wrong."""
    say("--- what was done")
    for line in report.log:
        say(line)
    say("--- what must not have happened")
    alike: Counter[tuple[str, str]] = Counter()
    for violation in report.violations:
        kind = violation.rule, re.sub(r"\S*\d\S*", "", violation.text)
        alike[kind] += 1
        if alike[kind] <= MOST_ALIKE:
            say(str(violation))
    if (folder := os.environ.get("HISTORY_LOGS")) is not None:
        for name, text in report.store_logs.items():
            Path(folder, f"store-{name}.log").write_text(text)
        records: list[Call | Told] = [*report.history.calls, *report.history.told]
        Path(folder, "history").write_text("\n".join(map(str, sorted(records, key=lambda each: each.number))))


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    with tempfile.TemporaryFile("w") as log:
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(log))
        found = main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], int(sys.argv[4]) if len(sys.argv) > 4 else 1)
    sys.exit(bool(found))
