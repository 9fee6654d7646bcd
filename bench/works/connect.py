"""New connections: what one costs, how many a second, and what happens when all come back at once."""

from __future__ import annotations

from bench.peers.side import EVENTS
from bench.reporting.sections import Bars, Figure, Section
from bench.works.bench import Bench
from bench.works.stand import Stand

CLIENTS = 10_000
AT_ONCE = 100


async def run(bench: Bench) -> Section:
    """Measure."""
    clients = bench.options.many(CLIENTS)
    section = Section(
        "connect",
        "New connections, and a storm",
        f"*Rate:* {clients:,} clients connect, {AT_ONCE} of them at a time: TCP, the WebSocket's handshake, the "
        f"protocol's greeting. *Storm:* all {clients:,} lose their connection, and as soon as the server is done with "
        "that all connect at once; who is refused tries again after half a second to a second. The CPU is that of "
        "all processes of the server, for coming only.",
        (
            Figure("connect/cpu", "CPU, µs a connection"),
            Figure("connect/rate", "connections a second"),
            Figure("storm/cpu", "storm: CPU, µs a connection"),
            Figure("storm/seconds", "storm: until all are served, s"),
            Figure("storm/p99", "storm: p99, s"),
            Figure("storm/vain", "storm: tries in vain"),
        ),
        (
            Bars("connect-cpu", "A new connection: CPU, µs", "connect/cpu"),
            Bars("storm", f"{clients:,} clients at once: seconds until all are served", "storm/seconds"),
        ),
    )

    async def prepare(stand: Stand) -> None:
        await stand.open(min(200, clients))  # warm
        await stand.call("close")
        await stand.settle()

    def told(stand: Stand, when: str, vain: dict[str, int]) -> None:
        for why, times in vain.items():
            section.notes.append(f"{when}, {stand.name}: {times:,} tries in vain: {why}")

    async def measure(stand: Stand) -> None:
        found, cpu = await stand.measured("come", count=clients, at_once=AT_ONCE)
        told(stand, f"{AT_ONCE} at a time", found["vain"])
        bench.measurements.add("connect/cpu", stand.name, cpu / clients * 1e6)
        bench.measurements.add("connect/rate", stand.name, clients / found["seconds"])
        await stand.call("check")
        await stand.call("close")
        await stand.settle()
        found, cpu = await stand.measured("come", count=clients)
        bench.measurements.add("storm/cpu", stand.name, cpu / clients * 1e6)
        bench.measurements.add("storm/seconds", stand.name, found["seconds"])
        bench.measurements.add("storm/p99", stand.name, found["served"]["p99"])
        bench.measurements.add("storm/vain", stand.name, sum(found["vain"].values()))
        told(stand, "Storm", found["vain"])
        await stand.call("close")
        await stand.settle()

    async with bench.stands(section, bench.able(EVENTS)) as stands:
        await bench.each(section, stands, prepare, "warm")
        await bench.rounds(section, stands, measure, f"{clients:,} connections, and a storm", bench.options.few)
    return section
