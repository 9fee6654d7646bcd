"""Clients that connect and then do nothing, in a process of their own: ``python -m bench.idle PORT COUNT SOURCE [CA]``.

Each opens a WebSocket and makes SocketCluster's handshake. When all are there, or have failed, one line of JSON says
how many; at the end of standard input another one says how many were lost meanwhile, and the process ends.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from typing import Any

import uvloop

from socketcluster_runtime.sockets import descriptors

AT_ONCE = 100
"""Connections under way to being open."""
PATIENCE = 60.0
"""Seconds that each has for that."""

REQUEST = (
    b"GET /socketcluster/ HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
HANDSHAKE = b'{"event":"#handshake","data":{"authToken":null},"cid":1}'
FRAME = bytes((0x81, 0x80 | len(HANDSHAKE))) + b"\0\0\0\0" + HANDSHAKE


class Idle(asyncio.Protocol):
    """One client."""

    __slots__ = ("lost", "ready", "received", "transport")

    def __init__(self) -> None:
        self.received = b""
        self.lost = False
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        """Ask for a WebSocket."""
        self.transport = transport
        transport.write(REQUEST + FRAME)

    def data_received(self, data: bytes) -> None:
        """Wait for the answer to the handshake."""
        if self.ready.done():
            return
        self.received += data
        if not b"HTTP/1.1 101 ".startswith(self.received[:13]):
            self.ready.set_exception(ConnectionError(self.received[:100].decode("latin-1")))
        elif b'"pingTimeout"' in self.received:
            self.received = b""
            self.ready.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it."""
        self.lost = True
        if not self.ready.done():
            self.ready.set_exception(exc or ConnectionError("closed"))


async def main(port: int, count: int, source: str, authority: str | None) -> None:
    """Be ``count`` clients, until standard input ends."""
    loop = asyncio.get_running_loop()
    tls = None if authority is None else ssl.create_default_context(cafile=authority)
    clients: list[Idle] = []
    errors: dict[str, int] = {}
    left = iter(range(count))

    async def open_some() -> None:
        for _ in left:
            try:
                async with asyncio.timeout(PATIENCE):
                    _, client = await loop.create_connection(
                        Idle,
                        "127.0.0.1",
                        port,
                        ssl=tls,
                        local_addr=(source, 0),
                        server_hostname="127.0.0.1" if tls else None,
                    )
                    await client.ready
            except OSError as error:  # TimeoutError and ConnectionError are, too
                text = f"{type(error).__name__}: {error}"
                errors[text] = errors.get(text, 0) + 1
            else:
                clients.append(client)

    await asyncio.gather(*(open_some() for _ in range(min(AT_ONCE, count))))
    print(json.dumps({"open": len(clients), "errors": errors}), flush=True)  # noqa: T201
    await asyncio.to_thread(sys.stdin.read)
    print(json.dumps({"lost": sum(client.lost for client in clients)}), flush=True)  # noqa: T201
    for client in clients:
        client.transport.abort()


if __name__ == "__main__":
    descriptors.raise_limit()
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4] if len(sys.argv) > 4 else None))
