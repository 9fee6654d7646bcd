"""What the launcher hears on its notify socket."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from socketcluster.notify import NotifyListener, ready_pid

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("datagram", "pid"),
    [
        (b"READY=1\nMAINPID=42", 42),
        (b"MAINPID=42\nREADY=1\n", 42),
        (b"READY=1", None),
        (b"READY=0\nMAINPID=42", None),
        (b"STATUS=busy\nMAINPID=42", None),
        (b"READY=1\nMAINPID=-1", None),
        (b"READY=1\nMAINPID=" + b"9" * 4000, None),
        (b"", None),
        (b"\xff=\n=\n\0", None),
    ],
)
def test_only_readiness_with_a_process_id_counts(datagram: bytes, pid: int | None) -> None:
    assert ready_pid(datagram) == pid


async def test_garbage_does_not_stop_it_from_hearing(run_dir: Path) -> None:
    heard: asyncio.Queue[int] = asyncio.Queue()
    path = run_dir / "notify.sock"
    with (
        NotifyListener(path, heard.put_nowait),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
    ):
        for datagram in (b"", b"\xff" * 10_000, b"READY=1\nMAINPID=x", b"READY=1\nMAINPID=7"):
            sender.sendto(datagram, str(path))
        assert await heard.get() == 7
