"""The browser client in a real browser in bad networks, at a small scale; ``make test-networks`` runs it at length."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from networks.clients import chromium
from networks.overlapped import Run, runs, wanted_here
from networks.situations import SITUATIONS
from networks.stage import Report

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400), pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reports(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[Run, asyncio.Task[Report]]]:
    async with (
        chromium() as browser,
        runs(wanted_here(request), browser.profile, tmp_path_factory.mktemp("networks")) as begun,
    ):
        yield begun


@pytest.mark.parametrize(
    ("situation", "transport"),
    [(name, transport) for name, situation in SITUATIONS.items() for transport in situation.transports],
)
async def test_nothing_is_lost_doubled_or_left_open(
    reports: dict[Run, asyncio.Task[Report]], situation: str, transport: str
) -> None:
    report = await reports[situation, transport]
    assert not report.violations, "\n".join([*report.log, *report.violations])
