"""Pages of other origins: refused unless named, over polling and WebSockets; CORS; and compressed polling bodies."""

from __future__ import annotations

import pytest
from support.clients import Browser
from support.worker import Probe, StartWorker
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from socketcluster_worker.connection import Handshake
from socketcluster_worker.origins import OriginPolicy

POLL = "/engine.io/?EIO=4&transport=polling"
FRIEND, STRANGER = "https://friend.example", "https://stranger.example"
FORBIDDEN = {"code": 4, "message": "Forbidden"}


def request(origin: str | None, host: str = "app.example:8000") -> Handshake:
    headers = {"host": host} if origin is None else {"host": host, "origin": origin}
    return Handshake("/", {}, headers, None, secure=False)


@pytest.mark.parametrize(
    ("allowed", "origin", "result"),
    [
        ((), None, True),
        ((), "http://app.example:8000", True),
        ((), "http://app.example", False),
        ((), "null", False),
        ((), "not a url [", False),
        ((), "http://[", False),
        ((FRIEND,), FRIEND, True),
        ((FRIEND,), STRANGER, False),
        ((FRIEND,), FRIEND + ".evil.example", False),
        (("*",), STRANGER, True),
    ],
)
def test_who_may_connect(allowed: tuple[str, ...], origin: str | None, result: bool) -> None:
    assert OriginPolicy(allowed).allows(request(origin)) is result


def test_only_a_named_origin_gets_credentials() -> None:
    policy = OriginPolicy((FRIEND, "*"))
    assert policy.headers(request(FRIEND))["access-control-allow-credentials"] == "true"
    assert policy.headers(request(STRANGER)) == {"access-control-allow-origin": "*"}
    assert policy.headers(request("http://app.example:8000")) == {}
    assert policy.headers(request(None)) == {}


async def test_a_stranger_s_page_is_refused_by_every_transport(start_worker: StartWorker, probe: Probe) -> None:
    worker = await start_worker(probe.run, origins=(FRIEND,))
    async with Browser(worker.url) as browser:
        refused = await browser.http.get(POLL, headers={"Origin": STRANGER})
        assert (refused.status_code, refused.json()) == (403, FORBIDDEN)
        assert "access-control-allow-origin" not in refused.headers
    for path in ("/engine.io/?EIO=4&transport=websocket", "/socketcluster/", "/socket.io/?EIO=4&transport=websocket"):
        with pytest.raises(InvalidStatus) as error:
            await connect(worker.url.replace("http", "ws") + path, origin=STRANGER)  # type: ignore[arg-type]
        assert error.value.response.status_code == 403


async def test_a_friend_s_page_is_served_with_cors(start_worker: StartWorker, probe: Probe) -> None:
    worker = await start_worker(probe.run, origins=(FRIEND,))
    async with Browser(worker.url) as browser:
        preflight = await browser.http.options(
            POLL, headers={"Origin": FRIEND, "Access-Control-Request-Headers": "x-token"}
        )
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-headers"] == "x-token"
        assert preflight.headers["access-control-allow-methods"] == "GET, POST, OPTIONS"
        served = await browser.http.get(POLL, headers={"Origin": FRIEND})
        assert served.status_code == 200
        assert served.headers["access-control-allow-origin"] == FRIEND
        assert served.headers["vary"] == "Origin"
    async with connect(worker.url.replace("http", "ws") + "/socketcluster/", origin=FRIEND):  # type: ignore[arg-type]
        pass


async def test_large_polling_bodies_are_compressed_for_those_who_ask(start_worker: StartWorker, probe: Probe) -> None:
    worker = await start_worker(probe.run)
    async with Browser(worker.url) as browser:
        for accepted, large, encoding in (("gzip", 5000, "gzip"), ("gzip", 10, None), ("identity", 5000, None)):
            sid = (await browser.http.get(POLL)).text.partition('"sid":"')[2].partition('"')[0]
            socket = await probe.sockets.get()
            socket.send("x" * large)
            response = await browser.http.get(f"{POLL}&sid={sid}", headers={"Accept-Encoding": accepted})
            assert response.headers.get("content-encoding") == encoding
            assert response.text == "4" + "x" * large
