"""python-socketio on uvicorn: ``python -m bench.peers.with_socketio PORT [CERT KEY]``."""

from __future__ import annotations

import os
from typing import Any

import socketio

from bench.peers.serving import serve

HOUR = 3600

server = socketio.AsyncServer(
    async_mode="asgi",
    transports=["websocket"],
    cors_allowed_origins=[],
    http_compression=False,
    ping_interval=HOUR,
    ping_timeout=HOUR,
)


async def echo(_sid: str, data: Any) -> Any:
    """Acknowledge an event with what it has."""
    return data


async def where(_sid: str, _data: Any) -> str:
    """Say which process this is."""
    return f"process{os.getpid()}"


async def join(sid: str, room: str) -> None:
    """Make the client a member."""
    await server.enter_room(sid, room)


async def say(_sid: str, room: str, data: Any) -> None:
    """Tell the members."""
    await server.emit("said", data, room=room)


for handler in (echo, where, join, say):
    server.on(handler.__name__, handler)

if __name__ == "__main__":
    serve(socketio.ASGIApp(server))
