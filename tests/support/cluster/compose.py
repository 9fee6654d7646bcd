"""A cluster of containers, started from the repository's own compose file."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

from support.clients.browser import Browser
from support.cluster.cluster import Cluster, until
from support.network.ports import free_port

ROOT = Path(__file__).parents[3]
WAIT = 120
"""Seconds that the containers have to become healthy."""


class ComposeCluster(Cluster):
    """``docker compose up --scale worker=N`` under a project name and on a port of its own.

    Args:
        controller: the folder of the user's ``controller.py``.
        workers: how many.
        stores: how many.
        environ: variables of the compose file.
    """

    connections_outlive_the_balancer = False  # a container's network ends with it, whoever holds the sockets

    def __init__(self, controller: Path, *, workers: int = 4, stores: int = 1, **environ: str) -> None:
        self.project = f"socketcluster-test-{uuid4().hex[:8]}"
        self._workers = workers
        self._stores = stores
        self._environ = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": self.project,
            "CONTROLLER_DIR": str(controller),
            "SOCKETCLUSTER_PORT": f"127.0.0.1:{free_port()}",  # Docker's choice would change with each start
            **environ,
        }

    def up(self) -> None:
        """Build the images and start; return when every container is healthy."""
        self.compose("build", "--quiet")
        self.scale(self._workers, stores=self._stores)
        address = self.compose("port", "balancer", "8000").strip()
        self.url = f"http://{address}"

    def down(self) -> None:
        """Remove everything, and make sure that nothing is left."""
        self.compose("down", "--volumes", "--timeout", "20")
        for kind in ("container", "volume", "network"):
            listing = ["docker", kind, "ls", "--quiet", "--filter", f"label=com.docker.compose.project={self.project}"]
            left = subprocess.run(
                [*listing, "--all"] if kind == "container" else listing, check=True, capture_output=True, text=True
            ).stdout
            assert not left.strip(), f"down left a {kind}: {left}"

    def scale(self, workers: int, *, stores: int = 1) -> None:
        """Change how many workers and stores there are; return when all containers are healthy."""
        counts = ("--scale", f"worker={workers}", "--scale", f"store={stores}")
        patience = time.monotonic() + WAIT
        while True:
            try:
                self.compose("up", "--detach", "--wait", "--wait-timeout", str(WAIT), "--no-recreate", *counts)
                return
            except (
                AssertionError
            ) as error:  # a check that ran out on a busy machine is repeated, in vain for this command
                if "is unhealthy" not in str(error) or time.monotonic() > patience:
                    raise

    def logs(self) -> str:
        """Return what all containers have logged."""
        return self.compose("logs", "--no-color", "--timestamps")

    def compose(self, *arguments: str) -> str:
        """Run ``docker compose`` and return what it prints."""
        done = subprocess.run(
            ["docker", "compose", *arguments], cwd=ROOT, env=self._environ, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise AssertionError(f"docker compose {' '.join(arguments)}: {done.stdout}\n{done.stderr}")
        return done.stdout

    def containers(self, service: str, status: str = "running") -> list[dict[str, Any]]:
        """Return what ``docker inspect`` says of a service's containers of that status."""
        ids = self.compose("ps", "--all", "--quiet", "--status", status, service).split()
        if not ids:
            return []
        answer = subprocess.run(["docker", "inspect", *ids], check=True, capture_output=True, text=True)
        found: list[dict[str, Any]] = json.loads(answer.stdout)
        return found

    async def worker_names(self) -> list[str]:
        return [_name(each) for each in await asyncio.to_thread(self.containers, "worker")]

    async def worker_url(self, name: str) -> str:
        networks = (await self._find("worker", name))["NetworkSettings"]["Networks"]
        (network,) = networks.values()
        return f"http://{network['IPAddress']}:7200"

    async def kill(self, service: str, name: str | None = None) -> None:
        container = await self._find(service, name)
        await docker("kill", "--signal", "KILL", container["Id"])
        if service != "worker":  # of which there is only one: Docker does not start again what was killed by hand
            await docker("start", container["Id"])

    async def start_killed_worker(self, name: str) -> None:
        killed = await asyncio.to_thread(self.containers, "worker", "exited")
        await docker("start", next(each["Id"] for each in killed if _name(each) == name))

    async def hang_up(self, service: str) -> int:
        await asyncio.to_thread(self.compose, "kill", "--signal", "HUP", service)
        return len(await asyncio.to_thread(self.containers, service))

    async def log(self) -> str:
        return await asyncio.to_thread(self.logs)

    async def stop_worker(self, name: str) -> None:
        await docker("stop", (await self._find("worker", name))["Id"])

    async def _find(self, service: str, name: str | None) -> dict[str, Any]:
        running = await asyncio.to_thread(self.containers, service)
        found = [each for each in running if name is None or _name(each) == name]
        assert found, f"no {service} {name or ''} runs"
        return found[0]


def _name(container: dict[str, Any]) -> str:
    name: str = container["Config"]["Hostname"]
    return name


async def docker(*arguments: str) -> None:
    """Run ``docker``."""
    process = await asyncio.create_subprocess_exec("docker", *arguments, stdout=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0, arguments


async def logged_in(cluster: Cluster, stack: AsyncExitStack, count: int) -> dict[Browser, dict[str, str]]:
    """Return browsers that have logged in and closed their tabs, and who each one is."""
    before = {}
    for _ in range(count):
        browser = await stack.enter_async_context(cluster.browser())
        async with browser.engine() as socket:
            before[browser] = await socket.call("who")
            await socket.call("login", {})
    return before


async def check_sessions(before: dict[Browser, dict[str, str]]) -> None:
    """Check that browsers have the sessions that they had, and what is in them."""
    for browser, who in before.items():
        async with await until(lambda browser=browser: browser.engine().open(), lambda _: True) as connection:  # type: ignore[misc]
            assert (await connection.call("who"))["session"] == who["session"]
            assert await connection.call("status") == {"authorized": True}
