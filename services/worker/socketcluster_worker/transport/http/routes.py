"""What an HTTP connection asks of whoever knows where its requests go."""

from __future__ import annotations

import asyncio
from typing import Protocol

from socketcluster_runtime.logs.throttle import Throttle
from socketcluster_worker.connection import Handshake
from socketcluster_worker.transport.websocket import WebSocket

RawHeaders = list[tuple[bytes, bytes]]
"""Header fields as they were sent, but for the names, which are in lower case."""


class Routes(Protocol):
    """The worker's router, as its connections see it.

    Attributes:
        refused: is told of requests that could not be read.
        body_window: seconds in each of which a request's body must get on.
        health_path: where it is asked for the worker's health.
    """

    refused: Throttle
    body_window: float
    health_path: str

    def is_for_us(self, host: str, path: str, *, secure: bool) -> bool:
        """May a request for this host be served?"""

    def polls(self, path: str) -> bool:
        """Do polling requests go to this path?"""

    def release_poll(self, path: str, target: str) -> None:
        """Have a polling request answered now, whose connection is about to end."""

    def max_body(self, path: str) -> int:
        """Return how many bytes a request's body may have."""

    def serves(self, path: str) -> bool:
        """Is a WebSocket at this path one of the realtime endpoints'?"""

    def forward(
        self, transport: asyncio.Transport, handshake: Handshake, target: bytes, raw_headers: RawHeaders
    ) -> bool:
        """Give a request to open a WebSocket to the worker whose session it names; return whether that was so."""

    def upgrade(
        self, transport: asyncio.Transport, handshake: Handshake, raw_headers: RawHeaders | None = None
    ) -> WebSocket | None:
        """Answer a request to open a WebSocket; return it if it is open. The header fields, if they are at hand."""
