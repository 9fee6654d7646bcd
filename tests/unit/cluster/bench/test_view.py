"""How a run is shown while it goes on."""

from __future__ import annotations

import asyncio
import io
from collections import deque

import pytest
from rich.console import Console
from support.worker.running import until

from socketcluster.bench import view
from socketcluster.bench.generators import Generators
from socketcluster.bench.plan import Mode, Plan
from socketcluster.bench.tally import Snapshot, Tally
from socketcluster.bench.view import View, sparkline


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "REFRESH", 0.001)
    monkeypatch.setattr(view, "LINE_EVERY", 0.001)


def run_of(mode: Mode) -> tuple[Generators, Tally]:
    run = Generators(Plan(url="http://a", mode=mode, connections=2))
    tally = Tally(opened=1, open=1)
    run._latest = [Snapshot("connecting", tally)]
    return run, tally


@pytest.mark.parametrize("mode", list(Mode))
async def test_without_a_terminal_there_are_lines(mode: Mode) -> None:
    run, tally = run_of(mode)
    file = io.StringIO()
    async with View(run, Console(file=file, width=120), lines=True):
        await until(lambda: "connecting: 1 of 2" in file.getvalue())
        run.phase = "running"
        tally.lost = 3
        tally.fail("reset")
        await until(lambda: "3 lost, 1 errors" in file.getvalue())
    assert file.getvalue().endswith("\n")
    assert "\x1b" not in file.getvalue()


@pytest.mark.parametrize("mode", list(Mode))
async def test_on_a_terminal_there_is_a_picture_that_goes_when_the_run_is_over(mode: Mode) -> None:
    run, tally = run_of(mode)
    file = io.StringIO()
    async with View(run, Console(file=file, width=100, force_terminal=True), lines=False):
        await until(lambda: "1 of 2" in file.getvalue())
        run.phase = "running"
        tally.answered = tally.delivered = tally.opened = 50
        tally.latency.record(5_000_000)
        tally.fail("reset by somebody")
        await until(lambda: "reset by somebody" in file.getvalue() and "of a core" in file.getvalue())
        await asyncio.sleep(0)
    assert file.getvalue().rstrip().endswith("\x1b[2K")  # erased


def test_a_sparkline_ends_with_the_last_value_and_its_highest_bar_is_the_most() -> None:
    assert sparkline(deque([0.0, 5.0, 10.0]), 40) == "▁▅█"
    assert sparkline(deque([1.0, 2.0, 4.0]), 2) == "▅█"
    assert sparkline(deque([0.0]), 40) == "▁"
    assert sparkline(deque(), 40) == ""
