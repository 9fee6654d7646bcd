"""The balancer's side of a handover: sockets go to a worker of the same host, acknowledgements come back."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from socketcluster_balancer.deadlines import Deadlines
from socketcluster_balancer.errors import NoHandoffError, WorkerUnreachableError
from socketcluster_balancer.plain import PlainClient
from socketcluster_runtime.logging import get_logger
from socketcluster_wire.errors import MalformedHandoffError
from socketcluster_wire.handoff import Handoff, decode_ack, encode

log = get_logger(__name__)

MAX_IN_FLIGHT = 64
"""Packets that may be without acknowledgement at a time."""

MAX_QUEUED = 1024
"""Clients that may wait for one of those; more are for other workers."""

_ABSENT = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ENAMETOOLONG)
_DESCRIPTOR = struct.Struct("@i")
_ACK_BUFFER = 64


class HandoffLink:
    """A connection to one worker's handoff socket, opened when it is needed and again after it broke.

    Each client that was submitted comes back once, by ``taken`` or by ``failed``.
    """

    def __init__(
        self,
        path: str,
        timeout: float,
        taken: Callable[[PlainClient], object],
        failed: Callable[[list[PlainClient], str], object],
    ) -> None:
        self.path = path
        self._loop = asyncio.get_running_loop()
        self._taken = taken
        self._failed = failed
        self._sock: socket.socket | None = None
        self._next_id = 0
        self._in_flight: dict[int, PlainClient] = {}
        self._queue: deque[PlainClient] = deque()
        self._blocked = False
        self._deadlines: Deadlines[int] = Deadlines(timeout, self._too_slow)

    def submit(self, client: PlainClient) -> None:
        """Hand a client over, or queue it.

        Raises:
            NoHandoffError: the worker's handoff socket is not on this host.
            WorkerUnreachableError: nobody listens there, or too many clients are queued.
        """
        if self._sock is None:
            self._connect()
        if len(self._queue) >= MAX_QUEUED:
            raise WorkerUnreachableError(f"{MAX_QUEUED} clients are queued for {self.path}")
        self._queue.append(client)
        self._pump()

    def close(self, reason: str) -> None:
        """Close the connection, if there is one; clients without acknowledgement have failed."""
        self._break(reason)

    def _connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            sock.connect(self.path)
        except OSError as error:
            sock.close()
            if error.errno is None or error.errno in _ABSENT:  # no number: Python finds the path too long
                raise NoHandoffError(str(error)) from None
            raise WorkerUnreachableError(f"{self.path}: {error.strerror}") from None
        self._sock = sock
        self._loop.add_reader(sock, self._readable)

    def _pump(self) -> None:
        """Send queued clients as far as flow control allows."""
        while self._queue and not self._blocked and self._sock is not None and len(self._in_flight) < MAX_IN_FLIGHT:
            client = self._queue[0]
            number = self._next_id
            packet = encode(Handoff(id=number, head=client.data, tls=client.secure, client=client.source))
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, _DESCRIPTOR.pack(client.sock.fileno()))
            try:
                self._sock.sendmsg((packet,), (rights,))
            except (BlockingIOError, InterruptedError):
                self._blocked = True
                self._loop.add_writer(self._sock, self._writable)
                return
            except OSError as error:
                self._break(error.strerror or str(error))
                return
            self._queue.popleft()
            self._next_id += 1
            self._in_flight[number] = client
            self._deadlines.add(number)

    def _writable(self) -> None:
        self._unblock()
        self._pump()

    def _unblock(self) -> None:
        if self._blocked and self._sock is not None:
            self._blocked = False
            self._loop.remove_writer(self._sock)

    def _readable(self) -> None:
        if self._sock is None:
            return
        reason = self._read_acks(self._sock)
        if reason is None:
            self._pump()
        else:
            self._break(reason)

    def _read_acks(self, sock: socket.socket) -> str | None:
        """Take the acknowledgements that have arrived; return why no more can come, if that is so."""
        while True:
            try:
                packet = sock.recv(_ACK_BUFFER)
                if not packet:
                    return "the worker closed its handoff socket"
                number = decode_ack(packet)
            except (BlockingIOError, InterruptedError):
                return None
            except OSError as error:
                return error.strerror or str(error)
            except MalformedHandoffError as error:
                return str(error)
            client = self._in_flight.pop(number, None)
            if client is None:
                return f"an acknowledgement of {number}, which is not awaited"
            self._deadlines.discard(number)
            self._taken(client)

    def _too_slow(self, _number: int) -> None:
        self._break("no acknowledgement in time")

    def _break(self, reason: str) -> None:
        """End the connection and give every client that the worker has not taken back."""
        sock = self._sock
        if sock is None:
            return
        with suppress(OSError):  # the worker's end may be closed, which says the same:
            sock.shutdown(socket.SHUT_RDWR)  # from now on no acknowledgement can be sent
        if self._read_acks(sock) == os.strerror(errno.ECONNRESET):  # told once, before what arrived in front of it
            self._read_acks(sock)
        self._unblock()
        self._loop.remove_reader(sock)
        sock.close()
        self._sock = None
        clients = [*self._in_flight.values(), *self._queue]
        self._in_flight.clear()
        self._queue.clear()
        self._deadlines.close()
        self._failed(clients, reason)
