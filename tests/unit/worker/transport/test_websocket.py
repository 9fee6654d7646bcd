"""WebSockets on real TCP connections: slow clients, compression, how much is written at once."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import cast

import pytest
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

from socketcluster_wire import websocket as wire
from socketcluster_wire.close_codes import CloseCode
from socketcluster_wire.deflate import DeflateOptions
from socketcluster_worker.connection import Handshake, Outgoing, SlowConsumer
from socketcluster_worker.transport import websocket as module
from socketcluster_worker.transport.websocket import TRANSPORT_BUFFER, WebSocket, WebSocketOptions

UPGRADE = [
    (b"host", b"test"),
    (b"connection", b"Upgrade"),
    (b"upgrade", b"websocket"),
    (b"sec-websocket-version", b"13"),
    (b"sec-websocket-key", b"AAAAAAAAAAAAAAAAAAAAAA=="),
]
LIMIT = 200_000
SIZE = 10_000
"""Bytes of a message of the tests with slow clients."""


class Recorder:
    """Who receives what arrives."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[str | bytes] = asyncio.Queue()
        self.closed: list[tuple[int, str]] = []

    def on_message(self, message: str | bytes) -> None:
        self.messages.put_nowait(message)

    def on_close(self, code: int, reason: str) -> None:
        self.closed.append((code, reason))


class Watched(WebSocket):
    """A WebSocket whose pauses and whose end a test can wait for."""

    def __init__(self, options: WebSocketOptions) -> None:
        self.opened: set[WebSocket] = set()
        super().__init__(options, opened=self.opened)
        self.recorder = self.receiver = Recorder()
        self.full = asyncio.Event()
        self.lost = asyncio.Event()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.full.set()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.lost.set()

    @property
    def transport(self) -> asyncio.Transport:
        return self._transport


class Client:
    """The other end, which reads only when it is told to."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.head = b""
        self._data = b""

    async def send(self, opcode: Opcode, payload: bytes) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self.sock, Frame(opcode, payload).serialize(mask=True))

    async def _bytes(self, count: int) -> bytes:
        while len(self._data) < count:
            more = await asyncio.get_running_loop().sock_recv(self.sock, 1 << 18)
            if not more:
                raise EOFError
            self._data += more
        taken, self._data = self._data[:count], self._data[count:]
        return taken

    async def read_head(self) -> None:
        while not self.head.endswith(b"\r\n\r\n"):
            self.head += await self._bytes(1)

    async def next(self) -> tuple[int, bytes]:
        """Return a frame's first byte and its payload."""
        first, length = await self._bytes(2)
        if length == 126:
            length = int.from_bytes(await self._bytes(2))
        elif length == 127:
            length = int.from_bytes(await self._bytes(8))
        return first, await self._bytes(length)

    async def until(self, last: bytes) -> list[bytes]:
        """Return the payloads of all frames before the one that is ``last``."""
        seen: list[bytes] = []
        while (payload := (await self.next())[1]) != last:
            seen.append(payload)
        return seen

    async def until_close(self) -> tuple[list[bytes], int]:
        """Return the payloads of all frames before the close frame, and its code."""
        seen: list[bytes] = []
        while True:
            first, payload = await self.next()
            if first == 0x88:
                return seen, int.from_bytes(payload[:2])
            seen.append(payload)


Open = Callable[..., Awaitable[tuple[Watched, Client]]]


