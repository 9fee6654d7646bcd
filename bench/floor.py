"""The floor: an echo server that does nothing but find the ends of WebSocket frames, in bare asyncio on uvloop."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import sys
from typing import Any

import uvloop

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Echo(asyncio.Protocol):
    """Answers the handshake, then sends each short masked frame back."""

    def __init__(self) -> None:
        self._head = b""
        self._open = False
        self._transport: Any

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Echo; a frame is expected to arrive whole, and to be short."""
        if self._open:
            position = 0
            while position < len(data):
                length = data[position + 1] & 0x7F
                mask = data[position + 2 : position + 6]
                body = data[position + 6 : position + 6 + length]
                number = int.from_bytes(body, "big") ^ int.from_bytes((mask * (length // 4 + 1))[:length], "big")
                self._transport.write(bytes((0x81, length)) + number.to_bytes(length, "big"))
                position += 6 + length
            return
        self._head += data
        if self._head.endswith(b"\r\n\r\n"):
            lines = self._head.split(b"\r\n")
            key = next(line.split(b": ", 1)[1] for line in lines if line.lower().startswith(b"sec-websocket-key:"))
            accept = base64.b64encode(hashlib.sha1(key + GUID).digest())  # noqa: S324  # RFC 6455, section 4.2.2
            self._transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
            )
            self._open = True


async def main() -> None:
    """Serve on a free port, whose number is printed."""
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
