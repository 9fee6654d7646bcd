"""Broadcasts: to rooms of many sizes, in a small room among many clients, between processes of a server."""

from __future__ import annotations

from collections.abc import Sequence

from bench.peers.side import FAN_OUT, SPANNING
from bench.reporting.sections import Bars, Figure, Lines, Section
from bench.works.bench import Bench
from bench.works.stand import Stand

SIZES = (10, 200, 1000, 2000, 10_000)
SPANNED = (10, 200, 2000)
PACED = {10: 40.0}
"""Broadcasts a second to rooms of a size; to others there is one under way at a time."""
AMONG, ROOM = 10_000, 100
HOW = (
    "A client that is no member says something to the room. One broadcast is under way at a time; to 10 members "
    "there are 40 a second, as in a chat. Each member must get each one once, or the work has failed. CPU of all "
    "processes of the server by deliveries."
)


def _figures(key: str, sizes: tuple[int, ...], bench: Bench) -> tuple[Figure, ...]:
    return tuple(
        figure
        for size, members in bench.options.sizes(sizes)
        for figure in (
            Figure(f"{key}/{size}", f"{members:,}: CPU, µs a delivery"),
            Figure(f"{key}/{size}/reached", f"{members:,}: until all have it (p50), ms"),
        )
    )


async def _broadcast(bench: Bench, stand: Stand, key: str, size: int) -> None:
    rate = PACED.get(size, 0.0)
    seconds = bench.options.seconds * (2 if rate else 1)
    found, cpu = await stand.measured("broadcast", seconds=seconds, rooms=[f"room{size}"], rate=rate)
    bench.measurements.add(f"{key}/{size}", stand.name, cpu / found["delivered"] * 1e6)
    bench.measurements.add(f"{key}/{size}/reached", stand.name, found["reached"]["p50"] * 1e3)


async def run(bench: Bench) -> Section:
    """Measure rooms of many sizes."""
    section = Section(
        "broadcast",
        "Broadcast",
        HOW,
        _figures("broadcast", SIZES, bench),
        (
            Bars("broadcast-10", "Broadcast to 10, 40 a second: CPU, µs a delivery", "broadcast/10"),
            Bars("broadcast-200", "Broadcast to 200: CPU, µs a delivery", "broadcast/200"),
            Lines(
                "broadcast-sizes",
                "Broadcast: CPU, µs a delivery",
                "members",
                tuple((members, f"broadcast/{size}") for size, members in bench.options.sizes(SIZES)),
            ),
        ),
    )
    async with bench.stands(section, bench.able(FAN_OUT)) as stands:
        await _rooms(bench, section, stands, "broadcast", SIZES, "join")
    return section


async def run_room(bench: Bench) -> Section:
    """Measure a small room among many clients."""
    among, members = bench.options.many(AMONG), bench.options.many(ROOM)
    section = Section(
        "room",
        f"A room of {members} among {among:,} connections",
        HOW,
        _figures("room", (ROOM,), bench),
        (Bars("room", f"Broadcast to {members} of {among:,}: CPU, µs a delivery", f"room/{ROOM}"),),
    )

    async def prepare(stand: Stand) -> None:
        await stand.open(among + 1)
        await stand.call("join", room=f"room{ROOM}", count=members)
        await stand.call("broadcast", seconds=min(1.0, bench.options.seconds), rooms=[f"room{ROOM}"])
        await stand.settle()

    async with bench.stands(section, bench.able(FAN_OUT)) as stands:
        await bench.each(section, stands, prepare, f"{among:,} connections")
        await bench.rounds(
            section, stands, lambda stand: _broadcast(bench, stand, "room", ROOM), "room", bench.options.rounds
        )
    return section


async def run_spanning(bench: Bench) -> Section:
    """Measure rooms whose members are on two processes."""
    section = Section(
        "spanning",
        "Broadcast between two workers",
        HOW + " Half of the members are on each of two workers (Node: processes with the cluster adapter). Django "
        "Channels' broadcasts all go by Redis, so its figures above hold for any number of processes. SocketCluster "
        "on Node needs brokers of its own for that, and is left out.",
        _figures("spanning", SPANNED, bench),
        (Bars("spanning-10", "Broadcast to 10 on two workers, 40 a second: CPU, µs a delivery", "spanning/10"),),
    )
    async with bench.stands(section, bench.able(FAN_OUT, SPANNING), processes=2) as stands:
        await _rooms(bench, section, stands, "spanning", SPANNED, "join_spread", places=2)
    return section


async def _rooms(
    bench: Bench, section: Section, stands: Sequence[Stand], key: str, sizes: tuple[int, ...], join: str, **how: int
) -> None:
    """Measure broadcasts to ever larger rooms, to which clients come by the command ``join``."""
    there = 0
    for size, members in bench.options.sizes(sizes):
        more, there = members + 1 - there, members + 1

        async def prepare(stand: Stand, size: int = size, members: int = members, more: int = more) -> None:
            if more:
                await stand.open(more)
            await stand.call(join, room=f"room{size}", count=members, **how)
            await stand.call("broadcast", seconds=min(1.0, bench.options.seconds), rooms=[f"room{size}"])  # warm
            await stand.settle()

        async def measure(stand: Stand, size: int = size) -> None:
            await _broadcast(bench, stand, key, size)

        await bench.each(section, stands, prepare, f"{members} members")
        await bench.rounds(section, stands, measure, f"{members} members", bench.options.rounds)
