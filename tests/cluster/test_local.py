"""Shapes of a cluster of local processes: several stores and balancers, byte relays, two applications on one host."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import ssl
import stat
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from support.clients.browser import Browser
from support.cluster.cluster import until
from support.cluster.local import LocalCluster
from support.network import certificates
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

CONTROLLER = Path(__file__).parents[1] / "controllers" / "scenario" / "controller.py"


async def test_two_stores_and_two_balancers_share_the_work_and_survive_kills(tmp_path: Path) -> None:
    async with LocalCluster(CONTROLLER, tmp_path / "data", "--stores", "2", "--balancers", "2") as cluster:
        browsers = [cluster.browser() for _ in range(8)]  # their sessions lie in both stores, all but surely
        for number, browser in enumerate(browsers):
            assert (await browser.http.get("/set", params={"key": "n", "value": str(number)})).text == "ok"
        await cluster.kill("store", "store-0")
        await cluster.kill("store", "store-1")
        await cluster.kill("balancer", "balancer-1")
        for number, browser in enumerate(browsers):
            assert (await browser.http.get("/get", params={"key": "n"})).json() == {"value": str(number)}
            async with browser.polling() as socket:
                assert await socket.call("get", "n") == str(number)
            await browser.http.aclose()


async def test_relayed_connections_know_their_client_and_carry_everything(tmp_path: Path) -> None:
    async with LocalCluster(CONTROLLER, tmp_path / "data", "--handoff", "false") as cluster:
        await cluster.serving_workers(at_least=2)
        async with cluster.browser() as browser:
            page = (await browser.http.get("/who")).json()
            assert page["address"] == "127.0.0.1"
            body = bytes(range(256)) * 4096
            assert (await browser.http.post("/echo", content=body)).content == body
            async with browser.raw() as raw, browser.engine() as engine, browser.polling() as polling:
                answers = [await socket.call("who") for socket in (raw, engine, polling)]
                large = "x" * 300_000
                assert [await socket.call("echo", large) for socket in (raw, engine, polling)] == [large] * 3
            assert {answer["session"] for answer in answers} == {page["session"]}
            assert {answer["worker"] for answer in answers} == {page["worker"]}
            assert {answer["address"] for answer in answers} == {"127.0.0.1"}


@pytest.mark.parametrize("handoff", ["true", "false"])
async def test_behind_the_balancer_nothing_is_served_for_another_host(tmp_path: Path, handoff: str) -> None:
    options = ("--allowed-hosts", "127.0.0.1,*.app.example", "--handoff", handoff)
    async with (
        LocalCluster(CONTROLLER, tmp_path / "data", *options, workers=1) as cluster,
        cluster.browser() as browser,
    ):
        for path in ("/who", "/socketcluster.js", "/socket.io/?EIO=4&transport=polling"):
            for host, status in (("evil.example", 400), ("www.app.example", 200)):
                assert (await browser.http.get(path, headers={"Host": host})).status_code == status
        async with browser.raw() as socket:
            assert await socket.call("echo", 1) == 1
        port = int(cluster.url.rpartition(":")[2])
        async with connect("ws://www.app.example/socketcluster/", host="127.0.0.1", port=port, open_timeout=60):
            pass
        with pytest.raises(InvalidStatus, match="400"):
            await connect("ws://evil.example/socketcluster/", host="127.0.0.1", port=port, open_timeout=60)


async def test_by_https_everything_works_and_certificates_are_renewed_under_way(tmp_path: Path) -> None:
    files = certificates.make(tmp_path, "first", "open sesame")
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("open sesame\n")
    options = ("--tls-cert", str(files.cert), "--tls-key", str(files.key), "--tls-passphrase-file", str(passphrase))
    second = certificates.make(tmp_path, "second", "open sesame")
    tls = ssl.create_default_context(cafile=str(files.cert))
    tls.load_verify_locations(second.cert)

    async with LocalCluster(CONTROLLER, tmp_path / "data", *options) as cluster:
        assert cluster.url.startswith("https://127.0.0.1:")
        async with Browser(cluster.url, tls) as browser:
            answer = await browser.http.get("/who")
            assert answer.json()["address"] == "127.0.0.1"
            assert "; secure" in answer.headers["set-cookie"].lower()
            port = int(cluster.url.rpartition(":")[2])

            async def subject() -> str:
                found = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))
                return found.replace("\n", "")

            async with browser.raw() as raw, browser.engine() as engine, browser.polling() as polling:
                first = await subject()
                assert first == files.cert.read_text().replace("\n", "")
                second.cert.replace(files.cert)
                second.key.replace(files.key)
                await cluster.signal("balancer", signal.SIGHUP)
                renewed = files.cert.read_text().replace("\n", "")
                assert await until(subject, lambda found: found == renewed)
                for socket in (raw, engine):
                    assert (await socket.call("who"))["session"] == answer.json()["session"]
                assert (await polling.call("who"))["session"] == answer.json()["session"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_tls_session_is_resumed_whichever_balancer_is_met(tmp_path: Path, version: ssl.TLSVersion) -> None:
    files = certificates.make(tmp_path, "any")
    options = ("--tls-cert", str(files.cert), "--tls-key", str(files.key), "--balancers", "3")
    tls = ssl.create_default_context(cafile=str(files.cert))
    tls.minimum_version = tls.maximum_version = version

    def ask(port: int, session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool | None]:
        with (
            socket.create_connection(("127.0.0.1", port), 60) as plain,
            tls.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as client,
        ):
            client.sendall(b"GET /socketcluster/health HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
            while client.recv(65536):
                pass
            return client.session, client.session_reused

    async with LocalCluster(CONTROLLER, tmp_path / "data", *options, workers=1) as cluster:
        port = int(cluster.url.rpartition(":")[2].rstrip("/"))
        session, _ = await asyncio.to_thread(ask, port, None)
        again = [(await asyncio.to_thread(ask, port, session))[1] for _ in range(20)]  # all of one: once in 10 ** 9
        await cluster.kill("balancer", "balancer-1")
        again += [(await asyncio.to_thread(ask, port, session))[1] for _ in range(5)]
        assert again == [True] * 25
        (key,) = (cluster.run_dir / "tickets").iterdir()
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


async def test_clients_by_tls_are_told_when_their_balancer_stops(tmp_path: Path) -> None:
    files = certificates.make(tmp_path, "any")
    options = ("--tls-cert", str(files.cert), "--tls-key", str(files.key), "--balancers", "2")
    tls = ssl.create_default_context(cafile=str(files.cert))
    async with LocalCluster(CONTROLLER, tmp_path / "data", *options) as cluster:
        url = cluster.url.rstrip("/")
        async with httpx.AsyncClient(base_url=url, verify=tls, timeout=60) as http, AsyncExitStack() as stack:
            opened = await http.get("/engine.io/", params={"EIO": "4", "transport": "polling"})
            sid = json.loads(opened.text[1:])["sid"]
            poll = {"EIO": "4", "transport": "polling", "sid": sid}
            polled = asyncio.create_task(http.get("/engine.io/", params=poll))
            sockets = [
                await stack.enter_async_context(
                    connect(url.replace("https", "wss") + "/socketcluster/", ssl=tls, open_timeout=60)
                )
                for _ in range(12)
            ]
            await cluster.signal("balancer", signal.SIGTERM)  # both: some are at each, and the launcher starts others
            for socket_ in sockets:
                await socket_.wait_closed()
                assert (socket_.close_code, socket_.close_reason) == (1012, "this balancer is being replaced")
            answer = await polled
            assert (answer.status_code, answer.text) == (200, "6")
            again = await until(lambda: http.post("/engine.io/", params=poll, content="3"), _is_ok)
            assert again.text == "ok"  # its session is still there
        assert "are cut off" not in await cluster.log()


def _is_ok(answer: httpx.Response) -> bool:
    return answer.status_code == 200


async def test_keys_and_the_level_of_the_log_are_read_again_by_the_launcher_s_sighup(tmp_path: Path) -> None:
    key, level = tmp_path / "key", tmp_path / "level"
    key.write_text("first" * 10)
    level.write_text("warning")
    options = ("--auth-key-file", str(key), "--log-level-file", str(level))
    async with LocalCluster(CONTROLLER, tmp_path / "data", *options, workers=1) as cluster:
        async with Browser(cluster.url) as browser, browser.raw() as raw:
            before = (await raw.call("who"))["session"]
            key.write_text("second" * 10)
            level.write_text("info")
            cluster.process.send_signal(signal.SIGHUP)
            await until(cluster.log, lambda log: log.count("read again") >= 4)  # three levels, one key
            assert (await raw.call("who"))["session"] == before
        log = await cluster.log()
        assert "what='keys of auth tokens'" in log
        assert log.count("what='log level'") == 3


async def test_a_page_must_have_come_by_tls_as_its_client_does(tmp_path: Path) -> None:
    files = certificates.make(tmp_path, "origins")
    options = ("--tls-cert", str(files.cert), "--tls-key", str(files.key), "--origins", "friend.example:*")
    tls = ssl.create_default_context(cafile=files.cert)
    poll, websocket = "/engine.io/?EIO=4&transport=polling", "/engine.io/?EIO=4&transport=websocket"
    async with (
        LocalCluster(CONTROLLER, tmp_path / "data", *options, workers=1) as cluster,
        Browser(cluster.url, tls) as page,
    ):
        own = cluster.url
        for origin, status in (
            (own, 200),
            ("https://friend.example", 200),
            (own.replace("https", "http"), 200),  # this very host and port, as old clients for Python have it
            (f"http://127.0.0.1:{int(own.rpartition(':')[2]) ^ 1}", 403),
            ("http://friend.example", 403),
            ("https://stranger.example", 403),
        ):
            answer = await page.http.get(poll, headers={"Origin": origin})
            assert answer.status_code == status, origin
            opening = connect(own.replace("https", "wss") + websocket, ssl=tls, origin=Origin(origin), open_timeout=60)
            if status == 200:
                async with opening:
                    continue
            with pytest.raises(InvalidStatus, match="403"):
                await opening


async def test_a_wrong_passphrase_is_told_at_the_start(tmp_path: Path) -> None:
    files = certificates.make(tmp_path, "locked", "open sesame")
    options = ("--tls-cert", str(files.cert), "--tls-key", str(files.key), "--tls-passphrase", "wrong")
    with pytest.raises(AssertionError, match="tls_passphrase: it does not open the key"):
        async with LocalCluster(CONTROLLER, tmp_path / "data", *options):
            pass


async def test_two_applications_on_one_host_keep_their_sessions_apart(tmp_path: Path) -> None:
    data = tmp_path / "data"  # even the folder, and with it the secret, is the same
    one = LocalCluster(CONTROLLER, data, "--app-name", "one", workers=1)
    other = LocalCluster(CONTROLLER, data, "--app-name", "other", workers=1)
    async with one, other, one.browser() as browser:
        await browser.http.get("/set", params={"key": "name", "value": "Ada"})
        mine = (await browser.http.get("/who")).json()["session"]
        async with Browser(other.url) as same_cookies:
            for cookie in browser.http.cookies.jar:
                same_cookies.http.cookies.set(cookie.name, cookie.value or "")
                same_cookies.http.cookies.set(cookie.name.replace("one", "other"), cookie.value or "")
            assert (await same_cookies.http.get("/who")).json()["session"] != mine
            assert (await same_cookies.http.get("/get", params={"key": "name"})).json() == {"value": None}
        assert (await browser.http.get("/get", params={"key": "name"})).json() == {"value": "Ada"}


async def test_a_channel_with_a_history_reaches_a_client_whatever_is_killed(tmp_path: Path) -> None:
    history = ("--channel-history", "news*: 1000, 3600", "--stores", "2")
    async with LocalCluster(CONTROLLER, tmp_path / "data", *history) as cluster:
        await cluster.serving_workers(at_least=2)
        names = await cluster.worker_names()
        urls = [await cluster.worker_url(name) for name in names]
        async with cluster.browser() as browser, browser.raw(urls[0]) as publisher:
            async with browser.raw(urls[1]) as subscriber:
                at = (await subscriber.call("#subscribe", {"channel": "news", "since": None}))["offset"]
                for number in range(50):
                    await publisher.call("#publish", {"channel": "news", "data": number})
                    if number == 20:
                        await cluster.kill("store", "store-0")
                        await cluster.kill("store", "store-1")
                    if number == 40:
                        await cluster.kill("worker", names[1])
                await subscriber.closed.wait()
                got = [data for event, data in subscriber.events if event == "#publish"]
            async with browser.raw(urls[0]) as again:
                since = got[-1]["offset"] if got else at
                assert (await again.call("#subscribe", {"channel": "news", "since": since})) == {"offset": since}
                await publisher.call("#publish", {"channel": "news", "data": "end"})
                while await again.call("echo", 0) == 0:
                    later = [data for event, data in again.events if event == "#publish"]
                    if later and later[-1]["data"] == "end":
                        break
                assert [data["data"] for data in got + later] == [*range(50), "end"]
