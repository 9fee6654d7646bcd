"""Memory: of idle connections, few and many, and what stays when very many clients have come and left."""

from __future__ import annotations

import time

from bench.drive.remote import GeneratorError
from bench.peers.side import EVENTS, MANY, SOCKETIO, SOCKETIO_NODE
from bench.reporting.sections import Bars, Figure, Lines, Section
from bench.works.bench import Bench
from bench.works.stand import Stand

IDLE = 10_000
MUCH, PROCESSES = 50_000, 4
WARM = 100
TENTHS = 10
SECONDS = {"here": 480.0, "peer": 60.0}
"""That clients come and leave, at most."""
SESSION_SECONDS = 2.0
"""For which this server keeps the session of a client that has left, where it is measured what stays."""


def _figures(key: str) -> tuple[Figure, ...]:
    return (
        Figure(f"{key}/all", "KB a connection, all processes"),
        Figure(f"{key}/worker", "of that, workers"),
        Figure(f"{key}/balancer", "balancers"),
        Figure(f"{key}/store", "stores"),
    )


async def run(bench: Bench) -> Section:
    """Measure idle connections to one process."""
    count = bench.options.many(IDLE)
    section = Section(
        "idle",
        f"Idle connections: {count:,}",
        f"What {count:,} connections that have greeted and do nothing take of memory (PSS of all processes, less what "
        f"it was after {min(WARM, count)} had been there), by their number.",
        _figures("idle"),
        (Bars("idle", "An idle connection: KB", "idle/all"),),
    )
    for side in bench.able(EVENTS):  # each alone: what is cached is nobody else's
        async with bench.stands(section, [side]) as stands:
            await bench.each(section, stands, lambda stand: _idle(bench, stand, "idle", count), f"{count:,} idle")
    return section


async def run_many(bench: Bench) -> Section:
    """Measure more idle connections than one process may have."""
    count = bench.options.many(MUCH)
    section = Section(
        "idle-many",
        f"Idle connections: {count:,} over {PROCESSES} workers",
        f"The same with {count:,} connections over {PROCESSES} processes (here: {PROCESSES} workers and as many "
        "balancers, as a process may have 20,000 descriptors on many machines).",
        _figures("idle-many"),
        (Bars("idle-many", f"An idle connection of {count:,}: KB", "idle-many/all"),),
    )
    for side in bench.able(EVENTS, MANY):
        async with bench.stands(section, [side], generators=PROCESSES, processes=PROCESSES, fronts=PROCESSES) as stands:
            await bench.each(section, stands, lambda stand: _idle(bench, stand, "idle-many", count), f"{count:,} idle")
    return section


async def _idle(bench: Bench, stand: Stand, key: str, count: int) -> None:
    await stand.open(min(WARM, count) * len(stand.remotes))
    await stand.call_each("close")
    await stand.settle()
    before = stand.running.memory_by_part()
    await stand.open(count)
    await stand.settle()
    now = stand.running.memory_by_part()
    grown = {part: (bytes_ - before.get(part, 0)) / count / 1024 for part, bytes_ in now.items()}
    bench.measurements.add(f"{key}/all", stand.name, sum(grown.values()))
    for part in ("worker", "balancer", "store"):
        if part in grown:
            bench.measurements.add(f"{key}/{part}", stand.name, grown[part])
    lost = sum(found["lost"] for found in await stand.call_each("close"))
    if lost:
        raise GeneratorError(f"{lost} of {count} connections were lost meanwhile")


async def run_leaving(bench: Bench) -> Section:
    """Measure what stays of clients that have come and left."""
    wanted = bench.options.leaves
    section = Section(
        "leaving",
        f"After connecting and leaving {wanted:,} times",
        "Clients connect, greet, have an event acknowledged and leave, 100 at a time. Memory of all processes (PSS), "
        f"at each tenth, {SESSION_SECONDS:g} s after the last one left (here sessions are kept for that long in this "
        f"work). It ends after {SECONDS['here'] / 60:g} minutes, a peer's after {SECONDS['peer'] / 60:g}, with as "
        "many as there were until then. *What stays* is what was added between the first tenth and the last.",
        (
            Figure("leaving/came", "clients"),
            Figure("leaving/first", "MB after the first tenth"),
            Figure("leaving/last", "MB at the end"),
            Figure("leaving/stays", "what stays, bytes a client"),
            Figure("leaving/cpu", "CPU, µs a client that comes and leaves"),
        ),
        (
            Lines(
                "leaving",
                "Memory, MB",
                "clients that came and left, tenths",
                tuple((n + 1, f"leaving/{n}") for n in range(TENTHS)),
            ),
        ),
    )
    sides = [side for side in bench.able(EVENTS) if side.name in (SOCKETIO, SOCKETIO_NODE)]
    for side in sides:
        async with bench.stands(section, [side], session_timeout=SESSION_SECONDS) as stands:
            await bench.each(section, stands, lambda stand: _leaving(bench, section, stand), "came and left")
    return section


async def _leaving(bench: Bench, section: Section, stand: Stand) -> None:
    each = max(1, bench.options.leaves // TENTHS)
    seconds = SECONDS["here" if stand.name == SOCKETIO else "peer"] / TENTHS
    held, came, used = [], 0, stand.running.cpu()
    for tenth in range(TENTHS):
        end, due = time.monotonic() + seconds, each
        while due and (time.monotonic() < end or due == each):
            found = await stand.call("churn", count=min(due, 2000))
            if found["errors"]:
                section.notes.append(f"{stand.name}: {found['errors']}")
            due -= min(due, 2000)
            came += found["came"]
        await stand.settle(SESSION_SECONDS + 5)
        held.append(sum(stand.running.memory_by_part().values()))
        bench.measurements.add(f"leaving/{tenth}", stand.name, held[-1] / 2**20)
        if tenth == 0:
            first = came
    bench.measurements.add("leaving/cpu", stand.name, (stand.running.cpu() - used) / came * 1e6)
    bench.measurements.add("leaving/came", stand.name, came)
    bench.measurements.add("leaving/first", stand.name, held[0] / 2**20)
    bench.measurements.add("leaving/last", stand.name, held[-1] / 2**20)
    bench.measurements.add("leaving/stays", stand.name, (held[-1] - held[0]) / (came - first))
