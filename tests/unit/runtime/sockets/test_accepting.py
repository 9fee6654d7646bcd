"""Accepting: what comes is passed on, and trouble neither makes it spin nor ends it."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import structlog
from support.worker.running import until

from socketcluster_runtime.sockets import accepting, capacity
from socketcluster_runtime.sockets.accepting import ACCEPTS_PER_TURN, Acceptor
from socketcluster_runtime.sockets.capacity import Room

OUT = "out of descriptors: new clients are refused"
NO_MEMORY = "out of memory for connections: accepting pauses"


@pytest.fixture
def lines() -> Iterator[Callable[[str], int]]:
    """How often an event was logged."""
    with structlog.testing.capture_logs() as captured:
        yield lambda event: sum(line["event"] == event for line in captured)


@pytest.fixture
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "LOOK_INTERVAL", 0.005)
    monkeypatch.setattr(accepting, "PAUSE", 0.005)


def listening(kind: type[Any] = socket.socket) -> Any:
    sock = kind(socket.AF_INET, socket.SOCK_STREAM)
    sock.bind(("127.0.0.1", 0))
    sock.listen(64)
    return sock


async def connect(stack: ExitStack, to: socket.socket) -> socket.socket:
    sock = stack.enter_context(socket.socket())
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, to.getsockname())
    return sock


async def read(sock: socket.socket) -> bytes:
    return await asyncio.get_running_loop().sock_recv(sock, 100)


class Failing(socket.socket):
    """A listening socket whose next calls of ``accept`` fail as the test says."""

    failures: list[int]

    def accept(self) -> Any:
        if self.failures:
            number = self.failures.pop()
            raise OSError(number, os.strerror(number))
        return super().accept()


async def test_each_connection_is_passed_on_with_its_address_and_does_not_block() -> None:
    got: list[tuple[socket.socket, Any]] = []
    room = Room()
    with ExitStack() as stack:
        sock = listening()
        acceptor = Acceptor(sock, lambda *each: got.append(each), room)
        acceptor.start()
        clients = [await connect(stack, sock) for _ in range(3)]
        await until(lambda: len(got) == 3)
        assert {address for _, address in got} == {client.getsockname() for client in clients}
        for accepted, _ in got:
            assert not accepted.getblocking()
            accepted.close()
        acceptor.close()
    room.close()


async def test_in_a_flood_others_have_their_turn() -> None:
    got: list[socket.socket] = []
    room = Room()
    with ExitStack() as stack:
        sock = listening()
        acceptor = Acceptor(sock, lambda sock, _: got.append(sock), room)
        for _ in range(ACCEPTS_PER_TURN + 1):
            await connect(stack, sock)
        acceptor.accept(ACCEPTS_PER_TURN)
        assert len(got) == ACCEPTS_PER_TURN
        acceptor.accept(ACCEPTS_PER_TURN)
        assert len(got) == ACCEPTS_PER_TURN + 1
        for accepted in got:
            accepted.close()
        acceptor.close()
    room.close()


async def test_a_client_that_has_gone_already_is_nobody_elses_trouble(lines: Callable[[str], int]) -> None:
    got: list[socket.socket] = []
    room = Room()
    with ExitStack() as stack:
        sock = listening(Failing)
        sock.failures = [errno.ECONNABORTED, errno.ENETDOWN]
        acceptor = Acceptor(sock, lambda sock, _: got.append(sock), room)
        await connect(stack, sock)
        acceptor.accept(3)
        assert len(got) == 1
        assert not acceptor.paused
        assert lines(OUT) == lines(NO_MEMORY) == 0
        got[0].close()
        acceptor.close()
    room.close()


@pytest.mark.usefixtures("_soon")
async def test_without_memory_it_pauses_and_then_goes_on(lines: Callable[[str], int]) -> None:
    got: list[socket.socket] = []
    room = Room()
    with ExitStack() as stack:
        sock = listening(Failing)
        sock.failures = [errno.ENOBUFS]
        acceptor = Acceptor(sock, lambda sock, _: got.append(sock), room)
        await connect(stack, sock)
        acceptor.start()
        await until(lambda: got)
        assert lines(NO_MEMORY) == 1
        assert not room.full
        assert room.refused == 0
        got[0].close()
        acceptor.close()
    room.close()


@pytest.mark.usefixtures("_soon")
async def test_closed_it_leaves_nothing_open_and_does_not_resume() -> None:
    room = Room()
    sock = listening(Failing)
    sock.failures = [errno.ENOMEM]
    acceptor = Acceptor(sock, lambda *_: None, room)
    acceptor.start()
    spare = acceptor._spare
    assert spare is not None
    acceptor.accept(1)
    assert acceptor.paused
    acceptor.close()
    assert not acceptor.paused
    assert sock.fileno() == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(spare)
    room.close()


class NoDescriptors(socket.socket):
    """A listening socket of a process that has opened all that it may, but for what the test says."""

    free: Callable[[], bool]
    tried = 0

    def accept(self) -> Any:
        self.tried += 1
        if not self.free():
            raise OSError(24, "Too many open files")
        return super().accept()


@pytest.mark.usefixtures("_soon")
async def test_with_the_last_descriptor_clients_are_told_and_then_others_are_served(
    monkeypatch: pytest.MonkeyPatch, lines: Callable[[str], int]
) -> None:
    """The spare descriptor is what lets the kernel accept, so there is one to accept with while it is not held."""
    with ExitStack() as stack:
        sock = listening(NoDescriptors)
        room = Room()
        got: list[socket.socket] = []
        refused: list[bool] = []

        def refuse(sock: socket.socket, at_once: bool) -> None:
            refused.append(at_once)
            sock.send(b"full")
            sock.close()

        acceptor = Acceptor(sock, lambda sock, _: got.append(sock), room, refuse=refuse)
        out = True
        sock.free = lambda: acceptor._spare is None or not out
        waiting = [await connect(stack, sock) for _ in range(5)]
        acceptor.start()
        assert [await read(client) for client in waiting] == [b"full"] * 5
        assert refused == [True] * 5
        assert room.full
        assert acceptor.paused
        assert lines(OUT) == 1
        out = False
        await connect(stack, sock)
        await until(lambda: got)
        got[0].close()
        acceptor.close()
        room.close()


@pytest.mark.usefixtures("_soon")
async def test_without_any_descriptor_accepting_pauses_instead_of_spinning(
    monkeypatch: pytest.MonkeyPatch, lines: Callable[[str], int]
) -> None:
    monkeypatch.setattr(accepting, "PAUSE", 3600)
    with ExitStack() as stack:
        sock = listening(NoDescriptors)
        sock.free = lambda: False
        room = Room()
        acceptor = Acceptor(sock, lambda sock, _: None, room, of_clients=False)
        await connect(stack, sock)
        acceptor.start()
        await until(lambda: acceptor.paused)
        tried = sock.tried
        for _ in range(100):
            await asyncio.sleep(0)
        assert sock.tried == tried
        assert lines(OUT) == 1
        acceptor.close()
        room.close()
