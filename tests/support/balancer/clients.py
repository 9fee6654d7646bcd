"""Clients of a balancer under test, with TLS and without."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from support.balancer.bench import PATIENCE, Bench
from support.network import certificates

GET = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n"


def open_client(bench: Bench, data: bytes = b"") -> socket.socket:
    """Connect, and stay."""
    client = socket.create_connection(("127.0.0.1", bench.port))
    client.setblocking(False)
    if data:
        client.send(data)
    return client


async def read_to_end(client: socket.socket) -> bytes:
    loop, data = asyncio.get_running_loop(), b""
    async with asyncio.timeout(PATIENCE):
        with suppress(ConnectionResetError):
            while more := await loop.sock_recv(client, 65536):
                data += more
    return data


def trusting(files: certificates.Files) -> ssl.SSLContext:
    """A client's context that accepts this certificate alone."""
    context = ssl.create_default_context(cafile=str(files.cert))
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


@asynccontextmanager
async def connected(
    bench: Bench, context: ssl.SSLContext
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", bench.port, ssl=context)
        try:
            yield reader, writer
        finally:
            writer.close()
            with suppress(OSError, ssl.SSLError):
                await writer.wait_closed()


def get_blocking(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> tuple[bytes, Any]:
    """Ask once with Python's blocking client, which shows what was negotiated."""
    with (
        socket.create_connection(("127.0.0.1", port), PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as client,
    ):
        client.sendall(GET)
        answer = b""
        while data := client.recv(65536):
            answer += data
        facts = {
            "version": client.version(),
            "alpn": client.selected_alpn_protocol(),
            "cipher": (client.cipher() or ("",))[0],
            "session": client.session,
            "reused": client.session_reused,
        }
        return answer, facts
