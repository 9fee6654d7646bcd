"""A loop that accepts connections, and neither spins nor gives up when there is no descriptor for them."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from socketcluster_runtime.sockets.capacity import Room

ACCEPTS_PER_TURN = 32
"""Connections that are accepted before everything else has its turn: of a flood, others would wait for more."""

PAUSE = 0.1
"""Seconds without accepting after the process ran out of descriptors or memory."""

NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)
"""What the kernel says where there is no descriptor: of this process, or of the whole machine."""

_NO_MEMORY = (errno.ENOBUFS, errno.ENOMEM)


class ListeningSocket(socket.socket):
    """Accepts at half the cost: a plain one makes enums of its family and type for each connection."""

    __slots__ = ("_kind",)

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection; return it, blocking, and the address that it comes from.

        Raises:
            OSError: as ``accept`` of a plain socket.
        """
        descriptor, address = self._accept()  # type: ignore[attr-defined]
        return socket.socket(*self._of_accepted(), fileno=descriptor), address

    def _of_accepted(self) -> tuple[int, int, int]:
        try:
            return self._kind
        except AttributeError:
            self._kind: tuple[int, int, int] = int(self.family), int(self.type), self.proto
            return self._kind


class Acceptor:
    """Accepts connections at a socket and passes each on, non-blocking, to ``accepted``.

    Without descriptors it refuses connections: who is told so tries again, or elsewhere; who waits in the kernel's
    queue waits in vain. A spare descriptor is kept for that.

    Args:
        sock: listens.
        accepted: is given each connection, and the address that it comes from.
        room: for clients.
        refuse: is given each connection that there is no room for, and closes it; by default it is only closed. While
            there is no other descriptor than the spare one, it is to do so at once, which the second argument says.
        of_clients: are these clients' connections? If not, they may have the descriptors that clients leave.
    """

    def __init__(
        self,
        sock: socket.socket,
        accepted: Callable[[socket.socket, Any], object],
        room: Room,
        *,
        refuse: Callable[[socket.socket, bool], object] | None = None,
        of_clients: bool = True,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._accepted = accepted
        self._room = room
        self._refuse = refuse
        self._of_clients = of_clients
        self._spare: int | None = None
        self._pause: asyncio.TimerHandle | None = None
        sock.setblocking(False)

    @property
    def paused(self) -> bool:
        """Is accepting paused, for want of descriptors or memory?"""
        return self._pause is not None

    def start(self) -> None:
        """Accept from now on."""
        self._keep_spare()
        self._loop.add_reader(self._sock, self.accept, ACCEPTS_PER_TURN)

    def accept(self, limit: int) -> None:
        """Accept what waits, at most ``limit`` connections."""
        for _ in range(limit):
            try:
                sock, address = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in NO_DESCRIPTOR:
                    self._refuse_some()
                elif error.errno in _NO_MEMORY:
                    self._room.no_memory()
                else:
                    continue  # that client's own trouble (it has gone, its network is down): see accept(2)
                self._rest()
                return
            sock.setblocking(False)
            if not self._of_clients or self._room.admits(sock.fileno()):
                self._accepted(sock, address)
            else:
                self._turn_away(sock, at_once=False)

    def close(self) -> None:
        """Accept nothing more, and close the socket."""
        self._loop.remove_reader(self._sock)
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._sock.close()
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    def _keep_spare(self) -> None:
        if self._spare is None:
            with suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _refuse_some(self) -> None:
        """Refuse connections that wait, one after the other, with the spare descriptor."""
        self._room.ran_out()
        for _ in range(ACCEPTS_PER_TURN):
            self._keep_spare()
            if self._spare is None:
                return
            os.close(self._spare)
            self._spare = None
            try:
                sock, _ = self._sock.accept()
            except OSError:  # none waits, or somebody else was faster
                break
            sock.setblocking(False)
            if self._of_clients:
                self._room.refuse()
            self._turn_away(sock, at_once=True)
        self._keep_spare()

    def _turn_away(self, sock: socket.socket, *, at_once: bool) -> None:
        if self._refuse is None:
            sock.close()
        else:
            self._refuse(sock, at_once)

    def _rest(self) -> None:
        self._loop.remove_reader(self._sock)
        if self._pause is None:
            self._pause = self._loop.call_later(PAUSE, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self.start()
