"""A cluster behind HAProxy, which tells by the PROXY protocol who its clients are."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any

import pytest
from support.cluster.local import LocalCluster
from support.network import certificates, haproxy

pytestmark = pytest.mark.haproxy

CONTROLLER = Path(__file__).parents[1] / "controllers" / "scenario" / "controller.py"
CLIENT = "127.0.0.9"
"""An address of this machine that nobody else connects from."""


async def who(port: int, tls: ssl.SSLContext | None = None) -> dict[str, Any]:
    """Ask who the client is."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(CLIENT, 0), ssl=tls)
    writer.write(b"GET /who HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    said: dict[str, Any] = json.loads(body)
    return said | {"secure": b"; Secure" in head}


@pytest.mark.parametrize("header", ["send-proxy", "send-proxy-v2"])
@pytest.mark.parametrize("handoff", ["true", "false"], ids=["handover", "relay"])
async def test_a_balancer_passes_on_what_it_is_told(tmp_path: Path, header: str, handoff: str) -> None:
    options = ("--trusted-proxies", "127.0.0.1/32", "--handoff", handoff)
    async with LocalCluster(CONTROLLER, tmp_path / "data", *options) as cluster:
        port = int(cluster.url.rpartition(":")[2])
        async with haproxy.in_front_of([port], tmp_path, header) as front:
            for _ in range(4):
                said = await who(front)
                assert (said["address"], said["secure"]) == (CLIENT, False)


async def test_a_balancer_that_ends_tls_behind_the_header(tmp_path: Path) -> None:
    files = certificates.make(tmp_path, "first")
    tls = ssl.create_default_context(cafile=str(files.cert))
    options = ("--trusted-proxies", "127.0.0.1", "--tls-cert", str(files.cert), "--tls-key", str(files.key))
    async with LocalCluster(CONTROLLER, tmp_path / "data", *options) as cluster:
        port = int(cluster.url.rpartition(":")[2])
        async with haproxy.in_front_of([port], tmp_path, "send-proxy-v2") as front:
            said = await who(front, tls)
            assert (said["address"], said["secure"]) == (CLIENT, True)


async def test_workers_without_a_balancer_of_ours(tmp_path: Path) -> None:
    """Each worker believes what HAProxy says; between them, they believe what is signed."""
    async with LocalCluster(CONTROLLER, tmp_path / "data", "--trusted-proxies", "127.0.0.1", workers=3) as cluster:
        ports = await haproxy.worker_ports(cluster, 3)
        async with haproxy.in_front_of(ports, tmp_path, "send-proxy-v2") as front:
            said = [await who(front) for _ in range(3)]
            assert {each["address"] for each in said} == {CLIENT}
            assert len({each["worker"] for each in said}) == 3  # it goes round
            for _ in range(3):  # a session that begins at each of them
                assert await who_by_polling(front) == CLIENT


async def who_by_polling(port: int) -> str:
    """Ask who the client is by polling, each request by a connection of its own."""
    sid = ""

    async def request(body: str | None = None) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(CLIENT, 0))
        writer.write(
            f"{'POST' if body else 'GET'} /socketcluster/engine/?EIO=4&transport=polling{sid} HTTP/1.1\r\n"
            f"host: test\r\nconnection: close\r\ncontent-length: {len(body or '')}\r\n\r\n{body or ''}".encode()
        )
        head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        assert head.startswith(b"HTTP/1.1 200"), (head, answer)
        return answer.decode()

    sid = "&sid=" + json.loads((await request())[1:])["sid"]
    await request('4{"event":"#handshake","data":{},"cid":1}')
    await request('4{"event":"who","data":null,"cid":2}')
    while True:
        for packet in (await request()).split("\x1e"):
            message = json.loads(packet[1:] or "{}")
            if message.get("rid") == 2:
                address: str = message["data"]["address"]
                return address
