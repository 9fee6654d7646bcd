"""The compose file for TLS between the services: each container is a machine, and its health check goes by TLS."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from support.cluster.compose import ComposeCluster, check_sessions, docker, logged_in
from support.network.certificates import Authority

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "hello"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeCluster]:
    folder = tmp_path_factory.mktemp("rpc-tls")
    authority = Authority(folder)
    cert, key = authority.issue("services")
    for path, name in ((cert, "cert.pem"), (key, "key.pem"), (authority.cert, "ca.pem")):
        path.rename(folder / name).chmod(0o644)  # the containers' user may read them
    folder.chmod(0o755)
    files = "docker-compose.yml:docker-compose.rpc-tls.yml"
    cluster = ComposeCluster(EXAMPLE, workers=2, COMPOSE_FILE=files, RPC_TLS_DIR=str(folder))
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()


async def test_sessions_outlive_stores_that_come_and_go_and_workers_that_are_killed(cluster: ComposeCluster) -> None:
    async with AsyncExitStack() as stack:
        before = await logged_in(cluster, stack, 8)
        await asyncio.to_thread(cluster.scale, 2, stores=2)
        await check_sessions(before)
        await docker("kill", "--signal", "KILL", cluster.containers("store")[0]["Id"])
        await docker("kill", "--signal", "KILL", cluster.containers("worker")[0]["Id"])
        await check_sessions(before)


def test_who_comes_without_a_certificate_is_not_let_in(cluster: ComposeCluster) -> None:
    for service, port in (("store", 7000), ("worker", 7100)):
        check = ["python", "-m", "socketcluster_runtime.health", f"127.0.0.1:{port}"]
        cluster.compose("exec", "-T", service, *check)
        plain = [f"-e=SOCKETCLUSTER_RPC_TLS_{name}=" for name in ("CERT", "KEY", "CA")]
        with pytest.raises(AssertionError, match="UNAVAILABLE"):
            cluster.compose("exec", "-T", *plain, service, *check)
