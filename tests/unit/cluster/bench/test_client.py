"""One connection of `socketcluster bench`."""

from __future__ import annotations

import pytest

from socketcluster.bench import frames
from socketcluster.bench.client import Client, RefusedError
from socketcluster.bench.dialects import dialect_of, text_of
from socketcluster.bench.plan import Mode, Plan, Protocol
from socketcluster_wire import websocket


class Wire:
    """A transport that keeps what is written to it, and an observer that keeps what it is told."""

    def __init__(self, protocol: str = "websocket", mode: str = "ack") -> None:
        self.written = b""
        self.aborted = False
        self.answers: list[tuple[int, str]] = []
        self.deliveries: list[int] = []
        self.ends: list[str] = []
        plan = Plan(url="a", protocol=Protocol(protocol), mode=Mode(mode))
        key = frames.make_key()
        self.client = Client(dialect_of(plan), frames.request(plan.target, key, ()), key, self)
        self.client.connection_made(self)
        assert self.written.startswith(b"GET ")
        self.written = b""
        self.upgrade = f"HTTP/1.1 101 OK\r\nSec-WebSocket-Accept: {frames.accept_of(key)}\r\n\r\n".encode()

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        self.aborted = True

    def answered(self, client: Client, due: int, error: str) -> None:
        self.answers.append((due, error))

    def delivered(self, due: int) -> None:
        self.deliveries.append(due)

    def ended(self, client: Client, reason: str) -> None:
        self.ends.append(reason)


async def test_answers_of_a_raw_websocket_are_in_order_and_one_too_many_is_none() -> None:
    wire = Wire()
    for byte in wire.upgrade:
        wire.client.data_received(bytes((byte,)))
    await wire.client.entered
    wire.client.call(text_of(5, 10), 5)
    wire.client.call(text_of(6, 10), 6)
    assert wire.written == frames.frame(text_of(5, 10).encode()) + frames.frame(text_of(6, 10).encode())
    wire.client.data_received(b"".join(websocket.text_frame(text) for text in (b"x", b"y", b"z")))
    assert wire.answers == [(5, ""), (6, "")]
    assert not wire.client.pending


async def test_a_client_joins_publishes_and_hears() -> None:
    wire = Wire("socketcluster", "broadcast")
    wire.client.data_received(wire.upgrade)
    assert b"#handshake" in wire.written
    assert not wire.client.entered.done()
    wire.client.data_received(websocket.text_frame(b'{"rid":1,"data":{}}'))
    await wire.client.entered
    wire.client.join()
    wire.client.publish(text_of(8, 20), 8)
    wire.client.data_received(websocket.text_frame(b'{"rid":3}'))
    assert wire.answers == [(8, "")]
    assert list(wire.client.pending) == [2]
    published = f'{{"event":"#publish","data":{{"data":"{text_of(8, 20)}"}}}}'
    wire.client.data_received(websocket.text_frame(published.encode()))
    assert wire.deliveries == [8]


async def test_pings_are_answered() -> None:
    wire = Wire()
    wire.client.data_received(wire.upgrade + b"\x89\x01p")
    assert wire.written == frames.frame(b"p", frames.PONG)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "HTTP 404"),
        (b'HTTP/1.1 403 No\r\n\r\n{"code":4}\nmore', 'HTTP 403 {"code":4}'),
        (b"HTTP/1.1 503 No\r\n\r\n<html>", "HTTP 503"),
        (b"HTTP/1.1\r\n\r\n", "HTTP ?"),
        (b"SSH-2.0", "no HTTP"),
        (b"HTTP/1.1 101 OK\r\nSec-WebSocket-Accept: x\r\n\r\n", "no WebSocket"),
    ],
)
async def test_a_server_that_does_not_let_it_in_is_told_from_others(answer: bytes, reason: str) -> None:
    wire = Wire()
    wire.client.data_received(answer)
    with pytest.raises(RefusedError, match="^" + reason.replace("?", r"\?")):
        await wire.client.entered
    assert wire.aborted
    assert wire.ends == []


async def test_why_a_connection_ended_is_told_once_and_not_if_it_was_closed_here() -> None:
    wire = Wire()
    wire.client.data_received(wire.upgrade + websocket.close_frame(1012, "restart"))
    wire.client.connection_lost(None)
    assert wire.ends == ["closed with 1012 restart"]
    wire = Wire()
    wire.client.data_received(wire.upgrade)
    wire.client.connection_lost(ConnectionResetError())
    assert wire.ends == ["the connection was reset"]
    wire = Wire()
    wire.client.data_received(wire.upgrade)
    wire.client.close()
    wire.client.connection_lost(None)
    assert (wire.ends, wire.aborted) == ([], True)
    wire = Wire()
    wire.client.connection_lost(None)
    with pytest.raises(RefusedError, match="the connection was closed"):
        await wire.client.entered
