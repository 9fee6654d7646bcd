"""The load generator's connection: frames in any pieces, greetings, refusals."""

from __future__ import annotations

import asyncio
import socket

import pytest
from support.plain_server import Served

from bench.drive.client import Client, connect, frame
from bench.drive.dialects import DIALECTS

HEAD = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


class Written(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.bytes += data

    def close(self) -> None:
        self.closed = True


def made(dialect: str) -> tuple[Client, Written, list[bytes]]:
    client, transport = Client(DIALECTS[dialect], asyncio.get_running_loop()), Written()
    heard: list[bytes] = []
    client.handler = lambda _client, payload: heard.append(payload)
    client.connection_made(transport)
    return client, transport, heard


def sent(payload: bytes, kind: int = 0x81) -> bytes:
    """Return a server's frame."""
    size = len(payload)
    if size < 126:
        return bytes((kind, size)) + payload
    return (
        bytes((kind, 126)) + size.to_bytes(2, "big") if size < 65_536 else bytes((kind, 127)) + size.to_bytes(8, "big")
    ) + payload


@pytest.mark.parametrize("step", [1, 7, 100_000_000])
async def test_messages_come_in_any_pieces(step: int) -> None:
    client, _, heard = made("plain")
    messages = [b"a" * 5, b"b" * 300, b"c" * (70_000 if step > 1 else 200), b""]
    data = HEAD + b"".join(map(sent, messages))
    for position in range(0, len(data), step):
        client.data_received(data[position : position + step])
    assert heard == messages
    assert client.ready.done()


async def test_a_client_greets_and_is_ready_when_the_server_has_answered() -> None:
    client, transport, heard = made("socketio")
    client.data_received(HEAD + sent(b'0{"sid":"x"}'))
    assert transport.bytes.endswith(frame("40"))
    assert not client.ready.done()
    client.data_received(sent(b'40{"sid":"y"}') + sent(b'42["said",1]'))
    assert client.ready.done()
    assert heard == [b'42["said",1]']


@pytest.mark.parametrize(("dialect", "ping", "pong"), [("socketio", b"2", "3"), ("socketcluster", b"", "")])
async def test_signs_of_life_are_answered(dialect: str, ping: bytes, pong: str) -> None:
    client, transport, heard = made(dialect)
    client.data_received(HEAD + sent(ping))
    assert transport.bytes.endswith(frame(pong))
    client.data_received(sent(b"hi", 0x89))
    assert transport.bytes.endswith(b"\x8a\x82\0\0\0\0hi")
    assert heard == []


async def test_a_refusal_and_an_end_are_errors() -> None:
    client, _, _ = made("plain")
    client.data_received(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
    with pytest.raises(ConnectionError, match="503"):
        await client.ready
    client, transport, _ = made("socketcluster")
    client.data_received(HEAD + sent(b"\x0f\xa0why", 0x88))
    with pytest.raises(ConnectionError, match="0fa0"):
        await client.ready
    assert transport.closed
    client, _, _ = made("plain")
    client.connection_lost(None)
    with pytest.raises(ConnectionError, match="the server closed"):
        await client.ready


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
async def test_frames_are_those_of_the_protocol(served: Served, size: int) -> None:
    client = await connect(DIALECTS["plain"], served.port, "127.0.2.1")
    heard = asyncio.get_running_loop().create_future()
    client.handler = lambda _client, payload: heard.set_result(payload)
    client.send(DIALECTS["plain"].event(2, "echo", f'"{"x" * size}"'))
    assert await heard == f'{{"rid":2,"data":"{"x" * size}"}}'.encode()
    ended = asyncio.Event()
    client.close(ended.set)
    await ended.wait()
    assert client.gone
    client.close(ended.set)  # once more does no harm


async def test_a_server_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ConnectionError):
        await connect(DIALECTS["plain"], 1, "127.0.2.1")


async def test_a_server_that_says_nothing_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(TimeoutError):
        await connect(DIALECTS["plain"], server.getsockname()[1], "127.0.2.1", patience=0.05)
