"""gRPC between the services: its options are known to the library, and an idle link stays."""

from __future__ import annotations

import ast
import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from socketcluster_runtime import rpc

SECRET = "a secret of the tests"
ROOT = Path(__file__).parents[3]
PREFACE = 24
"""Bytes with which an HTTP/2 client begins."""
PING, GOAWAY, ACK = 6, 7, 1


class Relay:
    """Passes one connection on and counts what it sees.

    Attributes:
        asked: is told each ping of the client, and the server's end.
        goaways: how many frames of the server ended the connection.
        connections: how many the client made.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.asked: asyncio.Queue[None] = asyncio.Queue()
        self.goaways = 0
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        upstream, upwriter = await asyncio.open_connection("127.0.0.1", self._port)
        writer_of = {True: upwriter, False: writer}
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pass(reader, writer_of[True], from_client=True))
                tasks.create_task(self._pass(upstream, writer_of[False], from_client=False))
        finally:
            for each in writer_of.values():
                each.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, from_client: bool) -> None:
        if from_client:
            writer.write(await reader.readexactly(PREFACE))
        while head := await reader.read(9):
            head += await reader.readexactly(9 - len(head))
            kind, flags = head[3], head[4]
            if kind == PING and from_client and not flags & ACK:
                self.asked.put_nowait(None)
            if kind == GOAWAY:
                self.goaways += 1
                self.asked.put_nowait(None)  # there will be no other
            writer.write(head + await reader.readexactly(int.from_bytes(head[:3], "big")))
        writer.close()


@asynccontextmanager
async def relay(port: int) -> AsyncIterator[tuple[Relay, str]]:
    made = Relay(port)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    yield made, f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


async def test_an_idle_link_asks_again_and_again_and_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "KEEPALIVE_MS", 1000)  # the least that gRPC accepts
    server, _health = rpc.server(SECRET)
    port = rpc.listen(server, "127.0.0.1:0")
    await server.start()
    async with relay(port) as (seen, address), rpc.connect(address) as channel:
        ask = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        watch = ask(health_pb2.HealthCheckRequest(), metadata=rpc.credentials(SECRET))
        await watch.read()
        for _ in range(5):  # two pings would be too many for a server that knows nothing of them
            await seen.asked.get()
            assert (seen.connections, seen.goaways) == (1, 0)
        assert not watch.done()
    await server.stop(None)


def _option_names() -> Iterator[tuple[str, str]]:
    """Every text of the project's sources that is the name of a gRPC option, with its file."""
    for folder in ("libs", "services", "cluster", "bench"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("grpc."):
                    yield node.value, path.name


def test_the_library_knows_every_option_that_it_is_told() -> None:
    (library,) = (Path(grpc.__file__).parent / "_cython").glob("cygrpc*.so")
    known = set(re.findall(rb"grpc\.[a-z0-9_.]+", library.read_bytes()))
    names = set(_option_names())
    assert {name for name, _ in names} >= {name for name, _ in (*rpc.channel_options(), *rpc.server_options())}
    unknown = [f"{name} in {file}" for name, file in names if name.encode() not in known]
    assert not unknown
