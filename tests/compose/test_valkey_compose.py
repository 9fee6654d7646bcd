"""The compose file with Valkey: stores that keep nothing are killed, and Valkey is restarted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from support.cluster.compose import ComposeCluster, check_sessions, docker, logged_in

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "hello"


@pytest.fixture(scope="module")
def cluster() -> Iterator[ComposeCluster]:
    cluster = ComposeCluster(EXAMPLE, workers=2, stores=3, COMPOSE_FILE="docker-compose.yml:docker-compose.valkey.yml")
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()


def test_valkey_is_not_root_nor_writable_nor_reachable(cluster: ComposeCluster) -> None:
    (container,) = cluster.containers("valkey")
    assert container["Config"]["User"] == "10001:10001"
    assert container["HostConfig"]["ReadonlyRootfs"]
    assert container["HostConfig"]["CapDrop"] == ["ALL"]
    assert not any(container["NetworkSettings"]["Ports"].values())
    assert container["State"]["Health"]["Status"] == "healthy"


def test_valkey_answers_only_to_its_password(cluster: ComposeCluster) -> None:
    assert "NOAUTH" in cluster.compose("exec", "--no-TTY", "valkey", "valkey-cli", "ping")


async def test_sessions_outlive_stores_and_valkey_s_restart(cluster: ComposeCluster) -> None:
    async with AsyncExitStack() as stack:
        before = await logged_in(cluster, stack, 12)  # over all stores, surely
        await docker("kill", "--signal", "KILL", cluster.containers("store")[0]["Id"])
        await check_sessions(before)
        await asyncio.to_thread(cluster.compose, "restart", "valkey")
        await check_sessions(before)
