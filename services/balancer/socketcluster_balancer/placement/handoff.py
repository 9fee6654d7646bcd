"""The balancer's side of a handover: sockets go to a worker of the same host, acknowledgements come back.

So does word of each connection that has ended, because connections are counted while they live: see ``limits``. A link
that breaks forgets its connections. Mostly they ended with their worker; after a mere pause of the worker they live on
uncounted, which is better than connections that are counted for ever.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from socketcluster_balancer.entrance.deadlines import DeadlineQueue
from socketcluster_balancer.entrance.plain import PlainClient
from socketcluster_balancer.errors import NoDescriptorError, NoHandoffError, WorkerUnreachableError
from socketcluster_balancer.settings import BalancerSettings
from socketcluster_runtime.logs.logging import get_logger
from socketcluster_wire.errors import MalformedHandoffError
from socketcluster_wire.handoff import MAX_REPLY_BYTES, Handoff, decode_reply, encode

log = get_logger(__name__)

MAX_IN_FLIGHT = 64
"""Packets that may be without acknowledgement at a time."""

MAX_QUEUED_BYTES = 16 * 1024 * 1024
"""Of what the clients that are queued have sent: with usual heads the bound on their number is met first."""

MAX_QUEUED_SECONDS = 10.0
"""Age of the client that has been queued for longest from which on no others are: the worker is too slow for more."""

_ABSENT = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ENAMETOOLONG)
_EXHAUSTED = (errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM)
_DESCRIPTOR = struct.Struct("@i")


class HandoffLink:
    """A connection to one worker's handoff socket, opened when it is needed and again after it broke.

    Each client that was submitted comes back once, by ``taken``, ``failed`` or ``declined``; one that was taken comes
    back again by ``left``, as its key, when its connection has ended.

    Args:
        path: the worker's handoff socket.
        settings: the balancer's.
        taken: is given each client that the worker has acknowledged.
        failed: is given clients that it has not, and why.
        declined: is given each client that it has no descriptor for.
        left: is given the key of a connection that has ended.
    """

    def __init__(
        self,
        path: str,
        settings: BalancerSettings,
        taken: Callable[[PlainClient], object],
        failed: Callable[[list[PlainClient], str], object],
        declined: Callable[[PlainClient], object],
        left: Callable[[bytes], object],
    ) -> None:
        self.path = path
        self._loop = asyncio.get_running_loop()
        self._taken = taken
        self._failed = failed
        self._declined = declined
        self._left = left
        self._max_queued = settings.max_pending_handovers
        self._sock: socket.socket | None = None
        self._next_id = 0
        self._in_flight: dict[int, PlainClient] = {}
        self._queue: deque[tuple[PlainClient, float]] = deque()  # and since when each is there
        self._queued_bytes = 0
        self._living: dict[int, bytes] = {}
        self._blocked = False
        self._deadlines: DeadlineQueue[int] = DeadlineQueue(settings.handoff_timeout, self._too_slow)

    @property
    def pending(self) -> int:
        """Clients that the worker has not yet taken."""
        return len(self._in_flight) + len(self._queue)

    @property
    def living(self) -> int:
        """Clients that it has taken and whose connections have not ended."""
        return len(self._living)

    def submit(self, client: PlainClient) -> None:
        """Hand a client over, or queue it.

        Raises:
            NoHandoffError: the worker's handoff socket is not on this host.
            WorkerUnreachableError: nobody listens there, or too many clients are queued.
            NoDescriptorError: there is none for the connection to the worker.
        """
        if self._sock is None:
            self._connect()
        now = self._loop.time()
        if (self._blocked or len(self._in_flight) >= MAX_IN_FLIGHT) and not self._may_queue(now):
            raise WorkerUnreachableError(f"{len(self._queue)} clients are queued for {self.path}")
        self._queue.append((client, now))
        self._queued_bytes += len(client.data)
        self._pump()

    def close(self, reason: str) -> None:
        """Close the connection, if there is one; clients without acknowledgement have failed."""
        self._break(reason)

    def _connect(self) -> None:
        try:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError as error:
            raise NoDescriptorError(str(error)) from None
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
            client, _ = self._queue[0]
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
                if error.errno in _EXHAUSTED:  # the kernel's limits on what is under way: not the worker's fault
                    self._unqueue()
                    self._declined(client)
                    continue
                self._break(error.strerror or str(error))
                return
            self._unqueue()
            self._next_id += 1
            self._in_flight[number] = client
            self._deadlines.add(number)

    def _may_queue(self, now: float) -> bool:
        queue = self._queue
        if len(queue) >= self._max_queued or self._queued_bytes >= MAX_QUEUED_BYTES:
            return False
        return not queue or now - queue[0][1] < MAX_QUEUED_SECONDS

    def _unqueue(self) -> None:
        client, _ = self._queue.popleft()
        self._queued_bytes -= len(client.data)

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
        reason = self._read_replies(self._sock)
        if reason is None:
            self._pump()
        else:
            self._break(reason)

    def _read_replies(self, sock: socket.socket) -> str | None:
        """Take what the worker has said; return why no more can come, if that is so."""
        while True:
            try:
                packet = sock.recv(MAX_REPLY_BYTES)
                if not packet:
                    return "the worker closed its handoff socket"
                reply = decode_reply(packet)
            except (BlockingIOError, InterruptedError):
                return None
            except OSError as error:
                return error.strerror or str(error)
            except MalformedHandoffError as error:
                return str(error)
            if reply.ended:
                for number in reply.ids:
                    key = self._living.pop(number, None)
                    if key is None:
                        return f"the end of connection {number}, which is not known"
                    self._left(key)
                continue
            for number in reply.ids:
                client = self._in_flight.pop(number, None)
                if client is None:
                    return f"an acknowledgement of {number}, which is not awaited"
                self._deadlines.discard(number)
                if reply.declined:
                    self._declined(client)
                else:
                    self._living[number] = client.key
                    self._taken(client)

    def _too_slow(self, number: int) -> None:
        self._readable()  # it may have come while this process was the one that was slow
        if number in self._in_flight:
            self._break("no acknowledgement in time")

    def _break(self, reason: str) -> None:
        """End the connection and give every client that the worker has not taken back."""
        sock = self._sock
        if sock is None:
            return
        with suppress(OSError):  # the worker's end may be closed, which says the same:
            sock.shutdown(socket.SHUT_RDWR)  # from now on no acknowledgement can be sent
        if self._read_replies(sock) == os.strerror(errno.ECONNRESET):  # told once, before what arrived in front of it
            self._read_replies(sock)
        self._unblock()
        self._loop.remove_reader(sock)
        sock.close()
        self._sock = None
        clients = [*self._in_flight.values(), *(client for client, _ in self._queue)]
        self._in_flight.clear()
        self._queue.clear()
        self._queued_bytes = 0
        keys, self._living = self._living.values(), {}
        for key in keys:
            self._left(key)
        self._deadlines.close()
        self._failed(clients, reason)
