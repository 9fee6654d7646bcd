"""The runs of a test module, made side by side: most of a run is waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.cluster.local import LocalCluster

from networks.clients import Platform
from networks.situations import SITUATIONS
from networks.stage import CONTROLLER, OPTIONS, SHORT_HEARTBEATS, SMALL, Report, play

AT_ONCE = 6
SEED = 1

Run = tuple[str, str]
"""A situation and a transport."""


def wanted_here(request: pytest.FixtureRequest) -> list[Run]:
    """Return the runs that the tests of a module's fixture ask for, in their order."""
    here = [item for item in request.session.items if isinstance(item, pytest.Function) and item.path == request.path]
    return [(str(item.callspec.params["situation"]), str(item.callspec.params["transport"])) for item in here]


@asynccontextmanager
async def runs(wanted: Iterable[Run], platform: Platform, data: Path) -> AsyncIterator[dict[Run, asyncio.Task[Report]]]:
    """Begin runs at a small scale, on a cluster of their own; each is a task that gives its report."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(situation: str, transport: str) -> Report:
        async with turns:
            return await play(SITUATIONS[situation], transport, SEED, SMALL, cluster, platform)

    async with LocalCluster(CONTROLLER, data, *OPTIONS, *SHORT_HEARTBEATS) as cluster:
        tasks = {run: asyncio.create_task(one(*run)) for run in wanted}
        try:
            yield tasks
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
