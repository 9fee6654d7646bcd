"""Every work, in the order of the report."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from bench.reporting.sections import Section
from bench.works import acknowledge, broadcast, connect, growth, memory, others, resting, sessions
from bench.works.bench import Bench

WORKS: dict[str, Callable[[Bench], Awaitable[Section]]] = {
    "acknowledge": acknowledge.run,
    "acknowledge-tls": acknowledge.run_secure,
    "broadcast": broadcast.run,
    "spanning": broadcast.run_spanning,
    "room": broadcast.run_room,
    "connect": connect.run,
    "idle": memory.run,
    "idle-many": memory.run_many,
    "growth-connections": growth.run_connections,
    "growth-payload": growth.run_payload,
    "growth-channels": growth.run_channels,
    "growth-workers": growth.run_workers,
    "sessions": sessions.run,
    "leaving": memory.run_leaving,
    "resting": resting.run,
    "balancer": others.run_balancer,
    "store": others.run_store,
}
