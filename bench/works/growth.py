"""How costs grow with connections, payload, channels and workers."""

from __future__ import annotations

import random

from bench.peers.side import CHANNELS, EVENTS, FAN_OUT, FLOOR, MANY, PYTHON_SOCKETIO, UVICORN, Side
from bench.reporting.sections import Figure, Lines, Section
from bench.works.bench import Bench
from bench.works.stand import Stand

WINDOW = 200
"""Events under way at a time."""
CONNECTIONS = (200, 1000, 8000)
SPREAD, PROCESSES = (1000, 50_000), 4
"""Connections over so many processes."""
PAYLOADS = (64, 1024, 16_384, 65_536)
CHANNELS_GROWN = (1, 1000, 10_000, 100_000)
SUBSCRIBERS = 1000
WORKERS = (1, 2, 4)


def _fast(bench: Bench, *abilities: str) -> list[Side]:
    """Return the servers that are worth the time: the slow ones show what they show in the other works."""
    return [side for side in bench.able(*abilities) if side.name not in (PYTHON_SOCKETIO, UVICORN, CHANNELS)]


async def _warm(bench: Bench, stand: Stand) -> None:
    """Have events acknowledged that are not measured, so that what compiles as it runs has done so."""
    await stand.call_each("acknowledge", seconds=min(1.0, bench.options.seconds), window=WINDOW)
    await stand.settle()


async def run_connections(bench: Bench) -> Section:
    """Measure an acknowledged event among ever more connections."""
    sizes = bench.options.sizes(CONNECTIONS)
    spread = bench.options.sizes(SPREAD)
    window = bench.options.many(WINDOW)
    section = Section(
        "growth-connections",
        "Growth with connections",
        f"An acknowledged event; {window} are under way at a time whatever the number of connections, which all have "
        f"their turn. The last columns: over {PROCESSES} processes of the server (here: {PROCESSES} workers, "
        f"{PROCESSES} balancers).",
        (
            *(Figure(f"growth-connections/{size}", f"{count:,}: CPU, µs") for size, count in sizes),
            *(Figure(f"growth-spread/{size}", f"{PROCESSES} processes, {count:,}: CPU, µs") for size, count in spread),
        ),
        (
            Lines(
                "growth-connections",
                "An acknowledged event: CPU, µs",
                "connections",
                tuple((count, f"growth-connections/{size}") for size, count in sizes),
            ),
        ),
    )
    async with bench.stands(section, _fast(bench, EVENTS)) as stands:
        await _connections(bench, section, stands, "growth-connections", sizes)
    for side in _fast(bench, EVENTS, MANY):  # each alone, for it takes many descriptors and much memory
        async with bench.stands(section, [side], generators=PROCESSES, processes=PROCESSES, fronts=PROCESSES) as stands:
            await _connections(bench, section, stands, "growth-spread", spread)
    return section


