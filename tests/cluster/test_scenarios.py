"""What a cluster promises, seen by its clients."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest
from support.clients.browser import Browser, CallError, Messages, WebSocketMessages
from support.cluster.cluster import Cluster, until


async def test_the_tabs_of_one_browser_meet_on_one_worker_by_every_transport(cluster: Cluster) -> None:
    await cluster.serving_workers(at_least=2)
    for _ in range(3):
        async with cluster.browser() as browser:
            page = (await browser.http.get("/who")).json()
            async with browser.raw() as raw, browser.engine() as engine, browser.polling() as polling:
                sockets: list[Messages] = [raw, engine, polling]
                answers = [await socket.call("who") for socket in sockets]
            assert {answer["session"] for answer in answers} == {page["session"]}
            assert {answer["worker"] for answer in answers} == {page["worker"]}
            assert len({answer["socket"] for answer in answers}) == 3


async def test_new_browsers_have_sessions_of_their_own_spread_over_the_workers(cluster: Cluster) -> None:
    names = await cluster.serving_workers(at_least=2)
    seen = []
    for _ in range(20):
        async with cluster.browser() as browser, browser.raw() as socket:
            seen.append(await socket.call("who"))
    assert len({who["session"] for who in seen}) == 20
    assert {who["worker"] for who in seen} == names


async def test_a_session_id_that_the_cluster_did_not_sign_is_not_taken(cluster: Cluster) -> None:
    async with cluster.browser() as browser:
        session = (await browser.http.get("/who")).json()["session"]
        cookie = next(iter(browser.http.cookies.jar))
        for forged in (session, f"{session}.", f"{session}.{'A' * 43}", f"x{cookie.value}"):
            async with cluster.browser() as thief:
                thief.http.cookies.set(cookie.name, forged)
                async with thief.raw() as socket:
                    assert (await socket.call("who"))["session"] not in (session, forged)


async def test_session_data_is_the_same_over_http_and_sockets(cluster: Cluster) -> None:
    async with cluster.browser() as browser:
        assert (await browser.http.get("/set", params={"key": "name", "value": "Ada"})).text == "ok"
        async with browser.raw() as socket:
            assert await socket.call("get", "name") == "Ada"
            await socket.call("set", [["cart", "apples"], 3])
            assert await socket.call("get", ["cart"]) == {"apples": 3}
        assert (await browser.http.get("/get", params={"key": "cart"})).json() == {"value": {"apples": 3}}
    async with cluster.browser() as other, other.raw() as socket:
        assert await socket.call("get", "name") is None


async def test_a_login_leaves_the_old_id_worthless_and_a_logout_ends_every_socket(cluster: Cluster) -> None:
    async with cluster.browser() as browser, cluster.browser() as thief, AsyncExitStack() as stack:
        before = (await browser.http.get("/who")).json()["session"]
        thief.http.cookies.update(browser.http.cookies)
        urls = [await cluster.worker_url(name) for name in await cluster.worker_names()]
        sockets = [await stack.enter_async_context(browser.raw(url)) for url in urls]
        assert len({(await socket.call("who"))["worker"] for socket in sockets}) >= 2
        renewed = (await browser.http.get("/login")).json()["session"]
        assert renewed != before
        for socket in sockets:
            who = await until(partial(socket.call, "who"), lambda who: who["session"] != before)
            assert who["session"] == renewed
            assert await socket.call("get", "user") == "ada"
        for number, socket in enumerate(sockets):
            await socket.call("tell session", number)
        for socket in sockets:
            told = await until(lambda socket=socket: _told(socket), lambda told: len(told) >= len(sockets))  # type: ignore[misc]
            assert sorted(told) == list(range(len(sockets)))

        for url in urls:
            async with thief.raw(url) as socket:
                assert (await socket.call("who"))["session"] not in (before, renewed)
                assert await socket.call("get", "user") is None
        token = await sockets[0].call("renew")
        async with cluster.browser() as other:
            await other.http.get("/who")
            assert (await other.http.post("/socketcluster/session", content=token)).status_code == 403
        assert (await thief.http.post("/socketcluster/session", content="guessed")).status_code == 403
        token = await sockets[0].call("renew")
        assert (await browser.http.post("/socketcluster/session", content=token)).status_code == 204
        assert (await browser.http.get("/who")).json() == (await browser.http.get("/who")).json()
        assert (await browser.http.get("/get", params={"key": "user"})).json() == {"value": "ada"}

        assert (await browser.http.get("/logout")).text == "ok"
        for socket in sockets:
            await socket.closed.wait()
            assert socket.close_code == 4101
        assert (await browser.http.get("/get", params={"key": "user"})).json() == {"value": None}


async def test_sighup_ends_no_service(cluster: Cluster) -> None:
    async with cluster.browser() as browser, browser.raw() as socket:
        before = await socket.call("who")
        for service in ("balancer", "worker", "store"):
            said = (await cluster.log()).count("nothing to read again")
            count = await cluster.hang_up(service)
            assert count
            await until(cluster.log, lambda log, due=said + count: log.count("nothing to read again") >= due)  # type: ignore[misc]
        assert await socket.call("who") == before
        async with browser.raw() as another:
            assert (await another.call("who"))["session"] == before["session"]


async def test_an_emit_to_a_session_reaches_its_sockets_on_every_worker_once(cluster: Cluster) -> None:
    async with cluster.browser() as browser, AsyncExitStack() as stack:
        home = await stack.enter_async_context(browser.raw())
        sockets: list[Messages] = [home]
        for url in [await cluster.worker_url(name) for name in await cluster.worker_names()]:
            sockets += [await stack.enter_async_context(browser.raw(url))]
        where = [await socket.call("who") for socket in sockets]
        assert len({who["worker"] for who in where}) >= 2
        assert len({who["session"] for who in where}) == 1
        for number, socket in enumerate(sockets):
            await socket.call("tell session", number)
        for socket in sockets:
            got = await until(lambda socket=socket: _told(socket), lambda told: len(told) >= len(sockets))  # type: ignore[misc]
            assert sorted(got) == list(range(len(sockets)))


async def test_a_channel_reaches_subscribers_on_every_worker_in_one_order(cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        sockets: list[Messages] = []
        for name in await cluster.worker_names():
            browser = await stack.enter_async_context(cluster.browser())
            sockets.append(await stack.enter_async_context(browser.raw(await cluster.worker_url(name))))
        for socket in sockets:
            await socket.call("#subscribe", {"channel": "news"})
        await asyncio.gather(
            *(
                socket.call("#publish", {"channel": "news", "data": [n, i]})
                for i in range(20)
                for n, socket in enumerate(sockets)
            )
        )
        await sockets[0].call("#publish", {"channel": "news", "data": "end"})
        orders = []
        for socket in sockets:
            await until(lambda socket=socket: _published(socket), lambda got: "end" in got)  # type: ignore[misc]
            orders.append(await _published(socket))
        assert all(order == orders[0] for order in orders)
        assert len(orders[0]) == 20 * len(sockets) + 1
        await sockets[0].call("#unsubscribe", "news")
        await sockets[1].call("#publish", {"channel": "news", "data": "after"})
        await until(lambda: _published(sockets[1]), lambda got: "after" in got)
        assert "after" not in await _published(sockets[0])


async def test_data_of_the_application_is_shared_by_all_workers(cluster: Cluster) -> None:
    urls = [await cluster.worker_url(name) for name in await cluster.worker_names()]
    async with cluster.browser() as browser, browser.raw(urls[0]) as one, browser.raw(urls[-1]) as other:
        await one.call("app set", [["scores", "ada"], 7])
        assert await other.call("app get", ["scores", "ada"]) == 7


async def test_a_procedure_s_changes_are_watched_from_another_worker_through_a_kill(cluster: Cluster) -> None:
    urls = [await cluster.worker_url(name) for name in await cluster.worker_names()]
    async with cluster.browser() as browser, browser.raw(urls[0]) as one, browser.raw(urls[-1]) as other:
        watching = asyncio.ensure_future(one.call("app watch", ["deposit", 2]))
        assert await one.next("watching") == "deposit"
        assert await other.call("app run", ["deposit", "ada", 5]) == 5
        await cluster.kill("store")
        with pytest.raises(CallError):
            await other.call("app run", ["deposit", "ada", -6])
        assert await other.call("app run", ["deposit", "ada", -2]) == 3
        (first, second) = await watching
        assert first == ["set", 5]
        assert second in (["set", 3], ["missed", 1])  # the caller's worker may find the store before the watcher's


async def test_every_worker_hears_of_a_session_s_end_after_the_timeout(cluster: Cluster) -> None:
    workers = set(await cluster.worker_names())
    async with cluster.browser() as witness, witness.raw() as socket:
        await socket.call("#subscribe", {"channel": "destroyed"})
        async with cluster.browser() as browser:
            async with browser.raw() as leaving:
                session = (await leaving.call("who"))["session"]
                await leaving.call("set", ["mood", "fine"])

            async def tellers() -> set[str]:
                return {data["worker"] for data in await _published(socket) if data["session"] == session}

            assert await until(tellers, lambda told: told >= workers) == workers
            assert (await browser.http.get("/get", params={"key": "mood"})).json() == {"value": None}
        who = (await socket.call("who"))["session"]
        assert who not in await socket.call("destroyed")


async def test_a_killed_worker_costs_no_session_its_data(cluster: Cluster) -> None:
    async with cluster.browser() as browser:
        async with browser.raw() as socket:
            before = await socket.call("who")
            await socket.call("set", ["cart", ["apple"]])
            await cluster.kill("worker", before["worker"])
            await socket.closed.wait()
        async with await until(lambda: _connect(browser), lambda _: True) as again:
            after = await again.call("who")
            assert after["session"] == before["session"]
            assert after["pid"] != before["pid"] or after["worker"] != before["worker"]
            assert await again.call("get", "cart") == ["apple"]


async def test_the_balancer_s_controller_refuses_clients_and_knows_their_session(cluster: Cluster) -> None:
    async with cluster.browser() as browser:
        refused = await until(lambda: browser.http.get("/refused"), lambda answer: answer.status_code != 503)
        assert (refused.status_code, refused.headers["x-session"]) == (403, "none")
        assert refused.text.startswith("not by ")
        async with browser.raw() as socket:
            session = (await socket.call("who"))["session"]
        refused = await browser.http.get("/refused")
        assert (refused.status_code, refused.headers["x-session"]) == (403, session)


async def test_a_killed_store_loses_nothing_and_nobody_sees_an_error(cluster: Cluster) -> None:
    async with cluster.browser() as browser, browser.raw() as socket:
        await socket.call("set", ["before", 1])
        await cluster.kill("store")
        await socket.call("set", ["during", 2])
        assert [await socket.call("get", "before"), await socket.call("get", "during")] == [1, 2]
        await socket.call("#subscribe", {"channel": "after"})
        await socket.call("#publish", {"channel": "after", "data": "works"})
        assert await socket.next("#publish") == {"channel": "after", "data": "works"}


async def test_a_killed_balancer_leaves_connections_alone_and_comes_back(cluster: Cluster) -> None:
    async with cluster.browser() as browser, browser.raw() as socket:
        session = (await socket.call("who"))["session"]
        await cluster.kill("balancer")
        if cluster.connections_outlive_the_balancer:
            assert await socket.call("echo", "still here") == "still here"
        async with await until(lambda: _connect(browser), lambda _: True) as other:
            assert (await other.call("who"))["session"] == session


async def test_a_worker_that_is_asked_to_stop_lets_handlers_finish(cluster: Cluster) -> None:
    async with cluster.browser() as browser:
        async with browser.raw() as socket:
            where = (await socket.call("who"))["worker"]
            await socket.call("set", ["kept", True])
            answer = asyncio.create_task(socket.call("slow"))
            await socket.next("slow began")
            stopping = asyncio.create_task(cluster.stop_worker(where))
            assert await answer == "at last"
            await socket.closed.wait()
            assert socket.close_code == 1012
        async with await until(lambda: _connect(browser), lambda _: True) as again:
            assert await again.call("get", "kept") is True  # on a busy machine its time is over before the container is
        await stopping


async def test_errors_of_handlers_keep_the_server_s_secrets(cluster: Cluster) -> None:
    async with cluster.browser() as browser, browser.raw() as socket:
        with pytest.raises(CallError) as failed:
            await socket.call("fail")
        assert failed.value.name == "InternalServerError"
        assert "secret" not in str(failed.value)
        with pytest.raises(CallError) as refused:
            await socket.call("refuse")
        assert refused.value.error == {"name": "RefusedError", "message": "not today"}
        assert (await browser.http.get("/fail")).status_code == 500
        assert await socket.call("echo", {"still": "alive"}) == {"still": "alive"}


async def _told(socket: Messages) -> list[Any]:
    return [data for event, data in socket.events if event == "told"]


async def _published(socket: Messages) -> list[Any]:
    return [data["data"] for event, data in socket.events if event == "#publish"]


async def _connect(browser: Browser) -> WebSocketMessages:
    return await browser.raw().open()


async def test_who_was_told_of_a_join_is_reached_from_every_worker_and_from_one_that_starts_anew(
    cluster: Cluster,
) -> None:
    await cluster.serving_workers(at_least=2)
    first, second = sorted(await cluster.worker_names())[:2]
    async with cluster.browser() as browser, browser.raw(await cluster.worker_url(first)) as member:
        for again in range(2):
            async with browser.raw(await cluster.worker_url(second)) as speaker:
                assert (await member.call("who"))["worker"] != (await speaker.call("who"))["worker"]
                for number in range(100):
                    room = f"{again} room {number}"
                    await member.call("join", room)
                    heard = len(member.events)
                    await speaker.emit("name to room", room)
                    assert await member.next("room", after=heard) == room
                    await member.call("leave", room)
                    await speaker.call("name to room", room)
                assert await speaker.call("echo", 1) == 1
            if not again:
                await cluster.kill("worker", second)
                await cluster.start_killed_worker(second)
                await cluster.serving_workers(at_least=2)
        assert [data for event, data in member.events if event == "room"] == [
            f"{again} room {number}" for again in range(2) for number in range(100)
        ]
