"""Bytes that are copied between a client and a worker."""

from __future__ import annotations

import asyncio
import socket

import pytest

from socketcluster_runtime.sockets.relay import Relay


async def serve(answer: bytes | None, read: int) -> asyncio.Server:
    """Be a worker that reads so many bytes, answers, and ends the connection; ``None``: it ends without an answer."""

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if read:
            await reader.readexactly(read)
        if answer is not None:
            writer.write(answer)
        writer.close()

    return await asyncio.start_server(served, "127.0.0.1", 0)


def port_of(server: asyncio.Server) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port


async def read(sock: socket.socket) -> bytes:
    reader, writer = await asyncio.open_connection(sock=sock)
    data = await reader.read()
    writer.close()
    return data


async def test_what_a_worker_says_before_the_client_is_there_is_not_lost() -> None:
    ended = asyncio.Event()
    async with await serve(b"full\n" * 1000, 0) as server:
        relay = Relay(lambda _: ended.set())
        await relay.connect("127.0.0.1", port_of(server))
        await relay.ask(b"")
        client, ours = socket.socketpair()
        ours.setblocking(False)
        await relay.start(ours, b"a request")
        assert await read(client) == b"full\n" * 1000
        await ended.wait()


async def test_a_worker_can_be_asked_before_the_client_is_given_to_the_relay() -> None:
    async with await serve(b"answer", 12) as server:
        relay = Relay(lambda _: None)
        await relay.connect("127.0.0.1", port_of(server))
        client, ours = socket.socketpair()
        ours.setblocking(False)
        asking = asyncio.ensure_future(relay.ask(b"request"))
        await asyncio.sleep(0)
        assert not asking.done()
        relay._worker.write(b" more")
        await asking
        await relay.start(ours, b"")
        assert await read(client) == b"answer"


async def test_a_worker_that_ends_without_an_answer_is_told_of() -> None:
    ended = asyncio.Event()
    async with await serve(None, 7) as server:
        relay = Relay(lambda _: ended.set())
        await relay.connect("127.0.0.1", port_of(server))
        with pytest.raises(ConnectionResetError):
            await relay.ask(b"request")
        relay.abort()
