"""An echo server for the Autobahn suite: the worker's HTTP front and its WebSockets, with nothing behind them.

Usage: ``python autobahn_server.py off|each|kept``: without compression; with it, each message on its own; with it, and
the clients' context kept. Writes its port and serves until it is killed.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop
from uvicorn.config import Config
from uvicorn.server import ServerState

from socketcluster_runtime.trusted_proxies import TrustedProxies
from socketcluster_wire.deflate import DeflateOptions
from socketcluster_worker.connection import Handshake
from socketcluster_worker.transport.http.origin import Origin
from socketcluster_worker.transport.http.protocol import HTTPProtocol
from socketcluster_worker.transport.http.routes import Routes
from socketcluster_worker.transport.websocket import WebSocket, WebSocketOptions

LARGEST = 16 << 20  # of the suite's messages
DEFLATE = {
    "off": None,
    "each": DeflateOptions(threshold=0),
    "kept": DeflateOptions(threshold=0, client_no_context_takeover=False, max_window_bits=15),
}


class Echo:
    """Sends back what it receives."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    def on_message(self, message: str | bytes) -> None:
        if isinstance(message, str):
            self._websocket.send_text(message.encode())
        else:
            self._websocket.send_binary(message)

    def on_close(self, code: int, reason: str) -> None:
        pass


class EchoRouter:
    """Stands in for the worker's endpoints: every path is a WebSocket that echoes."""

    body_window = 15.0
    health_path = ""

    def __init__(self, deflate: DeflateOptions | None) -> None:
        self._options = WebSocketOptions(LARGEST, 4 * LARGEST, "disconnect", deflate)
        self._opened: set[WebSocket] = set()

    def is_for_us(self, host: str, path: str, *, secure: bool) -> bool:
        return True

    def serves(self, path: str) -> bool:
        return True

    def upgrade(
        self, transport: asyncio.Transport, handshake: Handshake, raw_headers: list[tuple[bytes, bytes]] | None = None
    ) -> WebSocket | None:
        websocket = WebSocket(self._options, opened=self._opened)
        if not websocket.accept(transport, handshake, raw_headers, ()):
            return None
        websocket.receiver = Echo(websocket)
        websocket.begin()
        return websocket


async def _nothing(scope: object, receive: object, send: object) -> None:
    """The application that no request reaches."""


async def serve(deflate: DeflateOptions | None) -> None:
    router = cast(Routes, EchoRouter(deflate))
    config = Config(_nothing, ws="websockets-sansio", lifespan="off", proxy_headers=False, log_config=None)
    config.load()
    state = ServerState()
    proxies = TrustedProxies((), "proxy-protocol")
    server = await asyncio.get_running_loop().create_server(
        lambda: HTTPProtocol(config, state, router, proxies, Origin(None, secure=False)), "127.0.0.1", 0
    )
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(DEFLATE[sys.argv[1]]))
