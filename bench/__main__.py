"""Measures this server and its peers at the same work: ``make bench``, or ``python -m bench --help``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from bench.peers.install import default_folder, install
from bench.peers.side import SIDES, Side
from bench.reporting import page
from bench.reporting.machine import machine, versions
from bench.reporting.sections import Section
from bench.works.bench import Bench
from bench.works.registry import WORKS
from bench.works.servers import Servers
from bench.works.stand import Options
from socketcluster_runtime.sockets import descriptors

REPORT = Path(__file__).with_name("report.md")
SMOKE = Options(rounds=1, seconds=0.1, most=12, leaves=20, tiny=True)
"""Only to see that everything does what it says: nothing that this gives is a measurement."""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="bench", description="Measures this server and its peers at the same work.")
    names = ",".join(side.key for side in SIDES)
    parser.add_argument("--works", default=",".join(WORKS), help=f"of {','.join(WORKS)}; default: all")
    parser.add_argument("--servers", default=names, help=f"of {names}; default: all")
    parser.add_argument("--rounds", type=int, default=Options.rounds, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=Options.seconds, help="of a turn; default: %(default)s")
    parser.add_argument(
        "--most", type=int, default=Options.most, help="clients, or members, or rooms; default: no bound"
    )
    parser.add_argument(
        "--leaves", type=int, default=Options.leaves, help="clients that come and leave; default: %(default)s"
    )
    parser.add_argument(
        "--peers", type=Path, default=default_folder(), help="folder of the peers; default: %(default)s"
    )
    parser.add_argument("--report", type=Path, default=REPORT, help="default: bench/report.md")
    parser.add_argument("--json", type=Path, help="file for all figures of all rounds")
    parser.add_argument("--smoke", action="store_true", help="tiny numbers, to see that everything works")
    options = parser.parse_args(arguments)
    for name, known in (("works", WORKS), ("servers", names.split(","))):
        unknown = set(getattr(options, name).split(",")) - set(known)
        if unknown:
            parser.error(f"--{name}: unknown: {', '.join(sorted(unknown))}")
    return options


async def run(options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Install, measure, and write the report."""
    began, date = time.monotonic(), datetime.now(UTC)
    wanted = [side for side in SIDES if side.key in options.servers.split(",")]
    peers = install(options.peers, lambda line: print(line, file=sys.stderr, flush=True))  # noqa: T201
    lacks: dict[str, str] = {side.name: lack for side in wanted if (lack := side.lack(peers)) is not None}
    for name, lack in lacks.items():
        print(f"NOT MEASURED: {name}: {lack}", file=sys.stderr, flush=True)  # noqa: T201
    sides: list[Side] = [side for side in wanted if side.name not in lacks]
    sized = SMOKE if options.smoke else Options(options.rounds, options.seconds, options.most, options.leaves)
    sections: list[Section] = []
    async with Servers(peers, keep=sized.tiny) as servers:
        bench = Bench(sized, servers, sides)
        for key in (key for key in WORKS if key in options.works.split(",")):
            bench.say(f"{(time.monotonic() - began) / 60:5.1f} min  {key}")
            sections.append(await WORKS[key](bench))
            about = page.Run(
                f"{date:%Y-%m-%d %H:%M} UTC",
                (time.monotonic() - began) / 60,
                " ".join(arguments),
                machine(),
                versions(peers),
                {side.name: side.configuration for side in sides},
                lacks,
                bench.busy,
                bench.late,
            )
            page.write(options.report, about, sections, bench.measurements)  # each time: a run may break
            if options.json:
                options.json.write_text(json.dumps(bench.measurements.values, indent=1))
    print(options.report)  # noqa: T201


def main() -> None:
    """Measure; the report is what is left."""
    descriptors.raise_limit()
    arguments = sys.argv[1:]
    uvloop.run(run(parse(arguments), arguments))


if __name__ == "__main__":
    main()
