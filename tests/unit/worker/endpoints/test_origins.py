"""Pages of other origins: refused unless named, over polling and WebSockets; CORS; and compressed polling bodies."""

from __future__ import annotations

import pytest
from support.clients.browser import Browser
from support.worker.running import Probe, StartWorker
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from socketcluster_worker.connection import Handshake
from socketcluster_worker.endpoints.origins import OriginPolicy
from socketcluster_worker.settings import WorkerSettings

POLL = "/engine.io/?EIO=4&transport=polling"
WEBSOCKETS = (
    "/engine.io/?EIO=4&transport=websocket",
    "/socketcluster/",
    "/socketcluster/engine/?EIO=4&transport=websocket",
    "/socket.io/?EIO=4&transport=websocket",
)
FRIEND, STRANGER = "http://friend.example", "http://stranger.example"
FORBIDDEN = {"code": 4, "message": "Forbidden: the page's origin is not among the option origins"}


def request(origin: str | None, host: str = "app.example:8000", *, secure: bool = False) -> Handshake:
    headers = {"host": host} if origin is None else {"host": host, "origin": origin}
    return Handshake("/", headers, None, secure=secure)


def allows(origin: str | None, *allowed: str) -> bool:
    """Without the rule on protocols, which has its own tests."""
    return OriginPolicy(allowed, match_protocol=False).refusal(request(origin)) is None


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
        (("null",), "null", True),
        (("null",), STRANGER, False),
    ],
)
def test_who_may_connect(allowed: tuple[str, ...], origin: str | None, result: bool) -> None:
    assert allows(origin, *allowed) is result


def test_the_server_s_own_origin_may_name_its_default_port_or_not() -> None:
    policy = OriginPolicy(())
    assert policy.refusal(request("http://app.example", "app.example:80")) is None
    assert policy.refusal(request("https://APP.example:443", "app.example", secure=True)) is None
    assert policy.refusal(request("http://[::1]:8000", "[::1]:8000")) is None
    assert policy.refusal(request("http://app.example", "")) is not None


def test_a_whole_origin_is_that_scheme_host_and_port_alone() -> None:
    assert allows("https://app.example.com", "https://app.example.com/")
    assert allows("https://app.example.com:443", "https://APP.example.com")
    assert not allows("http://app.example.com", "https://app.example.com")
    assert not allows("https://app.example.com:8443", "https://app.example.com")
    assert allows("capacitor://localhost", "capacitor://localhost")
    assert not allows("ionic://localhost", "capacitor://localhost")


def test_a_host_with_a_port_is_that_port_by_http_and_https() -> None:
    assert allows("http://example.com:8080", "example.com:8080")
    assert allows("https://example.com:8080", "example.com:8080")
    assert allows("http://example.com", "example.com:80")
    assert not allows("https://example.com", "example.com:80")


def test_a_host_with_a_star_is_that_host_with_any_port() -> None:
    for origin in ("http://example.com", "https://example.com:8443", "http://example.com:1"):
        assert allows(origin, "example.com:*")
    assert not allows("http://www.example.com", "example.com:*")
    assert not allows("ftp://example.com", "example.com:*")


def test_a_bare_host_is_that_host_with_the_scheme_s_own_port() -> None:
    assert allows("http://example.com", "example.com")
    assert allows("https://example.com", "example.com")
    assert not allows("https://example.com:8443", "example.com")


def test_a_star_and_a_port_is_any_host_with_that_port() -> None:
    assert allows("http://whoever.example:8080", "*:8080")
    assert not allows("http://whoever.example", "*:8080")


def test_two_stars_are_everybody() -> None:
    for origin in (STRANGER, "null", "file://", "https://stranger.example:1"):
        assert allows(origin, "*:*")


def test_a_star_and_a_domain_are_the_hosts_below_it() -> None:
    assert allows("https://a.b.example.com", "https://*.example.com")
    assert not allows("https://example.com", "https://*.example.com")
    assert not allows("https://evilexample.com", "https://*.example.com")
    assert allows("http://a.example.com:99", "*.example.com:*")


@pytest.mark.parametrize("pattern", ["", "http://", "a b", "https://x/path", "example.com:99999", "ex*mple.com", "a@b"])
def test_what_is_no_pattern_is_told_at_the_start(pattern: str) -> None:
    with pytest.raises(ValueError, match="is no origin such as"):
        OriginPolicy((pattern,))
    with pytest.raises(ValueError, match="is no origin such as"):
        WorkerSettings(stores=("unix:/nowhere",), origins=(pattern,))


