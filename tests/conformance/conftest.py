"""A cluster of two workers and one store, behind its balancer, and npm's clients to drive against it."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support.cluster.local import LocalCluster

HERE = Path(__file__).parent
CONTROLLER = HERE.parent / "controllers" / "scenario" / "controller.py"

Drive = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
async def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LocalCluster]:
    marker = request.node.get_closest_marker("cluster_options")
    arguments = marker.args if marker else ()
    async with LocalCluster(CONTROLLER, tmp_path / "data", *arguments, **(marker.kwargs if marker else {})) as running:
        yield running


@pytest.fixture(scope="session")
def npm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts, with the clients that they import installed beside them."""
    folder = tmp_path_factory.mktemp("npm")
    shutil.copytree(HERE / "npm", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules"))
    return folder


@pytest.fixture
async def drive(npm_folder: Path, cluster: LocalCluster) -> Drive:
    """Runs one of the scripts against the cluster, or a ``url`` in front of it, and returns what it saw."""

    async def run(*argv: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *argv, cwd=npm_folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        try:
            out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, f"{' '.join(argv)}\n{out.decode()}\n{err.decode()}"
        return out.decode()

    async def drive(script: str, *arguments: str, url: str = "") -> dict[str, Any]:
        if not (npm_folder / "node_modules").exists():
            await run("npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts")
        seen: dict[str, Any] = json.loads(await run("node", script, url or cluster.url, *arguments))
        return seen

    return drive
