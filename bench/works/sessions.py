"""Session get and set: events whose handlers ask the store."""

from __future__ import annotations

from bench.peers.side import SESSIONS
from bench.reporting.sections import Bars, Figure, Section
from bench.works.bench import Bench
from bench.works.stand import Stand

CLIENTS = 200
WORKS = {"set": "put", "get": "fetch"}
PARTS = ("worker", "store")


async def run(bench: Bench) -> Section:
    """Measure."""
    clients = bench.options.many(CLIENTS)
    section = Section(
        "sessions",
        "Session get and set",
        f"{clients} connections, each with one event under way at a time, whose handler sets a value of its session, "
        "or gets it, before the event is acknowledged. No peer has sessions that survive its processes; what the "
        "store itself costs beside redis-server is under *Store*.",
        tuple(
            figure
            for name in WORKS
            for figure in (
                Figure(f"sessions/{name}/rate", f"{name}: a second"),
                Figure(f"sessions/{name}/cpu", f"{name}: CPU, µs"),
                *(Figure(f"sessions/{name}/{part}", f"of that, {part}") for part in PARTS),
            )
        ),
        (Bars("sessions-set", "An event that sets a session's value: CPU, µs", "sessions/set/cpu"),),
    )

    async def prepare(stand: Stand) -> None:
        await stand.open(clients)
        for event in WORKS.values():
            await stand.call("acknowledge", seconds=min(1.0, bench.options.seconds), event=event)

    async def measure(stand: Stand) -> None:
        for name, event in WORKS.items():
            before = stand.running.cpu_by_part()
            found = await stand.call("acknowledge", seconds=bench.options.seconds, event=event)
            now = stand.running.cpu_by_part()
            used = {part: (seconds - before.get(part, 0.0)) / found["events"] * 1e6 for part, seconds in now.items()}
            bench.measurements.add(f"sessions/{name}/rate", stand.name, found["events"] / found["seconds"])
            bench.measurements.add(f"sessions/{name}/cpu", stand.name, sum(used.values()))
            for part in PARTS:
                bench.measurements.add(f"sessions/{name}/{part}", stand.name, used[part])

    async with bench.stands(section, bench.able(SESSIONS)) as stands:
        await bench.each(section, stands, prepare, f"{clients} connections")
        await bench.rounds(section, stands, measure, "set and get", bench.options.rounds)
    return section
