"""A server of raw WebSockets that does what a test tells it to, for the clients of `socketcluster bench`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from socketcluster.bench import frames
from socketcluster_wire import websocket


class BenchServer:
    """Answers each message by the same one, unless it is told otherwise."""

    def __init__(self) -> None:
        self.port = 0
        self.status = 101
        self.body = b""
        self.answers = True
        """Is there an answer to a message?"""
        self.to_all = False
        """Does it go to all?"""
        self.drops_after: int | None = None
        """End a connection after so many messages."""
        self.requests: list[str] = []
        self.received: list[bytes] = []
        self.writers: list[asyncio.StreamWriter] = []

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a client."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.requests.append(head)
            if self.status != 101:
                writer.write(
                    f"HTTP/1.1 {self.status} No\r\ncontent-length: {len(self.body)}\r\n\r\n".encode() + self.body
                )
                return
            key = next(line.split(": ")[1] for line in head.split("\r\n") if line.startswith("Sec-WebSocket-Key: "))
            writer.write(f"HTTP/1.1 101 Yes\r\nSec-WebSocket-Accept: {frames.accept_of(key)}\r\n\r\n".encode())
            self.writers.append(writer)
            await self._messages(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            if writer in self.writers:
                self.writers.remove(writer)
            writer.close()

    async def _messages(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frame_reader, count = websocket.FrameReader(1 << 20), 0
        while data := await reader.read(1 << 16):
            for message in frame_reader.receive(data):
                if isinstance(message, websocket.CloseReceived):
                    return
                if not isinstance(message, str):
                    continue
                payload = message.encode()
                self.received.append(payload)
                count += 1
                if self.drops_after is not None and count > self.drops_after:
                    return
                for each in self.writers if self.to_all else [writer]:
                    if self.answers:
                        each.write(websocket.text_frame(payload))


@asynccontextmanager
async def bench_server() -> AsyncIterator[BenchServer]:
    """Run a server on a free port."""
    made = BenchServer()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for writer in list(made.writers):
            writer.transport.abort()
