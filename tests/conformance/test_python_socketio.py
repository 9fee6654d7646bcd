"""PyPI's python-socketio client, unmodified."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import socketio
from support.cluster.local import LocalCluster

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize("transports", [["polling"], ["websocket"], ["polling", "websocket"]], ids="-".join)
async def test_python_socketio_5(cluster: LocalCluster, transports: list[str]) -> None:
    async with socketio.AsyncSimpleClient() as client:
        await client.connect(cluster.url, transports=transports)
        assert await client.receive() == ["greet", "hello"]
        assert await client.call("echo", {"text": "ünïcode ✓", "bytes": b"\x00\xff"}) == {
            "text": "ünïcode ✓",
            "bytes": b"\x00\xff",
        }
        assert await client.call("several", (1, 2)) == (2, 1)
        assert (await client.call("refuse"))["error"] == {"name": "RefusedError", "message": "not today"}
        await client.call("join", "lobby")
        await client.call("to room", ("lobby", [b"binary", 1]))
        assert await client.receive() == ["room", [b"binary", 1]]
        assert (await client.call("who"))["protocol"] == "socket.io"


async def test_namespaces_and_acknowledgements_by_the_client(cluster: LocalCluster) -> None:
    client = socketio.AsyncClient()
    asked: list[Any] = []
    welcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    @client.on("question")
    def question(text: str) -> str:
        asked.append(text)
        return f"{text}? yes"

    @client.on("welcome", namespace="/admin")
    def welcomed(data: Any) -> None:
        welcome.set_result(data)

    await client.connect(cluster.url, namespaces=["/", "/admin"], auth={"password": "open sesame"})
    try:
        assert await client.call("ask me", "really") == "really? yes"
        assert asked == ["really"]
        assert await welcome == {"rooms": []}
    finally:
        await client.disconnect()
    with pytest.raises(socketio.exceptions.ConnectionError, match="/admin"):
        await client.connect(cluster.url, namespaces=["/admin"], auth={"password": "wrong"})
    await client.shutdown()