async def _connections(
    bench: Bench, section: Section, stands: list[Stand], key: str, sizes: list[tuple[int, int]]
) -> None:
    there = 0
    for size, count in sizes:
        more, there = count - there, count

        async def prepare(stand: Stand, more: int = more) -> None:
            if more:
                await stand.open(more)
            await _warm(bench, stand)

        async def measure(stand: Stand, size: int = size) -> None:
            window = max(1, bench.options.many(WINDOW) // len(stand.remotes))
            used = stand.running.cpu()
            found = await stand.call_each("acknowledge", seconds=bench.options.seconds, window=window)
            cost = (stand.running.cpu() - used) / sum(one["events"] for one in found)
            bench.measurements.add(f"{key}/{size}", stand.name, cost * 1e6)

        await bench.each(section, stands, prepare, f"{count:,} connections")
        await bench.rounds(section, stands, measure, f"{count:,} connections", bench.options.rounds)


async def run_payload(bench: Bench) -> Section:
    """Measure an acknowledged event that gets ever larger."""
    clients = bench.options.many(50)
    section = Section(
        "growth-payload",
        "Growth with payload",
        f"An acknowledged event with a text of so many bytes, which comes back; {clients} connections, each with one "
        "under way.",
        tuple(Figure(f"growth-payload/{size}", f"{size:,} B: CPU, µs") for size in PAYLOADS),
        (
            Lines(
                "growth-payload",
                "An acknowledged event: CPU, µs",
                "bytes",
                tuple((size, f"growth-payload/{size}") for size in PAYLOADS),
            ),
        ),
    )

    async def prepare(stand: Stand) -> None:
        await stand.open(clients)
        await stand.call("check", size=PAYLOADS[-1])
        await _warm(bench, stand)

    async def measure(stand: Stand) -> None:
        for size in PAYLOADS:
            found, cpu = await stand.measured("acknowledge", seconds=bench.options.seconds / 2, payload=size)
            bench.measurements.add(f"growth-payload/{size}", stand.name, cpu / found["events"] * 1e6)

    async with bench.stands(section, bench.able(EVENTS)) as stands:
        await bench.each(section, stands, prepare, f"{clients} connections")
        await bench.rounds(section, stands, measure, "payloads", bench.options.rounds)
    return section


async def run_channels(bench: Bench) -> Section:
    """Measure a message to one of ever more channels."""
    sizes = bench.options.sizes(CHANNELS_GROWN)
    clients = bench.options.many(SUBSCRIBERS)
    section = Section(
        "growth-channels",
        "Growth with channels",
        f"So many rooms (SocketCluster: channels) with one member each, of {clients:,} clients; a message to one "
        "after the other in no order, one under way at a time.",
        (
            *(Figure(f"growth-channels/{size}", f"{count:,}: CPU, µs a message") for size, count in sizes),
            *(Figure(f"growth-channels/{size}/join", f"{count:,}: CPU, µs a join") for size, count in sizes[1:]),
        ),
        (
            Lines(
                "growth-channels",
                "A message to one of many rooms: CPU, µs",
                "rooms",
                tuple((count, f"growth-channels/{size}") for size, count in sizes),
            ),
        ),
    )
    async with bench.stands(section, [side for side in _fast(bench, FAN_OUT) if side.name != FLOOR]) as stands:
        await bench.each(section, stands, lambda stand: stand.open(clients), f"{clients:,} connections")
        for size, count in sizes:
            names = [f"room{number}" for number in range(count)]
            random.Random(size).shuffle(names)  # noqa: S311  # it keeps no secret

            async def prepare(stand: Stand, size: int = size, count: int = count) -> None:
                _, cpu = await stand.measured("join_many", rooms=count)
                bench.measurements.add(f"growth-channels/{size}/join", stand.name, cpu / count * 1e6)
                await stand.settle()

            async def measure(stand: Stand, size: int = size, names: list[str] = names) -> None:
                found, cpu = await stand.measured("broadcast", seconds=bench.options.seconds, rooms=names[:5000])
                bench.measurements.add(f"growth-channels/{size}", stand.name, cpu / found["delivered"] * 1e6)

            await bench.each(section, stands, prepare, f"{count:,} rooms")
            await bench.rounds(section, stands, measure, f"{count:,} rooms", bench.options.rounds)
    return section


async def run_workers(bench: Bench) -> Section:
    """Measure an acknowledged event by ever more processes."""
    clients = bench.options.many(400)
    section = Section(
        "growth-workers",
        "Growth with workers",
        f"An acknowledged event; {clients} connections, each with one under way, to so many processes of the server. "
        "How many events a second there are says something only where the machine has cores for all of them and for "
        "the load generator.",
        tuple(
            figure
            for count in WORKERS
            for figure in (
                Figure(f"growth-workers/{count}", f"{count}: CPU, µs"),
                Figure(f"growth-workers/{count}/rate", f"{count}: a second"),
            )
        ),
        (
            Lines(
                "growth-workers",
                "Acknowledged events a second",
                "workers",
                tuple((count, f"growth-workers/{count}/rate") for count in WORKERS),
            ),
        ),
    )
    for count in WORKERS:

        async def prepare(stand: Stand) -> None:
            await stand.open(clients)
            await _warm(bench, stand)

        async def measure(stand: Stand, count: int = count) -> None:
            used = stand.running.cpu()
            found = await stand.call_each("acknowledge", seconds=bench.options.seconds)
            events = sum(one["events"] for one in found)
            bench.measurements.add(f"growth-workers/{count}", stand.name, (stand.running.cpu() - used) / events * 1e6)
            rate = sum(one["events"] / one["seconds"] for one in found)
            bench.measurements.add(f"growth-workers/{count}/rate", stand.name, rate)

        async with bench.stands(section, _fast(bench, EVENTS, MANY), generators=2, processes=count) as stands:
            await bench.each(section, stands, prepare, f"{clients} connections")
            await bench.rounds(section, stands, measure, f"{count} workers", bench.options.rounds)
    return section
