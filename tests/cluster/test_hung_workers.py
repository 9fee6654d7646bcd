"""A worker hangs: its process is stopped, its sockets stay open."""

from __future__ import annotations

import asyncio
from pathlib import Path

from support.clients.browser import Browser
from support.cluster.cluster import until
from support.cluster.local import LocalCluster

CONTROLLER = Path(__file__).parents[1] / "controllers" / "scenario" / "controller.py"
POLLING = "/socketcluster/engine/?EIO=4&transport=polling"
HANGS = "worker hangs: it is given no clients"


async def test_clients_go_elsewhere_while_a_worker_hangs_and_are_told_at_once_if_all_do(tmp_path: Path) -> None:
    async with LocalCluster(CONTROLLER, tmp_path / "data", "--worker-wait", "600") as cluster:
        await cluster.serving_workers(at_least=2)
        async with cluster.browser() as before, cluster.browser() as browser:
            hung = await who(before)
            opened = (await before.http.get(POLLING)).text
            browser.http.cookies.update(before.http.cookies)  # the same one, whose connections do not hang
            sid = opened.partition('"sid":"')[2].partition('"')[0]
            assert sid
            with cluster.paused("worker", hung):
                # Whoever comes before it is noticed is given to another worker, too, once it is.
                early = [asyncio.ensure_future(served_by(cluster)) for _ in range(8)]
                assert hung not in await asyncio.gather(*early)
                await until(cluster.log, lambda log: HANGS in log)
                assert hung not in [await served_by(cluster) for _ in range(8)]
                (other,) = {await who(browser) for _ in range(3)}  # its cookie names the worker that hangs
                assert other != hung
                lost = await browser.http.get(f"{POLLING}&sid={sid}")
                assert (lost.status_code, lost.json()["code"]) == (400, 1)
                with cluster.paused("worker", other):
                    await until(cluster.log, lambda log: log.count(HANGS) == 2)
                    async with cluster.browser() as late:
                        refused = await late.http.get("/who")
                    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            await until(cluster.log, lambda log: log.count("worker gives signs of life again") == 2)
            assert await cluster.serving_workers(at_least=2) == {hung, other}


async def who(browser: Browser) -> str:
    name: str = (await browser.http.get("/who")).json()["worker"]
    return name


async def served_by(cluster: LocalCluster) -> str:
    async with cluster.browser() as browser:
        return await who(browser)
