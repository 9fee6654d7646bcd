"""The worker's own port behind load balancers that say who the client is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.worker.running import RunningWorker, StartWorker

from socketcluster_runtime.secrets.keys import Purpose, derive_key
from socketcluster_wire import proxy_protocol
from socketcluster_worker.api.worker import Worker

KEY = derive_key("a secret of the tests", Purpose.PROXY_HEADERS)
V1 = b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n"
V2_TLS = (
    proxy_protocol.SIGNATURE + b"\x21\x11\x00\x14" + bytes([203, 0, 113, 7, 198, 51, 100, 1]) + b"\x12\x67\x01\xbb"
    b"\x20\x00\x05\x01\x00\x00\x00\x00"
)  # fmt: skip
SIGNED = proxy_protocol.encode(("203.0.113.7", 4711), ("", 0), tls=True, key=KEY)
FORGED = proxy_protocol.encode(("203.0.113.7", 4711), ("", 0), tls=True, key=b"another secret")


def tell(worker: Worker) -> None:
    """Be a controller that tells clients who they are."""

    @worker.http_server.on("req")
    def page(request: Any) -> Any:
        return {"client": request.client.host, "scheme": request.url.scheme}


async def ask(worker: RunningWorker, header: bytes) -> Any:
    """Return what a client gets; ``None``: its connection was closed."""
    raw = await worker.connect()
    await raw.send(header + b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    return json.loads((await raw.closed()).partition(b"\r\n\r\n")[2] or b"null")


@pytest.mark.parametrize(
    ("header", "scheme"),
    [(V1, "http"), (V2_TLS, "https"), (SIGNED, "https")],
    ids=["version 1", "version 2", "signed"],
)
async def test_a_trusted_proxy_is_believed(start_worker: StartWorker, header: bytes, scheme: str) -> None:
    worker = await start_worker(tell, trusted_proxies=("127.0.0.0/8",))
    assert await ask(worker, header) == {"client": "203.0.113.7", "scheme": scheme}


@pytest.mark.parametrize("header", [b"", V1[:-1], FORGED], ids=["none", "cut", "forged"])
async def test_of_a_trusted_proxy_every_connection_has_a_header(start_worker: StartWorker, header: bytes) -> None:
    worker = await start_worker(tell, trusted_proxies=("127.0.0.1",))
    with capture_logs() as lines:
        assert await ask(worker, header) is None
    assert [line["connections"] for line in lines if line["log_level"] == "warning"] == [1]
    assert await ask(worker, V1) is not None


async def test_nobody_else_is_believed(start_worker: StartWorker) -> None:
    worker = await start_worker(tell, trusted_proxies=("192.0.2.0/24", "fd00::/8"))
    assert await ask(worker, SIGNED) == {"client": "203.0.113.7", "scheme": "https"}
    assert await ask(worker, b"") == {"client": "127.0.0.1", "scheme": "http"}
    assert await ask(worker, V2_TLS) is None
    assert await ask(worker, FORGED) is None
    raw = await worker.connect()
    await raw.send(V1 + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await raw.answer()).status_code == 400
