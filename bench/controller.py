"""What the benchmarked cluster runs: an acknowledged event, and where a client is."""

from __future__ import annotations

from typing import Any

from socketcluster_worker.api.sockets.socket import Socket
from socketcluster_worker.api.worker import Worker


def run(worker: Worker) -> None:
    """Answer events with what they have."""

    @worker.ws_server.on("connection")
    def connected(socket: Socket) -> None:
        @socket.on("message")
        def message(data: str | bytes) -> None:
            socket.send(data)

        @socket.on("echo")
        async def echo(data: Any) -> Any:
            return data

        @socket.on("where")
        def where() -> str:
            return worker.id