@pytest.mark.parametrize("allowed", [(), ("*:*",), ("app.example:*", "friend.example:*")])
def test_a_page_that_came_by_another_protocol_is_refused(allowed: tuple[str, ...]) -> None:
    policy = OriginPolicy(allowed)
    for host in ("app.example", "friend.example") if allowed else ("app.example",):
        assert policy.refusal(request(f"http://{host}", "app.example")) is None
        assert policy.refusal(request(f"https://{host}", "app.example", secure=True)) is None
        assert "match_origin_protocol" in str(policy.refusal(request(f"https://{host}", "app.example")))
        assert "match_origin_protocol" in str(policy.refusal(request(f"http://{host}", "app.example", secure=True)))
        assert policy.headers(request(f"https://{host}", "app.example")) == {}


def test_by_tls_the_very_host_and_port_may_be_written_as_http() -> None:
    policy = OriginPolicy(())
    for origin, host in (
        ("http://app.example:8443", "app.example:8443"),
        ("http://app.example:443", "app.example"),
        ("http://[::1]:8443", "[::1]:8443"),
    ):
        assert policy.refusal(request(origin, host, secure=True)) is None
        assert policy.headers(request(origin, host, secure=True)) == {}
    for origin, host in (
        ("http://app.example", "app.example"),
        ("http://app.example:80", "app.example"),
        ("http://app.example:8080", "app.example:8443"),
        ("http://www.app.example:8443", "app.example:8443"),
    ):
        assert policy.refusal(request(origin, host, secure=True)) is not None
    assert policy.refusal(request("https://app.example:8443", "app.example:8443")) is not None


def test_with_match_origin_protocol_off_the_protocol_does_not_matter() -> None:
    policy = OriginPolicy(("friend.example",), match_protocol=False)
    for secure in (False, True):
        for origin in ("http://app.example", "https://app.example", "http://friend.example", "https://friend.example"):
            assert policy.refusal(request(origin, "app.example", secure=secure)) is None


def test_a_page_without_a_protocol_of_its_own_is_judged_by_origins_alone() -> None:
    policy = OriginPolicy(("null", "capacitor://localhost"))
    for secure in (False, True):
        assert policy.refusal(request("null", secure=secure)) is None
        assert policy.refusal(request("capacitor://localhost", secure=secure)) is None


def test_only_a_named_host_gets_credentials() -> None:
    policy = OriginPolicy((FRIEND, "*"))
    assert policy.headers(request(FRIEND))["access-control-allow-credentials"] == "true"
    assert policy.headers(request(STRANGER)) == {"access-control-allow-origin": "*"}
    assert policy.headers(request("http://app.example:8000")) == {}
    assert policy.headers(request(None)) == {}
    some = OriginPolicy(("*:8080",))
    assert some.headers(request(f"{STRANGER}:8080")) == {
        "access-control-allow-origin": f"{STRANGER}:8080",
        "vary": "Origin",
    }
    assert some.headers(request(STRANGER)) == {}


async def test_a_stranger_s_page_is_refused_by_every_transport(start_worker: StartWorker, probe: Probe) -> None:
    worker = await start_worker(probe.run, origins=(FRIEND,))
    async with Browser(worker.url) as browser:
        refused = await browser.http.get(POLL, headers={"Origin": STRANGER})
        assert (refused.status_code, refused.json()) == (403, FORBIDDEN)
        assert "access-control-allow-origin" not in refused.headers
    for path in WEBSOCKETS:
        with pytest.raises(InvalidStatus) as error:
            await connect(worker.url.replace("http", "ws") + path, origin=STRANGER)  # type: ignore[arg-type]
        assert error.value.response.status_code == 403


async def test_a_page_by_https_is_refused_without_tls_by_every_transport(start_worker: StartWorker) -> None:
    worker = await start_worker(lambda _worker: None, origins=("friend.example:*",))
    page = FRIEND.replace("http:", "https:")
    async with Browser(worker.url) as browser:
        assert (await browser.http.get(POLL, headers={"Origin": page})).status_code == 403
        assert (
            (await browser.http.options(POLL, headers={"Origin": page}))
            .headers.keys()
            .isdisjoint({"access-control-allow-origin"})
        )
        assert (await browser.http.get(POLL, headers={"Origin": FRIEND})).status_code == 200
    for path in WEBSOCKETS:
        with pytest.raises(InvalidStatus) as error:
            await connect(worker.url.replace("http", "ws") + path, origin=page)  # type: ignore[arg-type]
        assert error.value.response.status_code == 403
        async with connect(worker.url.replace("http", "ws") + path, origin=FRIEND):  # type: ignore[arg-type]
            pass


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
        for accepted, large, encoding in (
            ("gzip", 5000, "gzip"),
            ("gzip", 10, None),
            ("identity", 5000, None),
            ("gzip;q=0", 5000, None),
        ):
            sid = (await browser.http.get(POLL)).text.partition('"sid":"')[2].partition('"')[0]
            socket = await probe.sockets.get()
            socket.send("x" * large)
            response = await browser.http.get(f"{POLL}&sid={sid}", headers={"Accept-Encoding": accepted})
            assert response.headers.get("content-encoding") == encoding
            assert response.text == "4" + "x" * large
