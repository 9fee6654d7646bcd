"""The balancer's controller in a cluster of processes: the example, and one that is broken and mended."""

from __future__ import annotations

import shutil
import ssl
from pathlib import Path

import pytest
from support.clients.browser import Browser
from support.cluster.cluster import until
from support.cluster.local import LocalCluster
from support.network import certificates
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

EXAMPLE = Path(__file__).parents[2] / "examples" / "gatekeeper"
BOT = {"User-Agent": "BadBot/1.0"}


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_the_example_refuses_moves_and_routes_processes(tmp_path: Path, secure: bool) -> None:
    files = certificates.make(tmp_path, "gate")
    options = ("--tls-cert", str(files.cert), "--tls-key", str(files.key)) if secure else ()
    tls = ssl.create_default_context(cafile=files.cert) if secure else None
    async with LocalCluster(EXAMPLE / "controller.py", tmp_path / "data", *options) as cluster:

        async def get(path: str, **headers: str) -> tuple[int, str]:
            async with Browser(cluster.url, tls) as browser:  # a new one is placed by load alone
                answer = await browser.http.get(path, headers=headers)
                return answer.status_code, answer.headers.get("location", answer.text)

        assert await until(lambda: get("/reports/1"), lambda got: got[0] == 200)
        assert {await get("/reports/1") for _ in range(8)} == {(200, "/reports/1 is served by worker-0")}
        assert await get("/old") == (301, "/new")
        assert await get("/new", **BOT) == (403, "You are not welcome here.\n")
        websocket = cluster.url.replace("http", "ws") + "/socketcluster/"
        async with connect(websocket, ssl=tls, open_timeout=60):
            pass
        with pytest.raises(InvalidStatus, match="403"):
            await connect(websocket, ssl=tls, open_timeout=60, user_agent_header=BOT["User-Agent"])


async def test_a_broken_one_is_told_with_its_line_and_tried_again_until_it_works(tmp_path: Path) -> None:
    folder = tmp_path / "app"
    shutil.copytree(EXAMPLE, folder)
    gatekeeper = folder / "balancer_controller.py"
    works = gatekeeper.read_text()
    async with LocalCluster(folder / "controller.py", tmp_path / "data", workers=1) as cluster:
        gatekeeper.write_text("def run(balancer):\n    balancer.middleware('upgrades')\n")
        await cluster.kill("balancer")

        async def said() -> bool:
            return f"{gatekeeper}:2: ValueError: there is no stage 'upgrades'" in cluster.log_path.read_text()

        assert await until(said, bool)
        gatekeeper.write_text(works)

        async def refused() -> int:
            async with Browser(cluster.url) as browser:
                return (await browser.http.get("/", headers=BOT)).status_code

        assert await until(refused, lambda status: status == 403) == 403
