"""The end of a connection that its client ended in good order: told behind what was sent before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from socketcluster_worker.api.sockets.socket import Socket

END_TIMEOUT = 10.0
"""Seconds that the end may wait for what was sent before it; what still waits then is dropped."""


class Ending:
    """One such end, while something waits before it.

    Nothing is taken from the client any more, and nothing sent to it: for that the socket is closed already.

    Args:
        socket: whose end it is.
        tell: tells the application; called once.
    """

    __slots__ = ("_socket", "_tell", "_timer")

    def __init__(self, socket: Socket, tell: Callable[[], None]) -> None:
        self._socket = socket
        self._tell = tell
        self._timer = asyncio.get_running_loop().call_later(END_TIMEOUT, self.come)
        socket.connected = False
        socket.end_now = self.come

    def come(self) -> None:
        """Tell, unless that was done; what still waits is dropped by that."""
        if self._socket.end_now is not None:
            self._socket.end_now = None
            self._timer.cancel()
            self._tell()
