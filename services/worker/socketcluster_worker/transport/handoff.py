"""Takes clients over from the balancers of this host: their sockets arrive through a Unix socket."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Callable
from pathlib import Path

from socketcluster_runtime.errors import ServiceError
from socketcluster_runtime.logs import logging
from socketcluster_runtime.logs.conditions import Condition
from socketcluster_runtime.sockets.accepting import Acceptor
from socketcluster_runtime.sockets.capacity import Room
from socketcluster_wire import handoff as wire
from socketcluster_wire.errors import MalformedHandoffError

log = logging.get_logger(__name__)

PACKETS_A_TURN = 64
"""How many clients are taken over before others get their turn."""

ENDED_INTERVAL = 0.02
"""Seconds for which the ids of ended connections are collected, for one packet."""

Arrived = tuple["ClientSocket", wire.Handoff]
"""A client that is not acknowledged yet, and what is known of it."""

TakeOver = Callable[["ClientSocket", wire.Handoff], None]


class ClientSocket(socket.socket):
    """A client's socket that was handed over; its balancer is told when the connection has ended.

    Whatever serves the client, its event loop closes the socket or detaches its descriptor at the end.
    """

    __slots__ = ("balancer", "number", "peer")

    def __init__(self, descriptor: int) -> None:
        super().__init__(socket.AF_INET6, socket.SOCK_STREAM, 0, descriptor)  # the kernel knows it if that is IPv4
        self.peer: tuple[str, int] | None = None
        """Its host and port; ``None`` if it is gone."""
        try:
            self.peer = self.getpeername()[:2]
        except OSError as error:
            if error.errno == errno.ENOTSOCK:
                super().detach()
                raise
        self.balancer: BalancerLink | None = None
        """Who is told; nobody before the client was taken."""
        self.number = 0
        """What the balancer calls the connection."""

    def close(self) -> None:
        """Close the descriptor."""
        self._report()
        super().close()

    def detach(self) -> int:
        """Leave the descriptor to somebody else, who closes it at once."""
        self._report()
        return super().detach()

    def _report(self) -> None:
        balancer, self.balancer = self.balancer, None
        if balancer is not None:
            balancer.ended(self.number)


class BalancerLink:
    """The connection of one balancer.

    What has ended is told in packets of many ids. There is never more than one of them unread, so that they leave the
    room to acknowledgements; until then ids wait here, at most one for each connection that there was.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._loop = asyncio.get_running_loop()
        self._ended: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def ended(self, number: int) -> None:
        """Tell the balancer, soon, that a connection has ended."""
        if not self._closed:
            self._ended.append(number)
            if self._timer is None:
                self._timer = self._loop.call_later(ENDED_INTERVAL, self._tell)

    def close(self) -> None:
        """Tell nothing more, and close the connection."""
        self._closed = True
        self._ended.clear()
        if self._timer is not None:
            self._timer.cancel()
        self.sock.close()

    def _tell(self) -> None:
        self._timer = None
        some = self._ended[: wire.MAX_IDS]
        try:
            if not _unread(self.sock):
                self.sock.send(wire.encode_ended(some))
                del self._ended[: len(some)]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:  # whoever reads from it finds that out too, and closes it
            self._ended.clear()
        if self._ended:
            self._timer = self._loop.call_later(ENDED_INTERVAL, self._tell)


def _unread(sock: socket.socket) -> bool:
    """Is there something that was sent and that the other side has not read?"""
    count: int = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0\0\0\0"))[0]
    return count > 0


