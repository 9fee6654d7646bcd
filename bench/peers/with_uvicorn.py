"""Bare ASGI on uvicorn with websockets: ``python -m bench.peers.with_uvicorn PORT [CERT KEY]``."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

from bench.peers.serving import serve

Send = Callable[[dict[str, Any]], Awaitable[None]]

rooms: dict[str, set[Send]] = {}


def _text(value: Any) -> dict[str, Any]:
    return {"type": "websocket.send", "text": json.dumps(value, separators=(",", ":"))}


async def app(_scope: dict[str, Any], receive: Callable[[], Awaitable[dict[str, Any]]], send: Send) -> None:
    """Serve a client."""
    await receive()
    await send({"type": "websocket.accept"})
    joined: set[str] = set()
    while (message := await receive())["type"] == "websocket.receive":
        event = json.loads(message["text"])
        data = event["data"]
        if event["event"] == "say":
            said = _text({"event": "said", "data": data})
            await asyncio.gather(*(member(said) for member in rooms.get(event["room"], ())), return_exceptions=True)
            continue
        if event["event"] == "join":
            rooms.setdefault(data, set()).add(send)
            joined.add(data)
        elif event["event"] == "where":
            data = f"process{os.getpid()}"
        await send(_text({"rid": event["cid"], "data": data}))
    for room in joined:
        rooms[room].discard(send)


if __name__ == "__main__":
    serve(app)
