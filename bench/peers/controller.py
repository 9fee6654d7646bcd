"""What this server runs when it is measured: the same work as its peers'."""

from __future__ import annotations

from typing import Any

from socketcluster_worker.api.sockets.socket import Socket
from socketcluster_worker.api.worker import Worker


def run(worker: Worker) -> None:
    """Serve clients of all protocols."""

    @worker.ws_server.on("connection")
    def connected(socket: Socket) -> None:
        @socket.on("echo")
        async def echo(data: Any) -> Any:
            return data

        @socket.on("where")
        def where(_data: Any) -> str:
            return worker.id

        @socket.on("join")
        def join(room: str) -> None:
            socket.join(room)

        @socket.on("say")
        def say(room: str, data: Any) -> None:
            worker.ws_server.to(room).emit("said", data)

        @socket.on("put")
        async def put(data: Any) -> None:
            await socket.session.set("value", data)

        @socket.on("fetch")
        async def fetch(_data: Any) -> Any:
            return await socket.session.get("value")
