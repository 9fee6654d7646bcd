"""The compose file itself, with the example that a newcomer runs first."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from support.clients.browser import Browser, Messages
from support.cluster.cluster import runs, until
from support.cluster.compose import ComposeCluster, check_sessions, docker, logged_in

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

GIB = 1024**3
EXAMPLE = Path(__file__).parents[2] / "examples" / "hello"


@pytest.fixture(scope="module")
def cluster() -> Iterator[ComposeCluster]:
    cluster = ComposeCluster(EXAMPLE, workers=4)
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()


async def test_the_example_works_through_a_kill_and_scaling_down_and_up(cluster: ComposeCluster) -> None:
    names = await cluster.serving_workers(at_least=4)
    assert len(names) == 4
    async with cluster.browser() as ada, cluster.browser() as bob:
        async with AsyncExitStack() as stack:
            tabs = {
                browser: [await stack.enter_async_context(browser.engine()) for _ in range(2)] for browser in (ada, bob)
            }
            await _check_rand(tabs)
            before = {browser: await sockets[0].call("who") for browser, sockets in tabs.items()}
            assert before[ada]["session"] != before[bob]["session"]
            for sockets in tabs.values():
                await sockets[0].call("login", {})
            await cluster.kill("worker", before[ada]["worker"])
            await tabs[ada][0].closed.wait()
        await check_sessions(before)
        assert len(await cluster.serving_workers(at_least=3)) == 3

        await asyncio.to_thread(cluster.scale, 2)
        assert len(await cluster.worker_names()) == 2
        await cluster.serving_workers(at_least=2)
        await check_sessions(before)

        await asyncio.to_thread(cluster.scale, 4)
        await cluster.serving_workers(at_least=4)
        await check_sessions(before)


async def test_stores_that_come_and_go_and_are_killed_and_paused_keep_every_session(cluster: ComposeCluster) -> None:
    async with AsyncExitStack() as stack:
        before = await logged_in(cluster, stack, 12)  # over all stores, surely
        await asyncio.to_thread(cluster.scale, 4, stores=3)
        await check_sessions(before)
        killed, paused = (container["Id"] for container in cluster.containers("store")[:2])
        await docker("kill", "--signal", "KILL", killed)
        await check_sessions(before)
        await docker("pause", paused)
        try:
            await check_sessions(before)
        finally:
            await docker("unpause", paused)
        await check_sessions(before)
        await asyncio.to_thread(cluster.scale, 4, stores=1)
        await check_sessions(before)


async def test_the_page_is_served(cluster: ComposeCluster) -> None:
    async with cluster.browser() as browser:
        page = await browser.http.get("/")
        assert "socketCluster.connect()" in page.text
        script = await browser.http.get("/socketcluster.js")
        assert script.status_code == 200
        assert script.text == (EXAMPLE.parents[1] / "clients" / "js" / "socketcluster.js").read_text()


def test_no_container_is_root_or_writable_or_reachable_but_by_the_balancer_s_port(cluster: ComposeCluster) -> None:
    for service in ("balancer", "worker", "store"):
        for container in cluster.containers(service):
            host: dict[str, Any] = container["HostConfig"]
            assert container["Config"]["User"] == "10001:10001"
            assert host["ReadonlyRootfs"]
            assert host["CapDrop"] == ["ALL"]
            assert "no-new-privileges:true" in host["SecurityOpt"]
            published = [port for port, bindings in container["NetworkSettings"]["Ports"].items() if bindings]
            assert published == (["8000/tcp"] if service == "balancer" else [])
            assert container["State"]["Health"]["Status"] == "healthy"


def test_every_container_has_limits_that_variables_change(cluster: ComposeCluster) -> None:
    for service, memory in (("balancer", 2 * GIB), ("worker", 2 * GIB), ("store", 4 * GIB)):
        for container in cluster.containers(service):
            assert (container["HostConfig"]["Memory"], container["HostConfig"]["PidsLimit"]) == (memory, 512)
            assert not container["State"]["OOMKilled"]
    given = {"BALANCER_MEMORY": "1g", "WORKER_MEMORY": "3g", "STORE_MEMORY": "5g", "VALKEY_MEMORY": "7g"}
    files = "docker-compose.yml:docker-compose.valkey.yml"
    environ: Any = {**given, "CONTAINER_PIDS": "99", "COMPOSE_FILE": files}
    other = ComposeCluster(EXAMPLE, **environ)
    services = json.loads(other.compose("config", "--format", "json"))["services"]
    limits = {name: (int(service["mem_limit"]), service["pids_limit"]) for name, service in services.items()}
    assert limits == {name.partition("_")[0].lower(): (int(text[0]) * GIB, 99) for name, text in given.items()}


def test_health_checks_tell_the_truth(cluster: ComposeCluster) -> None:
    check = ["exec", "-T", "balancer", "python", "-m", "socketcluster_runtime.health"]
    cluster.compose(*check, "http://127.0.0.1:8000/socketcluster/health")
    cluster.compose("pause", "worker")
    try:
        with pytest.raises(AssertionError):
            cluster.compose(*check, "http://127.0.0.1:8000/socketcluster/health")
    finally:
        cluster.compose("unpause", "worker")
    cluster.compose("exec", "-T", "store", "python", "-m", "socketcluster_runtime.health", "127.0.0.1:7000")
    with pytest.raises(AssertionError, match="UNAUTHENTICATED"):
        cluster.compose(
            *("exec", "-T", "-e", "SOCKETCLUSTER_SECRET=a-secret-that-is-wrong", "store"),
            *("python", "-m", "socketcluster_runtime.health", "127.0.0.1:7000"),
        )


async def _check_rand(tabs: dict[Browser, list[Any]]) -> None:
    """All tabs of a browser show the same number; over a few seconds another browser's are others."""

    async def shared(browser: Browser) -> set[tuple[int, ...]]:
        return set.intersection(*(runs(_rands(socket)) for socket in tabs[browser]))

    one, other = [await until(lambda browser=browser: shared(browser), bool) for browser in tabs]  # type: ignore[misc]
    assert one.isdisjoint(other)


def _rands(socket: Messages) -> list[int]:
    return [data for event, data in socket.events if event == "rand"]
