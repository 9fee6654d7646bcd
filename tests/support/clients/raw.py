"""Clients that send whatever bytes a test wants, and hide nothing of what comes back."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.streams import StreamReader

ENGINE = "/socketcluster/engine/?EIO=4&transport="


async def connect(port: int) -> RawClient:
    """Open a TCP connection."""
    return RawClient(*await asyncio.open_connection("127.0.0.1", port))


def upgrade(path: str = "/socketcluster/", **headers: str) -> bytes:
    """Return a request to open a WebSocket; a header that is empty is left out, underscores stand for hyphens."""
    fields = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = [f"{name}: {value}" for name, value in fields.items() if value]
    return "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode()


def frame(data: str | bytes, opcode: Opcode | None = None, *, fin: bool = True) -> bytes:
    """Return a client's frame."""
    kind = opcode if opcode is not None else Opcode.TEXT if isinstance(data, str) else Opcode.BINARY
    payload = data.encode() if isinstance(data, str) else data
    return Frame(kind, payload, fin).serialize(mask=True)


def event(name: str, data: Any = None, cid: Any = None) -> str:
    """Return a SocketCluster message."""
    return json.dumps({"event": name, "data": data} | ({} if cid is None else {"cid": cid}))


HANDSHAKE = event("#handshake", {}, 1)


class RawClient:
    """A TCP connection to a worker."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Send bytes, at once."""
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> Response:
        """Return the next HTTP response, with its body."""
        got = StreamReader()
        head = await self.reader.readuntil(b"\r\n\r\n")
        got.feed_data(head)
        parsing = Response.parse(got.read_line, got.read_exact, got.read_to_eof, proxy=True)
        try:
            next(parsing)
        except StopIteration as done:
            response: Response = done.value
        else:
            raise AssertionError(head)
        length = int(response.headers.get("content-length", "0"))
        response.body = await self.reader.readexactly(length)
        return response

    async def request(self, method: str, target: str, body: bytes | None = None, **headers: str) -> Response:
        """Send a request and return its response."""
        fields = {"Host": "localhost", **{name.replace("_", "-"): value for name, value in headers.items()}}
        if body is not None:
            fields["Content-Length"] = str(len(body))
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        await self.send("\r\n".join(lines).encode() + (body or b""))
        return await self.answer()

    async def closed(self) -> bytes:
        """Wait for the end of the connection; return what came before it."""
        with contextlib.suppress(ConnectionError):
            return await self.reader.read()
        return b""

    def abort(self) -> None:
        """End at once, without a word."""
        self.writer.transport.abort()

    def close(self) -> None:
        """End."""
        self.writer.close()


class RawWebSocket:
    """A WebSocket of which a test sees every frame."""

    def __init__(self, client: RawClient, response: Response) -> None:
        self.client = client
        self.response = response
        self.handshake: dict[str, Any] = {}

    async def send(self, *frames: bytes) -> None:
        """Send frames, in one piece."""
        await self.client.send(b"".join(frames))

    async def send_text(self, text: str) -> None:
        """Send a text message."""
        await self.send(frame(text))

    async def send_json(self, message: Any) -> None:
        """Send a message as JSON."""
        await self.send_text(json.dumps(message))

    async def next(self) -> Frame:
        """Return the next frame."""
        head = await self.client.reader.readexactly(2)
        length = head[1] & 0x7F
        if length == 126:
            length = int.from_bytes(await self.client.reader.readexactly(2))
        elif length == 127:
            length = int.from_bytes(await self.client.reader.readexactly(8))
        return Frame(Opcode(head[0] & 0x0F), await self.client.reader.readexactly(length), bool(head[0] & 0x80))

    async def next_text(self) -> str:
        """Return the next frame's text."""
        got = await self.next()
        assert got.opcode is Opcode.TEXT, got
        return bytes(got.data).decode()

    async def next_json(self) -> Any:
        """Return the next message."""
        return json.loads(await self.next_text())

    async def call(self, name: str, data: Any = None, cid: Any = 7) -> Any:
        """Send a call and return its answer, whatever comes before it."""
        await self.send_text(event(name, data, cid))
        while True:
            message = await self.next_json()
            if message.get("rid") == cid:
                return message

    async def next_close(self) -> tuple[int, str]:
        """Return code and reason of the close frame that is next, answer it, and see the connection end."""
        got = await self.next()
        assert got.opcode is Opcode.CLOSE, got
        with contextlib.suppress(ConnectionError):
            await self.send(frame(bytes(got.data), Opcode.CLOSE))
        assert await self.client.closed() == b""
        data = bytes(got.data)
        return int.from_bytes(data[:2]), data[2:].decode()

    async def end(self) -> None:
        """Close properly."""
        await self.send(frame(b"\x03\xe8", Opcode.CLOSE))
        await self.client.closed()
        self.client.close()


class Polling:
    """An Engine.IO connection by polling; each request has a connection of its own."""

    def __init__(self, connect: Callable[[], Awaitable[RawClient]], endpoint: str = ENGINE) -> None:
        self._connect = connect
        self._endpoint = endpoint
        self.opening: dict[str, Any] = {}
        self.sid = ""
        self.cookie = ""

    async def open(self) -> None:
        """Make Engine.IO's handshake."""
        client = await self._connect()
        answer = await client.request("GET", self._endpoint + "polling")
        client.close()
        assert answer.status_code == 200, answer
        body = bytes(answer.body or b"").decode()
        assert body[0] == "0"
        self.opening = json.loads(body[1:])
        self.sid = self.opening["sid"]

    @property
    def target(self) -> str:
        """Path and query of its requests."""
        return f"{self._endpoint}polling&sid={self.sid}"

    async def start_poll(self) -> RawClient:
        """Send a polling request."""
        client = await self._connect()
        await client.send(f"GET {self.target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return client

    async def request(self, method: str, body: bytes | None = None) -> tuple[int, str]:
        """Return status and body of one request."""
        client = await self._connect()
        answer = await client.request(method, self.target, body)
        client.close()
        return answer.status_code, bytes(answer.body or b"").decode()

    async def poll(self) -> list[str]:
        """Return the packets of one poll."""
        status, body = await self.request("GET")
        assert status == 200, body
        return body.split("\x1e")

    async def post(self, *packets: str) -> None:
        """Send packets."""
        assert await self.request("POST", "\x1e".join(packets).encode()) == (200, "ok")

    async def handshake(self) -> None:
        """Make SocketCluster's handshake."""
        await self.post("4" + HANDSHAKE)
        assert json.loads((await self.poll())[0][1:])["rid"] == 1
