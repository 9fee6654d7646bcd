"""What comes of a client by one HTTP request: its body, or that the client has gone."""

from __future__ import annotations

from enum import Enum
from typing import Any

from starlette.types import Message, Receive


class Lost(Enum):
    """Why there is no body."""

    TOO_LARGE = "it is over the limit"
    GONE = "the client went away"
    CUT_OFF = "nobody waits for it any more"


async def disconnected(receive: Receive) -> None:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def read_body(receive: Receive, limit: int, announced: str) -> bytes | Lost:
    """Return a request's body, or why there is none."""
    if announced.isdigit() and int(announced) > limit:
        return Lost.TOO_LARGE
    parts: list[bytes] = []
    size = 0
    while True:
        message: Message | dict[str, Any] = await receive()
        if message["type"] == "http.disconnect":
            return Lost.GONE
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            return Lost.TOO_LARGE
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)
