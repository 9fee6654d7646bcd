"""Collects what goes to one client and sends it as one array: fewer, larger messages for a little delay."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable

from socketcluster_wire import socketcluster as wire
from socketcluster_worker.connection import Connection, Outgoing, Receiver, SlowConsumer

MAX_BYTES = 65_536
"""So much is not made to wait."""


class Batching:
    """A ``Connection`` that holds JSON messages back for ``interval`` seconds after the first."""

    def __init__(self, connection: Connection, interval: float) -> None:
        self._connection = connection
        self._interval = interval
        self._waiting: list[bytes] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def receiver(self) -> Receiver:
        """Who gets what arrives."""
        return self._connection.receiver

    @receiver.setter
    def receiver(self, receiver: Receiver) -> None:
        self._connection.receiver = receiver

    @property
    def transport_name(self) -> str:
        """``"websocket"`` or ``"polling"``."""
        return self._connection.transport_name

    @property
    def writable(self) -> bool:
        """Is nothing waiting to be sent, but for the batch?"""
        return self._connection.writable

    @property
    def ended_by_client(self) -> bool:
        """Has the client ended it in good order?"""
        return self._connection.ended_by_client

    @property
    def held(self) -> bool:
        """Is nothing read from the client at the moment?"""
        return self._connection.held

    def pause_reading(self) -> None:
        """Read nothing more for now."""
        self._connection.pause_reading()

    def resume_reading(self) -> None:
        """Take back one ``pause_reading``."""
        self._connection.resume_reading()

    def send_text(self, text: bytes, _policy: SlowConsumer | None = None, _key: Hashable = None) -> None:
        """Add a message; a batch holds answers too, so it is not dropped."""
        self._waiting.append(text)
        self._size += len(text)
        if len(self._waiting) >= wire.MAX_BATCH or self._size >= MAX_BYTES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval, self.flush)

    def send_binary(self, data: bytes, policy: SlowConsumer | None = None, key: Hashable = None) -> None:
        """Send a binary message, which no array can hold, after what waits."""
        self.flush()
        self._connection.send_binary(data, policy, key)

    def send_outgoing(self, outgoing: Outgoing, policy: SlowConsumer | None = None, key: Hashable = None) -> None:
        """Add a message that goes to other clients too."""
        self.send_text(outgoing.text, policy, key)

    def share(self, _outgoing: Outgoing) -> None:
        """Have no straight way: it would overtake what waits."""
        return

    def close(self, code: int, reason: str = "") -> None:
        """Send what waits, and end the connection."""
        self.flush()
        self._connection.close(code, reason)

    def flush(self) -> None:
        """Send what waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting, self._size = self._waiting, [], 0
        if waiting:
            self._connection.send_text(waiting[0] if len(waiting) == 1 else wire.join(waiting), "disconnect")
