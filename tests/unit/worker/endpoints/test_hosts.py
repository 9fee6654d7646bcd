"""Which hosts requests may be for."""

from __future__ import annotations

import pytest
from pydantic import SecretStr
from support.clients.raw import ENGINE, upgrade
from support.worker.running import RunningWorker, StartWorker, until

from socketcluster_worker.endpoints.hosts import HostPolicy
from socketcluster_worker.settings import WorkerSettings

HEALTH = "/socketcluster/health"


@pytest.mark.parametrize(
    ("allowed", "host", "result"),
    [
        ("", "whatever.example:1", True),
        ("", "", True),
        ("*", "whatever.example:1", True),
        ("*", "", False),
        ("app.example", "app.example", True),
        ("app.example", "APP.example.:8000", True),
        ("app.example", "app.example:", True),
        ("app.example", "www.app.example", False),
        ("app.example", "app.example.evil.example", False),
        ("app.example", "evil.example", False),
        ("app.example", "", False),
        ("*.app.example", "a.b.app.example:80", True),
        ("*.app.example", "app.example", False),
        ("*.app.example", "evilapp.example", False),
        ("App.example:8443", "app.example:8443", True),
        ("app.example:8443", "app.example", False),
        ("app.example:80", "app.example", True),
        ("app.example:443", "app.example", False),
        ("[::1]", "[::1]:8000", True),
        ("192.0.2.1, app.example", "192.0.2.1", True),
    ],
)
def test_a_request_s_host_is_compared(allowed: str, host: str, result: bool) -> None:
    settings = WorkerSettings(stores=("unix:/nowhere",), secret=SecretStr("x" * 16), allowed_hosts=allowed)
    assert HostPolicy(settings.allowed_hosts).allows(host, secure=False) is result


def test_over_tls_the_usual_port_is_another_one() -> None:
    assert HostPolicy(("app.example:443",)).allows("app.example", secure=True)
    assert not HostPolicy(("app.example:80",)).allows("app.example", secure=True)


@pytest.mark.parametrize("pattern", ["http://a.example", "a b", "a.example/", "a.*.example", "a:b", "::1"])
def test_what_is_no_pattern_is_told_at_the_start(pattern: str) -> None:
    with pytest.raises(ValueError, match="is no host such as"):
        WorkerSettings(stores=("unix:/nowhere",), secret=SecretStr("x" * 16), allowed_hosts=pattern)


async def test_nothing_is_served_for_another_host(start_worker: StartWorker) -> None:
    worker = await start_worker(
        lambda worker: worker.http_server.on("req", lambda _: "page"), allowed_hosts="app.example,localhost"
    )
    for target in (
        "/",
        "/socketcluster.js",
        "/socketcluster/",
        ENGINE + "polling",
        "/socket.io/?EIO=4&transport=polling",
    ):
        for host, url, is_served in (
            ("app.example:8000", target, True),
            ("evil.example", target, False),
            ("app.example", f"http://evil.example{target}", False),
            ("evil.example", f"http://app.example{target}", True),
        ):
            client = await worker.connect()
            await client.send(f"GET {url} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            answer = await client.answer()
            assert (answer.status_code != 400) is is_served
            assert is_served or b"allowed_hosts" in answer.body
    client = await worker.connect()
    await client.send(b"GET / HTTP/1.0\r\n\r\n")
    assert (await client.answer()).status_code == 400


async def test_no_websocket_is_opened_for_another_host(start_worker: StartWorker) -> None:
    worker = await start_worker(allowed_hosts="app.example")
    for path in ("/socketcluster/", ENGINE + "websocket", "/engine.io/?EIO=4&transport=websocket", "/own"):
        for host, origin in (("evil.example", "http://evil.example"), ("app.example", "http://app.example")):
            client = await worker.connect()
            await client.send(upgrade(path, Host=host, Origin=origin))
            status = (await client.answer()).status_code
            assert status == (400 if host == "evil.example" else 403 if path == "/own" else 101)


async def test_a_health_check_may_know_no_name(start_worker: StartWorker) -> None:
    worker = await start_worker(allowed_hosts="app.example")
    client = await worker.connect()
    assert (await client.request("GET", HEALTH)).status_code == 200
    assert (await client.request("GET", HEALTH + "x")).status_code == 400


async def test_a_request_that_is_forwarded_is_for_the_same_host(start_worker: StartWorker) -> None:
    owner = await start_worker(name="owner", allowed_hosts="localhost")
    other = await start_worker(name="other", allowed_hosts="localhost")
    await until(lambda: other.service._client.workers.find(owner.worker.id))
    client = await owner.engine()
    raw: RunningWorker = other
    answer = await (await raw.connect()).request("POST", client.target, b"3")
    assert (answer.status_code, answer.body) == (200, b"ok")
