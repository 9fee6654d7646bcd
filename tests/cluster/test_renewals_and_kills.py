"""Sessions that are renewed while stores are killed: nothing is lost that was acknowledged, and one id is usable."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from support.clients.browser import Browser
from support.cluster.local import LocalCluster

CONTROLLER = Path(__file__).parents[1] / "controllers" / "scenario" / "controller.py"
BROWSERS = 6
KILLS = 4
"""Times that each store is killed."""


class Logins:
    """One browser that logs in again and again, with a tab that stays; what it was told is there."""

    def __init__(self, cluster: LocalCluster, browser: Browser) -> None:
        self._cluster = cluster
        self._browser = browser
        self.done = 0

    async def go_on(self, stop: asyncio.Event) -> None:
        """Put something into the session, renew it and look, until it is to stop."""
        get = self._browser.http.get
        async with self._browser.raw() as tab:
            session_id = (await tab.call("who"))["session"]
            while not stop.is_set():
                assert (await get("/set", params={"key": "n", "value": str(self.done)})).text == "ok"
                old = dict(self._browser.http.cookies)
                renewed = (await get("/login")).json()["session"]
                assert renewed != session_id
                assert dict(self._browser.http.cookies) != old
                session_id = renewed
                assert (await get("/get", params={"key": "n"})).json() == {"value": str(self.done)}
                assert (await tab.call("who"))["session"] == session_id
                assert await tab.call("get", "n") == str(self.done)
                async with self._cluster.browser() as thief:
                    thief.http.cookies.update(old)
                    assert (await thief.http.get("/get", params={"key": "n"})).json() == {"value": None}
                self.done += 1


async def test_no_login_is_lost_by_a_kill_of_a_store(tmp_path: Path) -> None:
    options = ("--stores", "2")
    async with LocalCluster(CONTROLLER, tmp_path / "data", *options) as cluster, AsyncExitStack() as stack:
        await cluster.serving_workers(at_least=2)
        stop = asyncio.Event()
        logins = [Logins(cluster, await stack.enter_async_context(cluster.browser())) for _ in range(BROWSERS)]
        for each in logins:
            await each._browser.http.get("/who")
        running = [asyncio.create_task(each.go_on(stop)) for each in logins]
        try:
            for number in range(2 * KILLS):
                await _progress(logins, running)
                await cluster.kill("store", f"store-{number % 2}")
            await _progress(logins, running)
        finally:
            stop.set()
            await asyncio.gather(*running)


async def _progress(logins: list[Logins], running: list[asyncio.Task[None]]) -> None:
    """Return when each browser has logged in again, or one has failed."""
    before = [each.done for each in logins]
    while any(each.done < then + 2 for each, then in zip(logins, before, strict=True)):
        if any(task.done() for task in running):
            return
        await asyncio.sleep(0.01)
