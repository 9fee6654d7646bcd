"""Acknowledged events: what one costs, and how long it takes at a fixed rate; plain and through TLS."""

from __future__ import annotations

from bench.peers.side import EVENTS
from bench.reporting.sections import Bars, Figure, Section
from bench.works.bench import Bench
from bench.works.stand import Stand

CLIENTS = 200
RATE = 2000
"""Events a second of all clients, where latency is measured."""
QUANTILES = ("p50", "p99", "p99.9")


async def run(bench: Bench) -> Section:
    """Measure without TLS."""
    return await _measure(bench, "acknowledge", "Acknowledged event", secure=False)


async def run_secure(bench: Bench) -> Section:
    """Measure through TLS."""
    return await _measure(bench, "acknowledge-tls", "Acknowledged event through TLS", secure=True)


async def _measure(bench: Bench, key: str, title: str, *, secure: bool) -> Section:
    clients, rate = bench.options.many(CLIENTS), bench.options.many(RATE)
    section = Section(
        key,
        title,
        f"{clients} connections. *Cost:* each has one event under way at a time, as fast as it goes; CPU of all "
        f"processes of the server by the events that were acknowledged. *Latency:* {rate:,} events a second of all "
        "connections, sent at their times whether or not earlier ones were answered; from the write of an event to "
        "its answer." + (" The server ends TLS itself (here: the balancer does, and copies bytes)." if secure else ""),
        (
            Figure(f"{key}/cpu", "CPU, µs an event"),
            Figure(f"{key}/rate", "events a second"),
            *(Figure(f"{key}/{name}", f"latency {name}, ms") for name in QUANTILES),
            Figure(f"{key}/late", "the generator wrote late (p99), ms"),
        ),
        (
            Bars(f"{key}-cpu", f"{title}: CPU, µs", f"{key}/cpu"),
            Bars(f"{key}-p99", f"{title}, {rate:,} a second: latency, p99, ms", f"{key}/p99"),
        ),
    )

    async def prepare(stand: Stand) -> None:
        await stand.open(clients)
        await stand.call("acknowledge", seconds=min(1.0, bench.options.seconds))  # warm

    async def cost(stand: Stand) -> None:
        found, cpu = await stand.measured("acknowledge", seconds=bench.options.seconds)
        bench.measurements.add(f"{key}/cpu", stand.name, cpu / found["events"] * 1e6)
        bench.measurements.add(f"{key}/rate", stand.name, found["events"] / found["seconds"])

    async def latency(stand: Stand) -> None:
        found = await stand.call("paced", seconds=bench.options.seconds, rate=rate)
        for name in QUANTILES:
            bench.measurements.add(f"{key}/{name}", stand.name, found["kept"][name] * 1e3)
        bench.measurements.add(f"{key}/late", stand.name, found["late"]["p99"] * 1e3)

    async with bench.stands(section, bench.able(EVENTS), secure=secure) as stands:
        await bench.each(section, stands, prepare, f"{clients} connections")
        await bench.rounds(section, stands, cost, "cost", bench.options.rounds)
        await bench.rounds(section, stands, latency, "latency", bench.options.rounds)
    return section
