"""npm's socketcluster-client, unmodified, on the raw WebSocket endpoint."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.node, pytest.mark.timeout(240)]


async def test_socketcluster_client_20(drive: Callable[[str], Awaitable[dict[str, Any]]]) -> None:
    seen = await drive("socketcluster.mjs")
    assert seen["state"] == "open"
    assert seen["greeting"] == "hello"
    assert seen["echo"] == {"text": "ünïcode ✓", "list": [1, 2.5, None, True]}
    assert seen["who"]["protocol"] == "socketcluster"
    assert seen["refused"] == {"name": "RefusedError", "message": "not today"}
    assert seen["failed"]["name"] == "InternalServerError"
    assert "secret" not in seen["failed"]["message"]
    assert seen["nobody"] == "NoHandlerError"
    assert seen["told"] == "transmitted"
    assert seen["answer"] == "really? yes"
    assert seen["subscriptions"] == ["news"]
    assert seen["heard"] == [{"headline": "it works"}] * 2
    assert seen["transmitted"] == "without an answer"
    assert seen["afterUnsubscribe"] == []
    assert seen["closed"] == {"code": 4321, "reason": "as you wish"}
    assert seen["reconnected"] is True
