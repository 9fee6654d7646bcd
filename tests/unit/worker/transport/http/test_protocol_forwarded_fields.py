"""Requests by way of proxies that say in header fields whose they are."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs
from support.clients.raw import ENGINE, RawClient, RawWebSocket, event, frame, upgrade
from support.worker.running import Probe, RunningWorker, StartWorker, until

from socketcluster_runtime.secrets.keys import Purpose, derive_key
from socketcluster_runtime.trusted_proxies import SAMPLE
from socketcluster_wire import handoff, proxy_protocol
from socketcluster_worker.api.worker import Worker

KEY = derive_key("a secret of the tests", Purpose.PROXY_HEADERS)
CLIENT = "203.0.113.7"
X_FORWARDED = {"trusted_proxies": ("127.0.0.1", "10.0.0.0/8"), "proxy_headers": "x-forwarded"}
FORWARDED = X_FORWARDED | {"proxy_headers": "forwarded"}
SAID = {"X_Forwarded_For": CLIENT, "X_Forwarded_Proto": "https", "X_Forwarded_Host": "app.example"}
ELEMENT = {"Forwarded": f"for={CLIENT};proto=https;host=app.example"}


def tell(worker: Worker) -> None:
    """Be a controller that tells clients who they are."""

    @worker.http_server.on("req")
    def page(request: Any) -> Any:
        return {
            "client": request.client and list(request.client),
            "url": str(request.url),
            "forwarded": request.headers.get("x-forwarded-for"),
        }

    @worker.ws_server.on("connection")
    def connected(client: Any) -> None:
        client.on("who", lambda: [client.handshake.address, client.handshake.secure, client.handshake.headers["host"]])


async def ask(worker: RunningWorker, **headers: str) -> dict[str, Any]:
    """Return what a page says."""
    client = await worker.connect()
    answer = await client.request("GET", "/page", None, **headers)
    assert answer.status_code == 200, answer
    told: dict[str, Any] = json.loads(bytes(answer.body))
    return told | {"cookie": answer.headers["set-cookie"]}


async def cookies(worker: RunningWorker) -> str:
    """Return those of a session, by TLS and without: who is given one must open a connection anew."""
    return "; ".join([(await ask(worker, **said))["cookie"].partition(";")[0] for said in ({}, SAID)])


async def get(client: RawClient, path: str, said: dict[str, str], cookie: str) -> Any:
    """Return what is answered on a connection that may go on."""
    answer = await client.request("GET", path, None, **said, Cookie=cookie)
    return json.loads(bytes(answer.body or b""))


async def who(client: RawClient, **headers: str) -> tuple[list[Any], str]:
    """Open a WebSocket; return what it says, and the cookie."""
    await client.send(upgrade(**headers))
    answer = await client.answer()
    assert answer.status_code == 101, answer
    websocket = RawWebSocket(client, answer)
    await websocket.send(frame(event("#handshake", {}, 1)), frame(event("who", None, 2)))
    await websocket.next_json()
    return (await websocket.next_json())["data"], answer.headers.get("set-cookie", "")


@pytest.mark.parametrize(("options", "said"), [(X_FORWARDED, SAID), (FORWARDED, ELEMENT)], ids=["x", "rfc 7239"])
async def test_a_trusted_proxy_is_believed(
    start_worker: StartWorker, options: dict[str, Any], said: dict[str, str]
) -> None:
    worker = await start_worker(tell, **options)
    told = await ask(worker, **said)
    assert (told["client"], told["url"]) == ([CLIENT, 0], "https://app.example/page")
    assert "; Secure" in told["cookie"]
    heard, cookie = await who(await worker.connect(), **said)
    assert heard == [[CLIENT, 0], True, "app.example"]
    assert "; Secure" in cookie


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"proxy_headers": "x-forwarded"},
        {"proxy_headers": "forwarded"},
        X_FORWARDED | {"trusted_proxies": ("10.0.0.0/8", "::1")},
        FORWARDED | {"trusted_proxies": ("10.0.0.0/8", "::1")},
    ],
    ids=["default", "x, nobody", "rfc 7239, nobody", "x, others", "rfc 7239, others"],
)
async def test_nobody_else_is_believed(start_worker: StartWorker, options: dict[str, Any]) -> None:
    worker = await start_worker(tell, **options)
    told = await ask(worker, **SAID, **ELEMENT)
    assert (told["client"][0], told["url"]) == ("127.0.0.1", "http://localhost/page")
    assert told["forwarded"] == CLIENT  # a header field as any other
    assert "Secure" not in told["cookie"]
    heard, cookie = await who(await worker.connect(), **SAID, **ELEMENT)
    assert heard[0][0] == "127.0.0.1"
    assert heard[1:] == [False, "localhost"]
    assert "Secure" not in cookie


async def test_the_other_fields_say_nothing(start_worker: StartWorker) -> None:
    for options, said in ((X_FORWARDED, ELEMENT), (FORWARDED, SAID)):
        told = await ask(await start_worker(tell, **options), **said)
        assert (told["client"][0], told["url"]) == ("127.0.0.1", "http://localhost/page")


async def test_what_a_client_writes_itself_is_left_of_what_the_proxy_writes(start_worker: StartWorker) -> None:
    worker = await start_worker(tell, **X_FORWARDED)
    client = await worker.connect()
    await client.send(
        b"GET /page HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 127.0.0.1, 10.0.0.9\r\nX-Forwarded-Proto: https\r\n"
        b"x-forwarded-for: 203.0.113.7\r\nX-FORWARDED-PROTO: http\r\nX_Forwarded_For: 6.6.6.6\r\n\r\n"
    )
    told = json.loads(bytes((await client.answer()).body))
    assert (told["client"], told["url"]) == ([CLIENT, 0], "http://x/page")
    many = "6.6.6.6, " * 6000 + CLIENT
    assert (await ask(worker, X_Forwarded_For=many))["client"] == [CLIENT, 0]
    assert (await ask(worker, X_Forwarded_For=f"{CLIENT}, nonsense"))["client"][0] == "127.0.0.1"


async def test_each_request_of_a_connection_has_its_own_client(start_worker: StartWorker) -> None:
    """A proxy that is in front of a worker itself may keep its connections."""
    worker = await start_worker(tell, **X_FORWARDED)
    cookie = await cookies(worker)
    proxys = await worker.connect()
    for said, client, url in (
        (SAID, CLIENT, "https://app.example/page"),
        ({"X_Forwarded_For": "203.0.113.8"}, "203.0.113.8", "http://localhost/page"),
        ({}, "127.0.0.1", "http://localhost/page"),
        ({"X_Forwarded_Proto": "https"}, "127.0.0.1", "https://localhost/page"),
    ):
        told = await get(proxys, "/page", said, cookie)
        assert (told["client"][0], told["url"]) == (client, url)
    heard, _ = await who(proxys, **SAID, Cookie=cookie)
    assert heard == [[CLIENT, 0], True, "app.example"]


async def test_a_request_for_another_protocol_than_websocket(start_worker: StartWorker) -> None:
    worker = await start_worker(tell, **X_FORWARDED)
    told = await ask(worker, **SAID, Upgrade="h2c", Connection="Upgrade")
    assert (told["client"], told["url"]) == ([CLIENT, 0], "https://app.example/page")


async def test_a_host_that_is_told_stands_for_that_of_the_target(start_worker: StartWorker) -> None:
    worker = await start_worker(tell, **X_FORWARDED)
    client = await worker.connect()
    answer = await client.request("GET", "http://other.example/page?a=b", None, **SAID)
    assert json.loads(bytes(answer.body))["url"] == "https://app.example/page?a=b"
    fields = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in SAID.items())
    request = upgrade("http://other.example/socketcluster/").replace(b"\r\n\r\n", b"\r\n" + fields.encode() + b"\r\n")
    client = await worker.connect()
    await client.send(request + frame(event("#handshake", {}, 1)) + frame(event("who", None, 2)))
    websocket = RawWebSocket(client, await client.answer())
    await websocket.next_json()
    assert (await websocket.next_json())["data"][2] == "app.example"


async def test_origins_and_hosts_are_judged_by_what_is_told(start_worker: StartWorker) -> None:
    worker = await start_worker(tell, **X_FORWARDED, allowed_hosts=("app.example",))

    async def status(origin: str, **said: str) -> int:
        client = await worker.connect()
        await client.send(upgrade(Origin=origin, **said))
        return (await client.answer()).status_code

    assert await status("https://app.example", **SAID) == 101
    assert await status("http://app.example", **SAID) == 403
    assert await status("https://evil.example", **SAID) == 403
    assert await status("https://app.example", **SAID | {"X_Forwarded_Proto": "http"}) == 403
    assert await status("https://evil.example", **SAID | {"X_Forwarded_Host": "evil.example"}) == 400
    assert await status("https://app.example", Host="app.example", X_Forwarded_Proto="https") == 101
    assert await status("https://app.example", X_Forwarded_Proto="https") == 400  # for localhost
    assert await status("https://app.example", **SAID | {"X_Forwarded_Host": "app.example, evil.example"}) == 400


async def test_mounted_apps_are_told(start_worker: StartWorker) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        connection = HTTPConnection(scope)
        told = json.dumps([connection.client and list(connection.client), str(connection.url)])
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": told})
            await send({"type": "websocket.close"})
        else:
            await send(
                {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(told))]}
            )
            await send({"type": "http.response.body", "body": told.encode()})

    worker = await start_worker(lambda worker: worker.http_server.mount(app, "/app"), **X_FORWARDED)
    client = await worker.connect()
    answer = await client.request("GET", "/app/x", None, **SAID)
    assert json.loads(bytes(answer.body)) == [[CLIENT, 0], "https://app.example/app/x"]
    client = await worker.connect()
    await client.send(upgrade("/app/x", **SAID))
    assert await RawWebSocket(client, await client.answer()).next_json() == [[CLIENT, 0], "wss://app.example/app/x"]
    client = await worker.connect()  # without such fields, the worker's own balancers tell
    header = proxy_protocol.encode((CLIENT, 4711), ("127.0.0.1", 80), tls=True, key=KEY)
    await client.send(header + upgrade("/app/x"))
    assert await RawWebSocket(client, await client.answer()).next_json() == [[CLIENT, 4711], "wss://localhost/app/x"]


async def test_a_balancer_tells_who_the_proxy_is(start_worker: StartWorker) -> None:
    worker = await start_worker(tell, **X_FORWARDED)
    cookie = await cookies(worker)
    for source, tls, client, url in (
        ("10.0.0.9", False, [CLIENT, 0], "https://app.example/page"),
        ("198.51.100.1", True, ["198.51.100.1", 5], "https://localhost/page"),  # no proxy of ours
        ("198.51.100.1", False, ["198.51.100.1", 5], "http://localhost/page"),
    ):
        header = proxy_protocol.encode((source, 5), ("127.0.0.1", 80), tls=tls, key=KEY)
        raw = await worker.connect()
        await raw.send(header)
        answer = await raw.request("GET", "/page", None, **SAID, Cookie=cookie)
        told = json.loads(bytes(answer.body))
        assert (told["client"], told["url"]) == (client, url)
        if source.startswith("10."):  # the balancer is to see the next request, which may be another client's
            assert answer.headers["connection"] == "close"
            assert await raw.closed() == b""
        else:
            assert (await get(raw, "/page", {}, cookie))["client"] == client


async def test_the_connections_that_are_handed_over_have_one_request(start_worker: StartWorker) -> None:
    worker = await start_worker(tell, **X_FORWARDED)
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        link.connect(worker.handoff_path)
        link.setblocking(False)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = RawClient(*await asyncio.open_connection(*listener.getsockname()))
            accepted, _ = listener.accept()
        head = b"GET /page HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n"
        smuggled = b"GET /page HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"
        socket.send_fds(link, [handoff.encode(handoff.Handoff(1, head + smuggled, False, None))], [accepted.fileno()])
        await loop.sock_recv(link, handoff.MAX_REPLY_BYTES)
        accepted.close()
        answer = await client.answer()
        assert json.loads(bytes(answer.body))["client"] == [CLIENT, 0]
        assert await client.closed() == b""
        client.close()


async def test_whoever_forwards_has_asked_already(start_worker: StartWorker, probe: Probe) -> None:
    """Between workers the client travels in the signed header, and the host as such."""
    owner = await start_worker(tell, name="owner", **X_FORWARDED)
    other = await start_worker(probe.run, name="other", **X_FORWARDED)
    await until(lambda: other.service._client.workers.find(owner.worker.id))
    sid = await opened(owner)
    raw = await other.connect()
    target = f"http://other.example{ENGINE}websocket&sid={sid}"
    await raw.send(upgrade(target, **SAID, Origin="https://app.example"))
    answer = await raw.answer()
    assert answer.status_code == 101, answer  # the origin is that of the host which was told
    for host, status in (("app.example", 200), ("evil.example", 403)):
        sid = await opened(owner)
        raw = await other.connect()
        said = SAID | {"X_Forwarded_Host": host, "Origin": "https://app.example"}
        answer = await raw.request("POST", f"{ENGINE}polling&sid={sid}", b"6", **said)
        assert answer.status_code == status, answer.body
    header = proxy_protocol.encode(("10.0.0.9", 5), ("", 0), tls=False, key=KEY, forwarded=True)
    raw = await owner.connect()
    await raw.send(header)
    told = json.loads(bytes((await raw.request("GET", "/page", None, **SAID)).body))
    assert (told["client"], told["url"]) == (["10.0.0.9", 5], "http://localhost/page")


async def opened(worker: RunningWorker) -> str:
    """Return the sid of a new polling client."""
    return (await worker.engine()).sid


async def test_a_proxy_that_is_not_believed_is_named_once(start_worker: StartWorker) -> None:
    worker = await start_worker(tell)
    cookie = await cookies(worker)
    client = await worker.connect()
    with capture_logs() as lines:
        for _ in range(3 * SAMPLE):
            await get(client, "/page", SAID, cookie)
            await client.request("GET", "/socketcluster/health")
    found = [line for line in lines if "proxy_headers" in line]
    assert [(line["trusted_proxies"], line["proxy_headers"]) for line in found] == [("127.0.0.1", "x-forwarded")]


async def test_where_proxies_are_believed_none_is_named(start_worker: StartWorker) -> None:
    worker = await start_worker(tell, **X_FORWARDED)
    cookie = await cookies(worker)
    client = await worker.connect()
    with capture_logs() as lines:
        for _ in range(2 * SAMPLE):
            await get(client, "/page", SAID, cookie)
    assert [line for line in lines if "proxy_headers" in line] == []
