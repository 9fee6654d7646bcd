"""Floods of one client at a worker, and the events of others meanwhile; ``bench.attack`` measures them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from bench.drive.client import frame

ATTACKER = ("127.0.0.2", 0)
CLIENTS = 10
"""Connections of the other clients."""
PATIENCE = 10.0
"""Seconds after which an event has failed."""
PIECE = 65_536
"""Bytes that a flooder writes at a time."""
BODY = 990_000
"""Bytes of a flooding request's body."""

SOCKET_IO = "/socket.io/?EIO=4&transport="
SOCKETCLUSTER = "/socketcluster/"
HANDSHAKE = frame('{"event":"#handshake","data":{},"cid":1}')


async def open_websocket(
    port: int, path: str, local: tuple[str, int] | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a WebSocket; what follows the handshake's answer is still to be read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=local)
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def empty(first: int) -> bytes:
    """Return an empty frame that begins with this byte."""
    return bytes((first, 0x80)) + bytes(4)


def by_websocket(path: str, greeting: bytes, flood: bytes) -> Callable[[int], Awaitable[None]]:
    """Return a flood of frames, whose answers are read."""
    piece = flood * max(1, PIECE // len(flood))

    async def attack(port: int) -> None:
        reader, writer = await open_websocket(port, path, ATTACKER)

        async def read() -> None:
            while await reader.read(PIECE):
                pass
            writer.close()

        reading = asyncio.ensure_future(read())
        try:
            writer.write(greeting)
            while not writer.is_closing():
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
        finally:
            reading.cancel()
            writer.close()

    return attack


def by_polling(packet: str) -> Callable[[int], Awaitable[None]]:
    """Return a flood of requests with as many packets as there may be; answers are polled."""
    body = "\x1e".join([packet] * (BODY // (len(packet) + 1))).encode()

    async def attack(port: int) -> None:
        target = f"{SOCKET_IO}polling"
        opened = await _request(port, "GET", target)
        target += "&sid=" + json.loads(opened[1:])["sid"]
        await _request(port, "POST", target, b"40")

        async def poll() -> None:
            while True:
                await _request(port, "GET", target)

        polling = asyncio.ensure_future(poll())
        try:
            while await _request(port, "POST", target, body) == b"ok":
                pass
        finally:
            polling.cancel()
            with suppress(asyncio.CancelledError, OSError, ValueError):
                await polling

    return attack


async def _request(port: int, method: str, target: str, body: bytes = b"") -> bytes:
    """Return the body of an answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=ATTACKER)
    try:
        head = (
            f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        return (await reader.read()).partition(b"\r\n\r\n")[2]
    finally:
        writer.close()


_PUBLICATION = '{"event":"#publish","data":{"channel":"flooded","data":"x"}}'
_SUBSCRIPTION = '{"event":"#subscribe","data":{"channel":"flooded"}}'
_ITS_END = '{"event":"#unsubscribe","data":"flooded"}'

FLOODS: dict[str, Callable[[int], Awaitable[None]]] = {
    "pings": by_websocket(SOCKETCLUSTER, HANDSHAKE, empty(0x89)),
    "pongs": by_websocket(SOCKETCLUSTER, HANDSHAKE, empty(0x8A)),
    "fragments": by_websocket(SOCKETCLUSTER, HANDSHAKE, empty(0x01) + empty(0x00) * 10_000 + empty(0x80)),
    "calls": by_websocket(SOCKET_IO + "websocket", frame("40"), frame('421["echo",1]')),
    "CONNECTs": by_websocket(SOCKET_IO + "websocket", frame("40"), frame("40/nowhere,")),
    "publications": by_websocket(SOCKETCLUSTER, HANDSHAKE, frame(_PUBLICATION)),
    "subscriptions": by_websocket(SOCKETCLUSTER, HANDSHAKE, frame(_SUBSCRIPTION) + frame(_ITS_END)),
    "polled noops": by_polling("6"),
    "polled pongs": by_polling("3"),
    "polled calls": by_polling('421["echo",1]'),
}
"""Each flood of one connection, again and again."""


class OtherClients:
    """Clients that are connected all the time, each of whose events is acknowledged.

    Args:
        port: of the cluster.
        rate: events a second of all of them.
    """

    def __init__(self, port: int, rate: float) -> None:
        self._port = port
        self._rate = rate
        self._connections: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def open(self) -> None:
        """Connect."""
        for _ in range(CLIENTS):
            reader, writer = await open_websocket(self._port, SOCKET_IO + "websocket")
            writer.write(frame("40"))
            while b"40{" not in await reader.read(PIECE):
                pass
            self._connections.append((reader, writer))

    def close(self) -> None:
        """Disconnect."""
        for _, writer in self._connections:
            writer.close()

    async def measure(self, seconds: float) -> list[float | None]:
        """Send events for so long; return how long each waited for its acknowledgement, ``None`` if in vain."""
        began = time.monotonic()
        each = CLIENTS / self._rate
        found = await asyncio.gather(
            *(
                self._one(reader, writer, began + number / self._rate, each, round(seconds / each))
                for number, (reader, writer) in enumerate(self._connections)
            )
        )
        return [one for some in found for one in some]

    async def _one(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: float, each: float, count: int
    ) -> list[float | None]:
        kept: list[float | None] = []
        for number in range(count):
            due = first + number * each
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            try:
                writer.write(frame('421["echo",1]'))
                async with asyncio.timeout(PATIENCE):
                    while b"431[" not in (got := await reader.read(PIECE)):
                        if not got:
                            raise ConnectionError("the worker closed the connection")
                        if b"\x81\x012" in got:
                            writer.write(frame("3"))
                kept.append(time.monotonic() - due)
            except (
                OSError,
                RuntimeError,
            ):  # TimeoutError is one; the latter is uvloop's, of a connection that has ended
                kept.append(None)
        return kept
