"""npm's socketcluster-client, versions 20 and 14, unmodified: authentication, refusals, batches, kicking out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support.cluster.local import LocalCluster

pytestmark = [pytest.mark.node, pytest.mark.timeout(240)]

CONTROLLER = Path(__file__).parents[1] / "controllers" / "guarded" / "controller.py"
KEY = "the key of the tests' auth tokens, of which the tests know"


@pytest.fixture
def options() -> tuple[str, ...]:
    return ()


@pytest.fixture
async def cluster(tmp_path: Path, options: tuple[str, ...]) -> AsyncIterator[LocalCluster]:
    async with LocalCluster(CONTROLLER, tmp_path / "data", "--auth-key", KEY, *options) as running:
        yield running


@pytest.mark.parametrize("options", [(), ("--batch-interval", "0.02")], ids=["single", "batched"])
async def test_socketcluster_client_20_authenticates(drive: Callable[..., Awaitable[dict[str, Any]]]) -> None:
    seen = await drive("socketcluster-auth.mjs")
    assert seen["fresh"] == [False, None, "unauthenticated"]
    assert seen["waiting"] == "pending"
    assert seen["authenticated"] == ["authenticated", "Ann", 86400, "subscribed"]
    assert seen["whoAmI"] == "Ann"
    assert seen["again"] == [True, "authenticated", "Ann"]
    assert seen["kicked"] == "you are noisy"
    assert seen["afterKick"] == "unsubscribed"
    assert seen["loggedOut"] == ["unauthenticated", None]
    assert seen["authenticate"] == {"isAuthenticated": True, "authError": None}
    assert seen["bob"] == "Bob"
    assert seen["deauthenticated"] == ["unauthenticated", None]
    told = [["authenticate", "Ann"], ["deauthenticate", "Ann"], ["authenticate", "Bob"], ["deauthenticate", "Bob"]]
    assert seen["heard"] == told
    assert (seen["stale"]["name"], seen["stale"]["isBadToken"]) == ("AuthTokenExpiredError", True)
    assert (seen["garbage"]["name"], seen["garbage"]["isBadToken"]) == ("AuthTokenInvalidError", True)
    error = {"name": "EveError", "message": "not Eve", "isBadToken": False}
    assert seen["refused"] == {"isAuthenticated": False, "authError": error}
    assert seen["expired"] == [False, "AuthTokenExpiredError", True, "unauthenticated"]
    assert seen["dropped"] is None
    assert seen["shortLived"] == "authenticated"
    assert seen["ranOut"] == ["unauthenticated", None]
    assert seen["batch"] == [1, 2, 3]
    assert sorted(seen["batched"]) == ["a", "b"]
    assert seen["forbidden"] == {"name": "ForbiddenError", "message": "members only"}
    assert seen["unpublished"] == {"name": "ForbiddenError", "message": "read only"}
    assert seen["published"] == "plain"
    assert seen["handshake"] == [4008, "RefusedClientError"]
    assert seen["banned"] == [4501, "BannedClientError"]
    assert seen["given"] == ["authenticated", "Dan", "Dan"]
    assert seen["givenAgain"] == [True, "authenticated", "Dan", "Dan"]
    assert seen["nulls"] == [None, "undefined"]
    assert seen["empty"] == "undefined"
    assert seen["binary"] == "binary"


@pytest.mark.parametrize(
    "options", [("--protocol-version", "1", "--heartbeat-interval", "1", "--heartbeat-timeout", "1.5")]
)
async def test_socketcluster_client_14_speaks_version_1(drive: Callable[..., Awaitable[dict[str, Any]]]) -> None:
    seen = await drive("socketcluster-v1.mjs")
    assert seen["connected"] == [True, False, "open"]
    assert seen["greeting"] == "hello"
    assert seen["echo"] == {"text": "ünïcode ✓", "list": [1, 2.5, None, True]}
    assert seen["refused"] == {"name": "RefusedError", "message": "not today"}
    assert seen["failed"] == "InternalServerError"
    assert seen["answer"] == "really? yes"
    assert seen["heard"] == "it works"
    assert seen["kicked"] == "you are noisy"
    assert seen["afterKick"] == "unsubscribed"
    assert seen["forbidden"] == {"name": "ForbiddenError", "message": "members only"}
    assert sorted(seen["batched"]) == ["a", "b"]
    assert seen["authenticated"] == ["authenticated", "Ann"]
    assert seen["disconnected"] == [4321, "as you wish"]
    assert seen["again"] == [True, "Ann"]
    assert seen["loggedOut"] == "unauthenticated"
    assert (seen["stale"]["name"], seen["stale"]["isBadToken"]) == ("AuthTokenExpiredError", True)
    assert seen["authenticate"] is True
    assert seen["alive"] == "after three pings"


@pytest.mark.parametrize("how", ["polling", "websocket", "both"])
async def test_the_own_browser_client_authenticates(drive: Callable[..., Awaitable[dict[str, Any]]], how: str) -> None:
    client = Path(__file__).parents[2] / "clients" / "js" / "socketcluster.js"
    seen = await drive("own-client.mjs", how, str(client))
    assert seen["fresh"] == [None, None]
    assert seen["login"] == ["Ann", 1, "Ann"]
    assert seen["again"] == "Ann"
    assert seen["loggedOut"] == [None, None, 0, None]
    assert seen["deauthenticated"] == [None, None]
    assert seen["stale"] == "AuthTokenExpiredError"
    assert seen["given"] == ["Dan", "Dan"]
    assert seen["banned"] == ["never you", "closed"]
    assert seen["empty"] == "undefined"
