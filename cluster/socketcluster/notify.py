"""Hears which child is ready: systemd's notify protocol, one datagram socket for all children."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

MAX_DATAGRAM = 4096
"""Bytes of a notification that are looked at."""


class NotifyListener:
    """Calls ``on_ready(pid)`` for each ``READY=1`` that arrives; to be used as a context manager, in a running loop."""

    def __init__(self, path: Path, on_ready: Callable[[int], None]) -> None:
        self._path = path
        self._on_ready = on_ready
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)

    def __enter__(self) -> Self:
        self._socket.bind(str(self._path))
        asyncio.get_running_loop().add_reader(self._socket, self._read)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        try:
            datagram = self._socket.recv(MAX_DATAGRAM)
        except BlockingIOError:
            return
        pid = ready_pid(datagram)
        if pid is not None:
            self._on_ready(pid)


def ready_pid(datagram: bytes) -> int | None:
    """Return the process id in a notification of readiness; ``None`` for any other."""
    fields = dict(line.partition(b"=")[::2] for line in datagram.splitlines())
    if fields.get(b"READY") != b"1":
        return None
    pid = fields.get(b"MAINPID", b"")
    return int(pid) if pid.isdigit() and len(pid) <= 10 else None