class HandoffServer:
    """Listens for balancers at a path.

    Args:
        path: where; made anew, since nobody else of that name can be alive.
        take_over: is called with each client's socket and what is known of it.
        room: for clients.
    """

    def __init__(self, path: Path, take_over: TakeOver, room: Room) -> None:
        self._path = path
        self._take_over = take_over
        self._room = room
        self._acceptor: Acceptor | None = None
        self._loop = asyncio.get_running_loop()
        self._balancers: set[BalancerLink] = set()
        self._left = Condition(
            log,
            "clients could not be taken over: their balancer gives them to others",
            over="no client had to be left to its balancer any more",
        )
        """Met once a link perhaps, and for one reason: this process was silent for so long that balancers shut them."""
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
        self._acceptor = Acceptor(self._listener, self._accepted, self._room, of_clients=False)
        self._acceptor.start()

    def close(self) -> None:
        """Take no more clients."""
        if self._acceptor is not None:
            self._acceptor.close()
            self._acceptor = None
            self._path.unlink(missing_ok=True)
        for balancer in tuple(self._balancers):
            self._drop(balancer)
        self._left.close()

    def _accepted(self, sock: socket.socket, _address: object) -> None:
        balancer = BalancerLink(sock)
        self._balancers.add(balancer)
        self._loop.add_reader(sock, self._read, balancer)

    def _read(self, balancer: BalancerLink) -> None:
        arrived: list[Arrived] = []
        goes_on = self._receive(balancer, arrived)
        if arrived and not self._acknowledge(balancer, arrived):
            goes_on = False
        if not goes_on:
            self._drop(balancer)

    def _receive(self, balancer: BalancerLink, arrived: list[Arrived]) -> bool:
        """Add what has come, for one acknowledgement of all; return whether the balancer can go on."""
        for _ in range(PACKETS_A_TURN):
            try:
                packet, descriptors, flags, _ = socket.recv_fds(
                    balancer.sock, wire.MAX_PACKET_BYTES, 1, socket.MSG_CMSG_CLOEXEC
                )
            except (BlockingIOError, InterruptedError):
                return True
            except OSError as error:
                log.warning("a balancer's connection broke", error=str(error))
                return False
            if not packet:
                return False
            if not descriptors and flags & socket.MSG_CTRUNC:  # the kernel had none to give
                self._room.refuse()
                goes_on = self._decline(balancer, packet)
            else:
                goes_on = self._received(balancer, packet, descriptors, arrived)
            if not goes_on:
                return False
        return True

    def _received(self, balancer: BalancerLink, packet: bytes, descriptors: list[int], arrived: list[Arrived]) -> bool:
        """Add the client of a packet to those that are acknowledged; return whether the balancer can go on."""
        if len(descriptors) != 1:
            for descriptor in descriptors:
                os.close(descriptor)
            log.warning("a handoff packet without a descriptor")
            return False
        try:
            client = ClientSocket(descriptors[0])
        except OSError as error:
            os.close(descriptors[0])
            log.warning("a descriptor that is no socket", error=str(error))
            return False
        if not self._room.admits(descriptors[0]):
            client.close()
            return self._decline(balancer, packet)
        try:
            arrived.append((client, wire.decode(packet)))
        except MalformedHandoffError as error:
            client.close()
            self._left.add(error=str(error))
            return False
        return True

    def _acknowledge(self, balancer: BalancerLink, arrived: list[Arrived]) -> bool:
        """Acknowledge clients, and serve them then; return whether the balancer can go on."""
        try:
            balancer.sock.send(wire.encode_ack(*(handoff.id for _, handoff in arrived)))
        except OSError as error:  # not acknowledged, so the balancer gives them to somebody else
            for client, _ in arrived:
                client.close()
            self._left.add(error=str(error))
            return False
        for client, handoff in arrived:
            client.balancer, client.number = balancer, handoff.id
            client.setblocking(False)
            try:
                self._take_over(client, handoff)
            except Exception:  # a fault that one shows is not to cost those that came with it
                log.exception("a client could not be served")
                client.close()
        return True

    def _decline(self, balancer: BalancerLink, packet: bytes) -> bool:
        """Leave a client to its balancer; return whether that can go on."""
        try:
            balancer.sock.send(wire.encode_decline(wire.decode(packet).id))
        except (MalformedHandoffError, OSError) as error:
            self._left.add(error=str(error))
            return False
        return True

    def _drop(self, balancer: BalancerLink) -> None:
        self._balancers.discard(balancer)
        self._loop.remove_reader(balancer.sock)
        balancer.close()
