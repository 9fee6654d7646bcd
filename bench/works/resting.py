"""What a cluster costs that nobody uses."""

from __future__ import annotations

import asyncio

from bench.peers.side import MANY, SOCKETIO, SOCKETIO_NODE, WS
from bench.reporting.sections import Bars, Figure, Section
from bench.works.bench import Bench
from bench.works.stand import Stand

PARTS = ("balancer", "worker", "store", "launcher")


async def run(bench: Bench) -> Section:
    """Measure."""
    seconds = bench.options.seconds * 5
    section = Section(
        "resting",
        "A cluster at rest",
        f"1 balancer, 2 workers, 1 store; Node: 2 processes. CPU while nobody is connected, for {seconds:g} s.",
        (
            Figure("resting/all", "CPU, % of a core"),
            *(Figure(f"resting/{part}", f"of that, {part}{'s' * (part == 'worker')}") for part in PARTS),
        ),
        (Bars("resting", "A cluster at rest: CPU, % of a core", "resting/all"),),
    )

    async def measure(stand: Stand) -> None:
        loop = asyncio.get_running_loop()
        before, began = stand.running.cpu_by_part(), loop.time()
        await asyncio.sleep(seconds)
        now, took = stand.running.cpu_by_part(), loop.time() - began
        used = {part: (cpu - before.get(part, 0.0)) / took * 100 for part, cpu in now.items()}
        bench.measurements.add("resting/all", stand.name, sum(used.values()))
        for part in PARTS:
            if part in used:
                bench.measurements.add(f"resting/{part}", stand.name, used[part])

    async def rest(stand: Stand) -> None:
        await stand.settle(3)
        await asyncio.sleep(seconds)  # a store looks after its partitions for some seconds when it has started

    sides = [side for side in bench.able(MANY) if side.name in (SOCKETIO, SOCKETIO_NODE, WS)]
    async with bench.stands(section, sides, processes=2) as stands:
        await bench.each(section, stands, rest, "settled")
        await bench.rounds(section, stands, measure, "at rest", bench.options.few)
    return section
