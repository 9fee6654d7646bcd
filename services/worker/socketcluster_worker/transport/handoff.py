"""Takes clients over from the balancers of this host: their sockets arrive through a Unix socket."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path

from socketcluster_runtime import logging
from socketcluster_runtime.errors import ServiceError
from socketcluster_wire import handoff as wire
from socketcluster_wire.errors import MalformedHandoffError

log = logging.get_logger(__name__)

PACKETS_A_TURN = 64
"""How many clients are taken over before others get their turn."""

TakeOver = Callable[[socket.socket, wire.Handoff], None]


class HandoffServer:
    """Listens for balancers at a path.

    Args:
        path: where; made anew, since nobody else of that name can be alive.
        take_over: is called with each client's socket and what is known of it.
    """

    def __init__(self, path: Path, take_over: TakeOver) -> None:
        self._path = path
        self._take_over = take_over
        self._loop = asyncio.get_running_loop()
        self._balancers: set[socket.socket] = set()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)

    def start(self) -> None:
        """Listen.

        Raises:
            ServiceError: the folder does not exist or may not be written to.
        """
        try:
            self._path.unlink(missing_ok=True)
            self._listener.bind(str(self._path))
            self._path.chmod(0o600)
        except OSError as error:
            self._listener.close()
            raise ServiceError(f"cannot listen for balancers at {self._path}: {error}") from None
        self._listener.listen(16)
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener, self._accept)

    def close(self) -> None:
        """Take no more clients."""
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._path.unlink(missing_ok=True)
        for balancer in tuple(self._balancers):
            self._drop(balancer)

    def _accept(self) -> None:
        try:
            balancer, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            log.warning("a balancer could not be accepted", error=str(error))
            return
        balancer.setblocking(False)
        self._balancers.add(balancer)
        self._loop.add_reader(balancer, self._read, balancer)

    def _read(self, balancer: socket.socket) -> None:
        for _ in range(PACKETS_A_TURN):
            try:
                packet, descriptors, _, _ = socket.recv_fds(balancer, wire.MAX_PACKET_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                log.warning("a balancer's connection broke", error=str(error))
                self._drop(balancer)
                return
            if not packet:
                self._drop(balancer)
                return
            if not self._received(balancer, packet, descriptors):
                self._drop(balancer)
                return

    def _received(self, balancer: socket.socket, packet: bytes, descriptors: list[int]) -> bool:
        """Acknowledge a packet and take its client; return whether the balancer can go on."""
        if len(descriptors) != 1:
            for descriptor in descriptors:
                os.close(descriptor)
            log.warning("a handoff packet without a descriptor")
            return False
        try:
            client = socket.socket(fileno=descriptors[0])
        except OSError as error:
            os.close(descriptors[0])
            log.warning("a descriptor that is no socket", error=str(error))
            return False
        try:
            handoff = wire.decode(packet)
            balancer.send(wire.encode_ack(handoff.id))
        except (MalformedHandoffError, OSError) as error:
            # Not acknowledged, so the balancer gives the client to somebody else.
            client.close()
            log.warning("a client could not be taken over", error=str(error))
            return False
        client.setblocking(False)
        self._take_over(client, handoff)
        return True

    def _drop(self, balancer: socket.socket) -> None:
        self._balancers.discard(balancer)
        self._loop.remove_reader(balancer)
        balancer.close()
