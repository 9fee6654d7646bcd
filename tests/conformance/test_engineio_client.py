"""npm's engine.io-client, unmodified."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.node, pytest.mark.timeout(240)]


@pytest.mark.parametrize("how", ["polling", "websocket", "upgrade"])
async def test_engineio_client_6(drive: Callable[..., Awaitable[dict[str, Any]]], how: str) -> None:
    seen = await drive("engineio.mjs", how)
    assert seen["opened"] == ("polling" if how == "upgrade" else how)
    assert seen["transport"] == ("websocket" if how == "upgrade" else how)
    assert seen["got"] == [f"{number} ünïcode ✓" for number in range(100)]
    assert seen["binary"] == [0, 1, 2, 253, 254, 255]
    assert seen["isBinary"] is True
    assert seen["large"] == 200_000
    assert seen["closed"] == "forced close"
