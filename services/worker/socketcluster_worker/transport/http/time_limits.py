"""How long a client may take over HTTP: for a request's head, for its body, and to take the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from uvicorn.protocols.http.flow_control import FlowControl

HEAD_TIMEOUT = 10.0
"""Seconds that a request's head may take, from its first byte or the connection's beginning on."""
BODY_RATE = 500
"""Bytes a second that a body brings on average over each window, or its end, while somebody reads it."""
SEND_TICK = 2.0
"""Seconds between two looks at whether a client takes its answer."""
SEND_TICKS = 10
"""So many looks in a row at which it had taken nothing, and its connection is aborted."""
LINGER = 2.0
"""Seconds for which the rest of a refused request is read and dropped, lest it reset the answer away."""


class TimeLimits:
    """The clocks of one connection.

    Args:
        transport: is aborted when a head takes too long, or nothing of an answer is taken.
        flow: says whether a body is read at all.
        on_slow_body: called when a body takes too long.
        body_window: seconds that are looked at of a body, again and again.
    """

    def __init__(
        self, transport: asyncio.Transport, flow: FlowControl, on_slow_body: Callable[[], None], body_window: float
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._flow = flow
        self._on_slow_body = on_slow_body
        self._body_window = body_window
        self._head_timer: asyncio.TimerHandle | None = None
        self._body_timer: asyncio.TimerHandle | None = None
        self._body_bytes = 0  # since the last look
        self._send_timer: asyncio.TimerHandle | None = None
        self._unsent = 0
        self._stuck = 0

    def begin_head(self) -> None:
        """Wait for the end of a head, if that is not waited for already."""
        if self._head_timer is None:
            self._head_timer = self._loop.call_later(HEAD_TIMEOUT, self._transport.abort)

    def end_head(self) -> None:
        """Wait for no head."""
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def begin_body(self) -> None:
        """Look from now on whether a body comes."""
        self._body_bytes = 0
        self._body_timer = self._loop.call_later(self._body_window, self._look_at_body)

    def add_body(self, size: int) -> None:
        """Note that bytes of a body have come."""
        self._body_bytes += size

    def end_body(self) -> None:
        """Wait for no body."""
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None

    def watch_sending(self) -> None:
        """Look from now on whether the client takes what was written, if something of it waits here."""
        if self._send_timer is None and self._transport.get_write_buffer_size():
            self._unsent, self._stuck = self._transport.get_write_buffer_size(), 0
            self._send_timer = self._loop.call_later(SEND_TICK, self._look_at_sending)

    def linger(self) -> None:
        """Run the last clock, of a connection that is to end."""
        self.stop()
        self._head_timer = self._loop.call_later(LINGER, self._transport.abort)

    def stop(self) -> None:
        """Stop all clocks."""
        self.end_head()
        self.end_body()
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def _look_at_body(self) -> None:
        size, self._body_bytes = self._body_bytes, 0
        if size < BODY_RATE * self._body_window and not self._flow.read_paused:
            self._body_timer = None
            self._on_slow_body()
        else:
            self._body_timer = self._loop.call_later(self._body_window, self._look_at_body)

    def _look_at_sending(self) -> None:
        self._send_timer = None
        size = self._transport.get_write_buffer_size()
        if not size:
            return
        self._stuck = self._stuck + 1 if size >= self._unsent else 0
        self._unsent = size
        if self._stuck >= SEND_TICKS:
            self._transport.abort()
        else:
            self._send_timer = self._loop.call_later(SEND_TICK, self._look_at_sending)
