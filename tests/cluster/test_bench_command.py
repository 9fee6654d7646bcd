"""`socketcluster bench` against a cluster that has the controller which it is shipped with."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.cluster.local import ROOT, LocalCluster

EXAMPLE = ROOT / "examples" / "bench" / "controller.py"
SHORT = ("-c", "8", "-d", "1", "--processes", "2")


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    async with LocalCluster(EXAMPLE, tmp_path / "data") as cluster:
        yield cluster


async def bench(cluster: LocalCluster, *options: str) -> tuple[dict[str, Any], int | None]:
    """Return the report and the exit status of a run."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "socketcluster", "bench", cluster.url, "--json", *options),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    report: dict[str, Any] = json.loads(said)
    return report, process.returncode


async def test_messages_have_their_answers_in_each_protocol(local: LocalCluster) -> None:
    for protocol in ("socketio", "socketcluster", "engineio"):
        report, status = await bench(local, *SHORT, "--protocol", protocol)
        assert (status, report["ok"], report["errors"]) == (0, True, {}), report
        assert report["messages"]["answered"] == report["messages"]["sent"] > 8
        assert report["latency_ms"]["count"] == report["messages"]["answered"]
    report, status = await bench(local, *SHORT, "--protocol", "socketcluster", "--event", "bench", "-r", "100")
    assert (status, report["messages"]["sent"], report["messages"]["answered"]) == (0, 100, 100), report


async def test_broadcasts_reach_every_member_on_whatever_worker(local: LocalCluster) -> None:
    for protocol in ("socketio", "socketcluster"):
        report, status = await bench(local, *SHORT, "--mode", "broadcast", "--protocol", protocol, "-r", "20")
        assert status == 0, report
        assert report["deliveries"]["members"] == 8
        assert report["deliveries"]["delivered"] == report["deliveries"]["expected"] == 160


async def test_connections_are_held_and_all_come_back_in_a_storm(local: LocalCluster) -> None:
    for mode in ("idle", "storm"):
        report, status = await bench(local, *SHORT, "--mode", mode)
        assert (status, report["connections"]) == (0, {"wanted": 8, "opened": 8, "open": 8, "lost": 0}), report
    assert report["latency_ms"]["count"] == 8


async def test_who_cannot_connect_or_gets_no_answer_is_told_why(local: LocalCluster) -> None:
    report, status = await bench(local, *SHORT, "--origin", "http://evil.example")
    assert (status, report["connections"]["opened"]) == (1, 0)
    assert all(kind.startswith("HTTP 403") for kind in report["errors"])
    report, status = await bench(local, *SHORT, "--protocol", "socketcluster", "--event", "nothing")
    assert (status, report["ok"]) == (1, False)