@pytest.fixture
async def open_websocket() -> AsyncIterator[Open]:
    """Opens a WebSocket and returns it with its client; the kernel's buffers between them are small."""
    loop = asyncio.get_running_loop()
    clients: list[Client] = []
    websockets: list[Watched] = []
    servers: list[asyncio.Server] = []

    async def start(
        offer: bytes = b"",
        *,
        limit: int = LIMIT,
        policy: SlowConsumer = "disconnect",
        deflate: DeflateOptions | None = None,
    ) -> tuple[Watched, Client]:
        accepted: asyncio.Future[Watched] = loop.create_future()

        class Front(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                stream = cast(asyncio.Transport, transport)  # of uvloop's, which derive from nothing
                websocket = Watched(WebSocketOptions(1 << 20, limit, policy, deflate))
                headers = [*UPGRADE, (b"sec-websocket-extensions", offer)] if offer else UPGRADE
                handshake = Handshake.parse("/", headers, None, secure=False)
                assert websocket.accept(stream, handshake, headers, ())
                stream.set_protocol(websocket)
                websocket.begin()
                accepted.set_result(websocket)

        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
        servers.append(await loop.create_server(Front, sock=listener))
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        sock.setblocking(False)
        await loop.sock_connect(sock, listener.getsockname())
        client = Client(sock)
        clients.append(client)
        websocket = await accepted
        websockets.append(websocket)
        await client.read_head()
        return websocket, client

    yield start
    for client in clients:
        client.sock.close()
    for websocket in websockets:
        websocket.abort()
        await websocket.lost.wait()
    for server in servers:
        server.close()
        await server.wait_closed()


def numbered(number: int) -> bytes:
    return str(number).encode().ljust(SIZE, b".")


def numbers(payloads: list[bytes]) -> list[int]:
    assert all(len(payload) == SIZE for payload in payloads)
    return [int(payload.rstrip(b".")) for payload in payloads]


# Slow clients.


async def test_a_client_that_does_not_read_is_disconnected_as_too_slow(open_websocket: Open) -> None:
    websocket, client = await open_websocket()
    sent = 0
    while not websocket.recorder.closed:
        websocket.send_text(numbered(sent))
        sent += 1
        assert sent < 1000
    assert websocket.recorder.closed == [(4008, "too much is waiting for a client that does not read")]
    assert websocket.transport.get_write_buffer_size() < 2 * (TRANSPORT_BUFFER + SIZE)
    websocket.send_text(b"into the void")
    # If it reads after all, it gets whole messages and learns why.
    seen, code = await client.until_close()
    assert numbers(seen) == list(range(len(seen)))
    assert code == 4008
    await client.send(Opcode.CLOSE, b"")
    await websocket.lost.wait()
    assert len(websocket.recorder.closed) == 1


async def test_what_waits_for_a_client_is_bounded(open_websocket: Open) -> None:
    websocket, _ = await open_websocket(policy="drop_oldest")
    for number in range(200):
        websocket.send_text(numbered(number))
        waiting = websocket._waiting
        if waiting is not None:
            assert waiting.bytes + websocket.transport.get_write_buffer_size() <= LIMIT
    assert websocket.full.is_set()


async def test_a_client_that_never_reads_again_is_aborted(
    open_websocket: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSE_TIMEOUT", 0.05)
    websocket, _ = await open_websocket()
    while not websocket.recorder.closed:
        websocket.send_text(numbered(0))
    await websocket.lost.wait()
    assert not websocket.opened


async def test_drop_oldest_keeps_the_newest_and_the_connection(
    open_websocket: Open, caplog: pytest.LogCaptureFixture
) -> None:
    websocket, client = await open_websocket(policy="drop_oldest")
    for number in range(300):
        websocket.send_text(numbered(number))
    websocket.send_text(b"last")
    seen = numbers(await client.until(b"last"))
    assert seen == sorted(seen)
    gaps = [(a, b) for a, b in pairwise(seen) if b != a + 1]
    assert len(gaps) == 1  # what the transport had, then the newest
    assert seen[-1] == 299
    assert websocket.dropped == 300 - len(seen) > 0
    assert websocket.recorder.closed == []
    assert caplog.text.count("messages for a slow client were dropped") <= 1
    websocket.send_text(b"and on it goes")
    assert (await client.next())[1] == b"and on it goes"


async def test_latest_only_keeps_the_newest_of_each_key(open_websocket: Open) -> None:
    websocket, client = await open_websocket(policy="latest_only")
    while not websocket.full.is_set():
        websocket.send_text(b"." * SIZE, "disconnect")
    for number in range(50):
        for channel in ("news", "prices"):
            websocket.send_text(f"{channel} {number}".encode(), key=channel)
    websocket.send_text(b"last", "disconnect")
    seen = await client.until(b"last")
    assert [payload for payload in seen if payload[:1] != b"."] == [b"news 49", b"prices 49"]
    assert websocket.dropped == 98


async def test_the_policy_of_a_message_goes_before_that_of_the_server(open_websocket: Open) -> None:
    websocket, client = await open_websocket(policy="drop_oldest")
    kept = []
    for number in range(300):
        if number % 50 == 0:
            kept.append(number)
        websocket.send_text(numbered(number), "disconnect" if number % 50 == 0 else None)
    websocket.send_binary(b"last", "disconnect")
    seen = numbers(await client.until(b"last"))
    assert set(kept) < set(seen)
    assert websocket.dropped == 300 - len(seen) > 0


async def test_a_droppable_message_goes_before_the_client_does(open_websocket: Open) -> None:
    websocket, client = await open_websocket()
    for number in range(300):
        websocket.send_text(numbered(number), "drop_oldest")
    assert websocket.recorder.closed == []
    websocket.close(CloseCode.NORMAL)
    seen, code = await client.until_close()
    assert code == 1000  # behind all that waited
    assert numbers(seen)[-1] == 299


async def test_a_message_over_the_limit_reaches_a_client_that_reads(open_websocket: Open) -> None:
    websocket, client = await open_websocket()
    websocket.send_text(b"x" * (5 * LIMIT))
    assert await client.next() == (0x81, b"x" * (5 * LIMIT))
    assert websocket.recorder.closed == []


async def test_only_the_latest_ping_of_a_client_that_does_not_read_is_answered(open_websocket: Open) -> None:
    websocket, client = await open_websocket()
    while not websocket.full.is_set():
        websocket.send_text(b"." * SIZE)
    for number in range(20):
        await client.send(Opcode.PING, str(number).encode())
    await client.send(Opcode.TEXT, b"done")
    await websocket.recorder.messages.get()
    websocket.send_text(b"last")
    assert [payload for payload in await client.until(b"last") if payload[:1] != b"."] == [b"19"]


async def test_a_websocket_is_writable_while_nothing_waits(open_websocket: Open) -> None:
    websocket, client = await open_websocket()
    assert websocket.writable
    while not websocket.full.is_set():
        websocket.send_text(b"." * SIZE)
    assert not websocket.writable
    websocket.send_text(b"last")
    await client.until(b"last")
    websocket.close(CloseCode.NORMAL)
    assert not websocket.writable


# Half-open connections; the heartbeats above have tests of their own.


# One write a loop turn.


def writes() -> int:
    """Return how many writing system calls this process has made."""
    fields = dict(line.split(": ") for line in Path(f"/proc/{os.getpid()}/io").read_text().splitlines())
    return int(fields["syscw"])


@pytest.mark.skipif(sys.platform != "linux", reason="counts system calls in /proc")
async def test_the_messages_of_one_turn_are_one_write(open_websocket: Open) -> None:
    websocket, client = await open_websocket()
    before = writes()
    for number in range(100):
        websocket.send_text(str(number).encode())
    websocket.send_text(b"last")
    seen = await client.until(b"last")
    assert seen == [str(number).encode() for number in range(100)]
    assert writes() - before <= 3  # and the loop's own to wake up


# What many get alike.


async def test_a_finished_frame_goes_where_a_text_would_until_something_waits(open_websocket: Open) -> None:
    websocket, client = await open_websocket()
    shared = websocket.share(Outgoing(b"alike"), prefix=b"4")
    assert shared is not None
    line, frame = shared
    websocket.send_text(b"before")
    assert line.send_frame(frame)
    websocket.send_text(b"behind")
    assert [await client.next() for _ in range(3)] == [(0x81, b"before"), (0x81, b"4alike"), (0x81, b"behind")]
    while not websocket.full.is_set():
        websocket.send_text(b"." * SIZE)
    assert not line.writable
    assert not line.send_frame(frame)
    websocket.send_text(b"last")
    assert b"4alike" not in await client.until(b"last")
    websocket.close(CloseCode.NORMAL)
    assert not line.send_frame(frame)


async def test_there_is_no_straight_way_for_what_is_compressed_or_long(open_websocket: Open) -> None:
    compressing, _ = await open_websocket(OFFER, deflate=DeflateOptions(threshold=100))
    assert compressing.share(Outgoing(b"short")) is None
    websocket, _ = await open_websocket()
    assert websocket.share(Outgoing(b"." * LIMIT)) is None


# Compression.

OFFER = b"permessage-deflate; client_max_window_bits"
LONG = b'{"event":"news","data":"' + b"all about it, " * 200 + b'"}'


def inflated(payload: bytes) -> bytes:
    extension = PerMessageDeflate(True, True, 15, 15)
    return bytes(extension.decode(Frame(Opcode.TEXT, payload, rsv1=True)).data)


async def test_long_messages_are_compressed_and_short_ones_are_not(open_websocket: Open) -> None:
    websocket, client = await open_websocket(OFFER, deflate=DeflateOptions(threshold=1024))
    assert b"permessage-deflate; server_no_context_takeover; client_no_context_takeover" in client.head
    websocket.send_text(b"x" * 1023)
    assert await client.next() == (0x81, b"x" * 1023)
    for send, first in ((websocket.send_text, 0xC1), (websocket.send_binary, 0xC2)):
        send(LONG)
        got, payload = await client.next()
        assert got == first
        assert len(payload) < len(LONG) / 10
        assert inflated(payload) == LONG


@pytest.mark.parametrize(("offer", "deflate"), [(OFFER, None), (b"", DeflateOptions(threshold=0))])
async def test_nothing_is_compressed_unless_both_sides_want_it(
    open_websocket: Open, offer: bytes, deflate: DeflateOptions | None
) -> None:
    websocket, client = await open_websocket(offer, deflate=deflate)
    assert b"xtensions" not in client.head
    websocket.send_text(LONG)
    assert await client.next() == (0x81, LONG)
    await client.send(Opcode.TEXT, b"plain")
    assert await websocket.recorder.messages.get() == "plain"


async def test_compressed_messages_are_received(open_websocket: Open) -> None:
    websocket, client = await open_websocket(OFFER, deflate=DeflateOptions())
    extension = PerMessageDeflate(True, True, 12, 12)
    frame = Frame(Opcode.TEXT, LONG).serialize(mask=True, extensions=[extension])
    await asyncio.get_running_loop().sock_sendall(client.sock, frame)
    assert await websocket.recorder.messages.get() == LONG.decode()


async def test_a_broadcast_is_compressed_once_for_each_window(
    open_websocket: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    real = wire.deflated_frame

    def counted(opcode: int, payload: bytes, window_bits: int) -> bytes:
        made.append(window_bits)
        return real(opcode, payload, window_bits)

    monkeypatch.setattr(wire, "deflated_frame", counted)
    offers = [OFFER, OFFER, b"permessage-deflate; server_max_window_bits=10", b""]
    everybody = [await open_websocket(offer, deflate=DeflateOptions(threshold=100)) for offer in offers]
    outgoing, short = Outgoing(LONG), Outgoing(b"short")
    for websocket, client in everybody:
        websocket.send_outgoing(outgoing)
        websocket.send_outgoing(outgoing, prefix=b"4")
        websocket.send_outgoing(short)
        frames = [await client.next() for _ in range(3)]
        compressed = websocket is not everybody[-1][0]
        assert [first for first, _ in frames] == [0xC1 if compressed else 0x81] * 2 + [0x81]
        texts = [inflated(payload) if first & 0x40 else payload for first, payload in frames]
        assert texts == [LONG, b"4" + LONG, b"short"]
    assert sorted(made) == [10, 10, 12, 12]  # with each prefix
