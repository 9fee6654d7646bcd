"""Engine.IO connections by polling whose session is renewed: their requests go on showing the old cookie."""

from __future__ import annotations

from functools import partial

from support.clients.browser import PollingSocket
from support.cluster.cluster import Cluster, until


async def test_a_polling_connection_goes_on_with_the_old_cookie(cluster: Cluster) -> None:
    """Straight to either worker, one of which forwards its requests, and through the balancer; a second tab, too."""
    names = await cluster.serving_workers(at_least=2)
    async with cluster.browser() as old, cluster.browser() as page:
        await old.http.get("/who")
        page.http.cookies.update(old.http.cookies)
        async with old.polling() as polling, old.polling() as second:
            before = (await polling.call("who"))["session"]
            renewed = (await page.http.get("/login")).json()["session"]
            assert renewed != before
            for tab in (polling, second):
                who = await until(partial(tab.call, "who"), lambda who: who["session"] != before)
                assert who["session"] == renewed
                assert await tab.call("get", "user") == "ada"
            urls = [await cluster.worker_url(name) for name in await cluster.worker_names()]
            for url in urls:  # the next requests of the same connection go by another way
                async with cluster.browser() as direct:
                    direct.http.base_url = url
                    direct.http.cookies.update(old.http.cookies)
                    away = PollingSocket(direct)
                    away.sid = polling.sid
                    await away.send_text('{"event":"set","data":["way","' + url + '"]}')
                assert await until(partial(polling.call, "get", "way"), lambda way: way is not None) == url
                await polling.call("set", ["way", None])
            assert (await polling.call("who"))["worker"] in names
            async with page.polling() as third:
                await third.call("tell session", "hello")
                for tab in (polling, second, third):
                    assert await tab.next("told") == "hello"
            async with old.polling() as stranger:
                assert (await stranger.call("who"))["session"] not in (before, renewed)
                assert await stranger.call("get", "user") is None
