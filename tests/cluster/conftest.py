"""The cluster that a scenario runs against: once as local processes, once as containers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from support.cluster.cluster import Cluster
from support.cluster.compose import ComposeCluster
from support.cluster.local import LocalCluster

CONTROLLER = Path(__file__).parents[1] / "controllers" / "scenario"
SESSION_TIMEOUT = "15"
"""Seconds: short enough to wait for, long enough for a balancer to start again on a busy machine."""


@pytest.fixture(scope="module")
def containers() -> Iterator[ComposeCluster]:
    cluster = ComposeCluster(CONTROLLER, workers=2, SOCKETCLUSTER_SESSION_TIMEOUT=SESSION_TIMEOUT)
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()


@pytest.fixture
async def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cluster]:
    if request.param == "containers":
        running: ComposeCluster = request.getfixturevalue("containers")
        running.scale(2)  # whatever the scenario before has killed
        yield running
        return
    options = ("--session-timeout", SESSION_TIMEOUT)
    async with LocalCluster(CONTROLLER / "controller.py", tmp_path / "data", *options) as local:
        yield local


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cluster" in metafunc.fixturenames:
        kinds = ["processes", pytest.param("containers", marks=[pytest.mark.docker, pytest.mark.timeout(300)])]
        metafunc.parametrize("cluster", kinds, indirect=True)
