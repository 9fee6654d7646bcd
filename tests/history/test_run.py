"""A minute of the history checker: ``make history`` runs it for longer, and by other seeds."""

from __future__ import annotations

import pytest
from support.machine import disk

from history.plan import plan
from history.run import run

pytestmark = pytest.mark.timeout(400)
"""Seconds: several processes under load, on a machine that may be busy; what never comes is waited for."""

SECONDS = 15


@pytest.mark.parametrize(
    ("engine", "seed"),
    [
        ("lmdb", 1),
        ("lmdb", 2),
        pytest.param("valkey", 1, marks=pytest.mark.valkey),
        pytest.param("valkey-cluster", 1, marks=pytest.mark.valkey),
    ],
)
async def test_nothing_is_lost_or_doubled_or_told_in_another_past(engine: str, seed: int) -> None:
    made = plan(seed, SECONDS, engine, can_mount=disk.lack() is None)
    report = await run(made)
    assert not report.violations, "\n".join([str(made), *report.log, *map(str, report.violations[:20])])
