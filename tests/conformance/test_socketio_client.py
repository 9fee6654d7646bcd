"""npm's socket.io-client, unmodified."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from support.cluster.local import LocalCluster
from support.network import haproxy

pytestmark = [pytest.mark.node, pytest.mark.timeout(240)]

BYTES = [0, 1, 2, 253, 254, 255]


@pytest.mark.parametrize("how", ["polling", "websocket", "upgrade"])
async def test_socketio_client_4(drive: Callable[..., Awaitable[dict[str, Any]]], how: str) -> None:
    expect_everything(await drive("socketio.mjs", how), how)


@pytest.mark.haproxy
@pytest.mark.cluster_options(workers=3)
@pytest.mark.parametrize("how", ["polling", "upgrade"])
@pytest.mark.parametrize("behind", ["balancers", "workers"])
async def test_behind_a_load_balancer_without_sticky_sessions(
    drive: Callable[..., Awaitable[dict[str, Any]]], cluster: LocalCluster, tmp_path: Path, how: str, behind: str
) -> None:
    async with AsyncExitStack() as stack:
        if behind == "balancers":
            first = int(cluster.url.rpartition(":")[2])
            ports = [first, await stack.enter_async_context(haproxy.second_balancer(cluster))]
        else:
            ports = await haproxy.worker_ports(cluster, 3)
        port = await stack.enter_async_context(haproxy.in_front_of(ports, tmp_path))
        expect_everything(await drive("socketio.mjs", how, url=f"http://127.0.0.1:{port}"), how)


def expect_everything(seen: dict[str, Any], how: str) -> None:
    """What the script sees of a cluster that is in order."""
    assert seen["greeting"] == ["hello"]
    assert seen["transport"] == ("websocket" if how == "upgrade" else how)

    assert seen["echo"] == {"text": "ünïcode ✓", "list": [1, 2.5, None, True]}
    assert seen["several"] == [2, 1]
    assert seen["failed"]["error"]["name"] == "InternalServerError"
    assert "secret" not in seen["failed"]["error"]["message"]
    assert seen["refused"] == {"error": {"name": "RefusedError", "message": "not today"}}
    assert seen["nobody"] == "operation has timed out"  # it is not answered
    assert seen["authenticated"] == ["got", {"token": 1}]
    assert seen["placeholder"] == {"_placeholder": True, "num": 7}
    assert seen["reserved"] == "ReservedEventError"
    assert seen["answer"] == "really? yes"
    assert seen["timeout"] == "operation has timed out"

    assert seen["binary"] == [BYTES, BYTES, "text", 1]
    assert seen["message"] == BYTES

    assert seen["rooms"] == ["lobby"]
    assert seen["room"] == [["all", BYTES]] * 2
    assert seen["others"] == ["others"]
    assert seen["everybody"] == ["else"]
    assert seen["excepted"] == ["not in the lobby"]
    assert seen["onlyOne"] == ["only one"]
    assert seen["unwanted"] == [0, 0]
    assert seen["last"] == [4, ["several", 2]]
    assert seen["volatile"] == ["now"]

    assert seen["stranger"] == ["not for you", {"hint": "say please"}]
    assert seen["welcome"] == [{"rooms": []}]
    assert seen["shouted"] == ["loud"]
    assert seen["nowhere"] == "Invalid namespace"

    assert seen["ended"] == "io server disconnect"
    assert seen["active"] is False
    assert seen["again"] == "again"


@pytest.mark.cluster_options("--recovery-window", "30")
async def test_connection_state_recovery(
    drive: Callable[..., Awaitable[dict[str, Any]]], cluster: LocalCluster
) -> None:
    await cluster.serving_workers(at_least=2)  # one that comes later has not heard what was sent before
    seen = await drive("socketio-recovery.mjs")
    assert seen["fresh"] is False
    assert seen["recovered"] is True
    assert seen["sameId"] is True
    assert seen["got"] == ["before", "missed 1", "missed 2", "after"]
    assert seen["rooms"] == ["lobby"]
    assert seen["remembered"] == "this"
    assert seen["sameSession"] is True
    assert seen["afterDisconnect"] is False


async def test_what_the_client_s_own_suite_asks_of_a_server(drive: Callable[..., Awaitable[dict[str, Any]]]) -> None:
    seen = await drive("socketio-suite.mjs")
    timed_out = "operation has timed out"
    assert [seen[how] for how in ("callback", "promise", "default", "retried")] == [timed_out] * 4
    assert seen["counted"] == [1, 1, 1]  # once, and two retries
    assert seen["sent"] == ['["echo all",null]', '["echo","behind it"]']
    assert seen["inTime"] == 42
    assert seen["order"] == ["first", "second", "third"]
    query = {"b": "c", "d": "e&f", "EIO": "4", "transport": "polling"}
    assert {name: seen["handshake"]["query"].get(name) for name in query} == query
    assert seen["handshake"]["auth"] == {"password": "open sesame", "é": 1}
    assert seen["query"] == "&=?a"
    assert seen["oneConnection"] is True
    assert seen["alive"] == "open sesame"
    assert seen["ids"] == [False, True]
    assert seen["values"] == [False, 0, "", None, "てすと", "utf8 — string"]
    assert seen["reason"] == "forced close"
    assert seen["newId"] is True
