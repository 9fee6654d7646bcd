"""Descriptors for clients, and what is done when there are none."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import structlog
from support.worker.running import until

from socketcluster_runtime.sockets import accepting, capacity
from socketcluster_runtime.sockets.accepting import Acceptor
from socketcluster_runtime.sockets.capacity import RESERVE, Room

OUT = "out of descriptors: new clients are refused"


def next_descriptor() -> int:
    """Return the number that the next descriptor has."""
    descriptor = os.dup(0)
    os.close(descriptor)
    return descriptor


@pytest.fixture
def lines() -> Iterator[Callable[[str], int]]:
    """How often an event was logged."""
    with structlog.testing.capture_logs() as captured:
        yield lambda event: sum(line["event"] == event for line in captured)


@pytest.fixture
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "LOOK_INTERVAL", 0.005)
    monkeypatch.setattr(accepting, "PAUSE", 0.005)


def listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=64)


async def connect(stack: ExitStack, to: socket.socket) -> socket.socket:
    sock = stack.enter_context(socket.socket())
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, to.getsockname())
    return sock


async def read(sock: socket.socket) -> bytes:
    return await asyncio.get_running_loop().sock_recv(sock, 100)


@pytest.mark.parametrize(("limit", "most"), [(80, 70), (1024, 1024 - RESERVE), (16, 14)])
async def test_clients_leave_some_descriptors_to_the_process(limit: int, most: int) -> None:
    room = Room(lambda: limit)
    assert room.admits(most - 1)
    assert not room.full
    assert not room.admits(most)
    assert room.full
    assert room.refused == 1
    room.close()


@pytest.mark.usefixtures("_soon")
async def test_a_full_process_has_room_again_when_descriptors_are_free_and_says_each_once(
    lines: Callable[[str], int],
) -> None:
    limits = [16]
    changes: list[bool] = []
    room = Room(lambda: limits[0])
    room.changed = lambda: changes.append(room.full)
    for _ in range(100):
        assert not room.admits(next_descriptor() + 16)
    assert changes == [True]
    assert lines(OUT) == 1
    await asyncio.sleep(0.02)
    assert room.full
    limits[0] = 10_000
    await until(lambda: not room.full)
    assert changes == [True, False]
    assert room.admits(next_descriptor())
    assert lines(OUT) == 1
    room.close()


@pytest.mark.usefixtures("_soon")
async def test_what_clients_cannot_have_is_refused_and_what_is_not_theirs_is_let_in() -> None:
    got: list[socket.socket] = []
    with ExitStack() as stack:
        clients, own = listener(), listener()
        room = Room(lambda: 1)  # none for clients
        refused: list[bool] = []

        def refuse(sock: socket.socket, at_once: bool) -> None:
            refused.append(at_once)
            sock.send(b"full")
            sock.close()

        acceptors = [
            Acceptor(clients, lambda sock, _: got.append(sock), room, refuse=refuse),
            Acceptor(own, lambda sock, _: got.append(sock), room, of_clients=False),
        ]
        for acceptor in acceptors:
            acceptor.start()
        assert await read(await connect(stack, clients)) == b"full"
        await connect(stack, own)
        await until(lambda: got)
        assert refused == [False]
        assert len(got) == room.refused == 1
        got[0].close()
        for acceptor in acceptors:
            acceptor.close()
        room.close()
