"""A worker or a store hangs: its process is stopped, its sockets stay open."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from support.clients.browser import Browser, WebSocketMessages
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


async def test_what_is_sent_while_a_process_hangs_comes_once_and_in_order(tmp_path: Path) -> None:
    async with LocalCluster(CONTROLLER, tmp_path / "data") as cluster:
        await cluster.serving_workers(at_least=2)
        first, second = sorted(await cluster.worker_names())[:2]
        async with (
            cluster.browser() as browser,
            browser.raw(await cluster.worker_url(first)) as member,
            browser.raw(await cluster.worker_url(second)) as speaker,
        ):
            rooms = [f"room {number}" for number in range(60)]
            for room in rooms:
                await member.call("join", room)
            await member.call("#subscribe", {"channel": "news"})
            with cluster.paused("worker", first):
                for number, room in enumerate(rooms[:30]):
                    await speaker.call("name to room", room)
                    await speaker.call("#publish", {"channel": "news", "data": number})
            assert await member.next("room") == rooms[0]
            with cluster.paused("store", None):
                publications = []
                for number, room in enumerate(rooms[30:], 30):
                    await speaker.call("name to room", room)  # needs no store
                    publish = speaker.call("#publish", {"channel": "news", "data": number})
                    publications.append(asyncio.ensure_future(publish))
                await until(lambda: got(member, "room"), lambda found: len(found) == 60)
            await asyncio.gather(*publications)
            published = await until(lambda: got(member, "#publish"), lambda found: len(found) == 60)
            assert [each["data"] for each in published] == [*range(60)]
            assert await got(member, "room") == rooms


async def got(socket: WebSocketMessages, name: str) -> list[Any]:
    return [data for event, data in socket.events if event == name]
