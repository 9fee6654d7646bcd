"""Metrics: one registry a service, read over HTTP in Prometheus' text format at an address of its own.

What a service counts is plain numbers; a collector turns them into samples when somebody asks, so that counting costs
an addition. Collectors are called in a thread, because to count 18,000 open descriptors takes 60 ms: they may read
numbers and lengths, and go through a copy of what the event loop changes.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from socketcluster_runtime.addresses import split_host_port
from socketcluster_runtime.errors import AddressInUseError, SettingsError
from socketcluster_runtime.logs.logging import get_logger
from socketcluster_runtime.sockets.accepting import Acceptor
from socketcluster_runtime.sockets.capacity import Room
from socketcluster_wire import http_response

log = get_logger(__name__)

MAX_READERS = 16
"""Connections that are answered at a time; more are closed."""
MAX_HEAD_BYTES = 8192
"""The size of the largest request."""
READ_TIMEOUT = 5.0
"""Seconds that a reader has to send its request and take the answer."""


class Gauges(Collector):
    """Numbers that are read when they are asked for.

    Args:
        gauges: name, help and reader of each.
    """

    def __init__(self, *gauges: tuple[str, str, Callable[[], float]]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterable[Metric]:
        """Read them, in a thread."""
        for name, text, read in self._gauges:
            yield GaugeMetricFamily(name, text, value=read())


class Counters(Gauges):
    """Numbers that only rise, likewise; their names get ``_total``."""

    def collect(self) -> Iterable[Metric]:
        """Read them, in a thread."""
        for name, text, read in self._gauges:
            yield CounterMetricFamily(name, text, value=read())


def make_registry() -> CollectorRegistry:
    """Return a registry with the process's own metrics: CPU seconds, memory, descriptors, start time."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    return registry


@asynccontextmanager
async def served(
    registry: CollectorRegistry, address: str | None, room: Room | None = None
) -> AsyncIterator[tuple[str, int] | None]:
    """Answer ``GET /metrics`` at ``host:port``; give the host and the port that are listened on.

    Args:
        registry: what is told.
        address: ``host:port``; nothing is listened on without it.
        room: is told when there is no descriptor for a reader.

    Raises:
        AddressInUseError: somebody else listens there.
        SettingsError: this process cannot listen there.
    """
    if address is None:
        yield None
        return
    readers = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal readers
        readers += 1
        try:
            if readers <= MAX_READERS:
                async with asyncio.timeout(READ_TIMEOUT):
                    await _answer(registry, reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):  # TimeoutError is one of the first
            writer.transport.abort()
        finally:
            readers -= 1
            writer.close()

    room, loop = room or Room(), asyncio.get_running_loop()
    adopting: set[asyncio.Task[Any]] = set()

    def accepted(sock: socket.socket, _: Any) -> None:
        protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader(limit=MAX_HEAD_BYTES), serve)
        task = loop.create_task(_adopt(sock, protocol))
        adopting.add(task)
        task.add_done_callback(adopting.discard)

    try:
        sockets = await _bind(*split_host_port(address, any_port=True))
    except (OSError, SettingsError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        kind = AddressInUseError if getattr(error, "errno", None) == errno.EADDRINUSE else SettingsError
        raise kind(f"SOCKETCLUSTER_METRICS_LISTEN: cannot listen on {address}: {reason}") from None
    bound = sockets[0].getsockname()[:2]
    acceptors = [Acceptor(sock, accepted, room, of_clients=False) for sock in sockets]
    for acceptor in acceptors:
        acceptor.start()
    log.info("metrics", host=bound[0], port=bound[1])
    try:
        yield bound
    finally:
        for acceptor in acceptors:
            acceptor.close()


async def _bind(host: str, port: int) -> list[socket.socket]:
    """Return sockets that listen at each address of ``host``.

    Raises:
        OSError: it has none that can be listened on.
    """
    found = await asyncio.get_running_loop().getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    with ExitStack() as stack:
        sockets = []
        for family, kind, protocol, _, name in dict.fromkeys(found):
            sock = stack.enter_context(socket.socket(family, kind, protocol))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(name)
            sock.listen()
            sockets.append(sock)
        stack.pop_all()
    return sockets


async def _adopt(sock: socket.socket, protocol: asyncio.Protocol) -> None:
    try:
        await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, sock)
    except OSError:  # it has gone
        sock.close()


async def _answer(registry: CollectorRegistry, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    request, *fields = head.split("\r\n")
    method, _, rest = request.partition(" ")
    target = rest.partition(" ")[0].partition("?")[0]
    if target != "/metrics" or method not in ("GET", "HEAD"):
        status, kind, body = 404, "text/plain; charset=utf-8", b"The metrics are at /metrics.\n"
    else:
        accept = next((field[7:].strip() for field in fields if field.lower().startswith("accept:")), "")
        encode, kind = choose_encoder(accept)
        status, body = 200, await asyncio.to_thread(encode, registry)
    unkept = [("Cache-Control", "no-store")]
    writer.write(http_response.closing(status, kind, body, fields=unkept, head_only=method == "HEAD"))
    with suppress(ConnectionError):
        await writer.drain()
