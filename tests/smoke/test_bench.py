"""``make bench-smoke``: every work of ``make bench``, with tiny numbers; nothing is judged by its time."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.peers.side import EVENTS, FAN_OUT, MANY, SESSIONS, SIDES, SPANNING, TLS
from bench.works.registry import WORKS

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.timeout(900), pytest.mark.node]

FIGURES: dict[str, tuple[set[str], *tuple[str, ...]]] = {
    "acknowledge": ({EVENTS}, "acknowledge/cpu", "acknowledge/rate", "acknowledge/p50", "acknowledge/p99.9"),
    "acknowledge-tls": ({EVENTS, TLS}, "acknowledge-tls/cpu", "acknowledge-tls/p99"),
    "broadcast": ({FAN_OUT}, "broadcast/10", "broadcast/10/reached", "broadcast/200"),
    "spanning": ({FAN_OUT, SPANNING}, "spanning/10", "spanning/200/reached"),
    "room": ({FAN_OUT}, "room/100"),
    "connect": ({EVENTS}, "connect/cpu", "connect/rate", "storm/cpu", "storm/seconds", "storm/p99"),
    "idle": ({EVENTS}, "idle/all"),
    "idle-many": ({EVENTS, MANY}, "idle-many/all"),
    "growth-connections": (set(), "growth-connections/200", "growth-spread/1000"),
    "growth-payload": ({EVENTS}, "growth-payload/64", "growth-payload/65536"),
    "growth-channels": (set(), "growth-channels/1", "growth-channels/1000", "growth-channels/1000/join"),
    "growth-workers": (set(), "growth-workers/1", "growth-workers/4/rate"),
    "sessions": ({SESSIONS}, "sessions/set/cpu", "sessions/set/store", "sessions/get/rate"),
    "leaving": (set(), "leaving/came", "leaving/cpu", "leaving/last"),
    "resting": (set(), "resting/all"),
}
"""Of each work, what a server must be able to for it, and figures that it gives; without that, some servers only."""
SOMETIMES_NOTHING = {"idle/all", "idle-many/all", "resting/all"}
"""What a dozen clients, or half a second of rest, may take nothing of."""
PRINTED = {"balancer": r"balancer +an acknowledged event: +[\d.]+ µs CPU", "store": r"lmdb/everysec +get +[\d,]+ "}
"""What works that are programs of their own print."""


@dataclass(frozen=True, repr=False)
class Smoke:
    """A run."""

    report: str
    plots: dict[str, str]
    figures: dict[str, dict[str, list[float]]]
    missing: list[str]


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Smoke:
    """Installs what is missing of the peers, too."""
    folder = tmp_path_factory.mktemp("bench")
    report, figures = folder / "report.md", folder / "figures.json"
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--smoke", "--report", str(report), "--json", str(figures)],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    plots = {path.name: path.read_text() for path in report.with_name("plots").iterdir()}
    missing = re.findall(r"^NOT MEASURED: (.*)$", done.stderr, re.MULTILINE)
    return Smoke(report.read_text(), plots, json.loads(figures.read_text()), missing)


def test_every_work_is_tried() -> None:
    assert FIGURES.keys() | PRINTED.keys() == WORKS.keys()


def test_every_peer_is_there(smoke: Smoke) -> None:
    if smoke.missing and os.environ.get("CI") != "true":
        pytest.skip(f"not measured: {'; '.join(smoke.missing)}")
    assert smoke.missing == []


def test_nobody_fails(smoke: Smoke) -> None:
    assert re.findall(r"\*\*.* failed:\*\*.*", smoke.report) == []


@pytest.mark.parametrize("work", FIGURES)
def test_a_work_gives_each_server_positive_figures(work: str, smoke: Smoke) -> None:
    needed, *keys = FIGURES[work]
    here = [side for side in SIDES if not any(line.startswith(f"{side.name}: ") for line in smoke.missing)]
    able = {side.name for side in here if side.can.issuperset(needed)} if needed else set()
    for key in keys:
        found = smoke.figures[key]
        assert found.keys() == able if able else found, key
        for side, rounds in found.items():
            assert len(rounds) == 1, (key, side)
            assert math.isfinite(rounds[0]) if key in SOMETIMES_NOTHING else rounds[0] > 0, (key, side)


@pytest.mark.parametrize("work", PRINTED)
def test_a_program_of_its_own_prints_its_figures(work: str, smoke: Smoke) -> None:
    assert re.search(PRINTED[work], smoke.report)


def test_the_report_has_a_row_for_each_server_and_shows_each_plot(smoke: Smoke) -> None:
    for side in smoke.figures["acknowledge/cpu"]:
        assert re.search(rf"^\| {re.escape(side)} \| [\d.,]+ \|", smoke.report, re.MULTILINE), side
    shown = re.findall(r"\(plots/([\w-]+\.svg)\)", smoke.report)
    assert set(shown) == smoke.plots.keys()
    assert "## Targets" in smoke.report
    assert "## Is the load generator what is slow?" in smoke.report
    assert len(re.findall(r"^\| Python \| \d+\.\d+\.\d+", smoke.report, re.MULTILINE)) == 1
