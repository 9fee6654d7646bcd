"""The ratios that are wanted, beside those that were measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.peers.side import FLOOR, SOCKETCLUSTER, SOCKETCLUSTER_NODE, SOCKETIO, SOCKETIO_NODE
from bench.reporting.sections import Measurements


@dataclass(frozen=True)
class Target:
    """Something that is wanted, the less the better.

    Attributes:
        wanted: the most that it may be.
        measured: finds it in the measurements; ``None``: it was not measured.
    """

    text: str
    wanted: float
    measured: Callable[[Measurements], float | None]


def _to(figure: str, side: str, other: str) -> Callable[[Measurements], float | None]:
    return lambda found: found.ratio(figure, side, other)


def _growth(side: str, first: str, last: str) -> Callable[[Measurements], float | None]:
    def measured(found: Measurements) -> float | None:
        before, after = found.spread(first, side), found.spread(last, side)
        return after.middle / before.middle if before and after else None

    return measured


def _value(figure: str, side: str, times: float = 1.0) -> Callable[[Measurements], float | None]:
    def measured(found: Measurements) -> float | None:
        value = found.spread(figure, side)
        return value.middle * times if value else None

    return measured


def _worker_and_balancer(side: str) -> Callable[[Measurements], float | None]:
    def measured(found: Measurements) -> float | None:
        parts = [found.spread(f"idle/{part}", side) for part in ("worker", "balancer")]
        return sum(part.middle for part in parts if part) if all(parts) else None

    return measured


TARGETS = (
    Target("acknowledged event: Socket.IO here to Node's", 0.35, _to("acknowledge/cpu", SOCKETIO, SOCKETIO_NODE)),
    Target("acknowledged event: Socket.IO here to the floor", 2.0, _to("acknowledge/cpu", SOCKETIO, FLOOR)),
    Target("acknowledged event: SocketCluster here to the floor", 2.0, _to("acknowledge/cpu", SOCKETCLUSTER, FLOOR)),
    Target(
        "acknowledged event: SocketCluster here to Node's",
        0.25,
        _to("acknowledge/cpu", SOCKETCLUSTER, SOCKETCLUSTER_NODE),
    ),
    *(
        Target(
            f"acknowledged event: growth from 200 to 8,000 connections, {side}",
            1.25,
            _growth(side, "growth-connections/200", "growth-connections/8000"),
        )
        for side in (SOCKETIO, SOCKETCLUSTER)
    ),
    *(
        Target(
            f"acknowledged event: growth from 1,000 to 50,000 connections over four workers, {side}",
            1.25,
            _growth(side, "growth-spread/1000", "growth-spread/50000"),
        )
        for side in (SOCKETIO, SOCKETCLUSTER)
    ),
    *(
        Target(
            f"broadcast to {size:,}, a delivery: {side} to Socket.IO on Node",
            wanted,
            _to(f"broadcast/{size}", side, SOCKETIO_NODE),
        )
        for size, wanted in ((10, 0.5), (200, 0.6), (2000, 0.6))
        for side in (SOCKETIO, SOCKETCLUSTER)
    ),
    *(
        Target(
            f"a broadcast to 10 on two workers, all processes, ms: {side}",
            0.25,
            _value("spanning/10", side, 10 / 1000),
        )
        for side in (SOCKETIO, SOCKETCLUSTER)
    ),
    *(
        Target(f"new connection: {side} to Socket.IO on Node", 0.5, _to("connect/cpu", side, SOCKETIO_NODE))
        for side in (SOCKETIO, SOCKETCLUSTER)
    ),
    *(
        Target(f"idle connection, worker and balancer together, KB: {side}", 6.0, _worker_and_balancer(side))
        for side in (SOCKETIO, SOCKETCLUSTER)
    ),
    Target("an idle cluster's CPU, % of a core", 0.2, _value("resting/all", SOCKETIO)),
)
