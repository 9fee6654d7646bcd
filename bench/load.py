"""A load: many WebSocket connections, each with one event under way at a time."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable

from bench.drive.client import Client, connect
from bench.drive.dialects import Dialect


class Load:
    """Connections to one server.

    Attributes:
        answered: events that were acknowledged.
    """

    def __init__(self, port: int, dialect: Dialect, connections: int, tls: ssl.SSLContext | None = None) -> None:
        self.answered = 0
        self._running = True
        self._port = port
        self._dialect = dialect
        self._wanted = connections
        self._tls = tls

    async def run(self, seconds: float, cpu: Callable[[], float]) -> tuple[float, float]:
        """Load the server; return its CPU seconds an event, and the events a second."""
        clients = [await connect(self._dialect, self._port, "127.0.0.1", self._tls) for _ in range(self._wanted)]
        for client in clients:
            client.handler = self._heard
            self._send(client)
        await asyncio.sleep(1.0)  # warm
        answered, used, began = self.answered, cpu(), time.monotonic()
        await asyncio.sleep(seconds)
        answered, used, took = self.answered - answered, cpu() - used, time.monotonic() - began
        self._running = False
        for client in clients:
            client.transport.abort()
        return used / answered, answered / took

    def _heard(self, client: Client, payload: bytes) -> None:
        if self._running and payload.startswith(self._dialect.answers):
            self.answered += 1
            self._send(client)

    def _send(self, client: Client) -> None:
        client.number += 1
        client.send(self._dialect.event(client.number, "echo", f'{{"n":{client.number}}}'))
