"""Another worker, as this one sees it: what is sent to it, and what has come from it.

Broadcasts to it are numbered and kept until it says that they have come, so that a connection that breaks between two
living workers takes none along. While there is no connection for ``PATIENCE`` seconds they go by the store, with the
same numbers: so whatever way each takes, it is delivered once, and none after a later one.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from typing import NamedTuple, Protocol

from socketcluster_runtime.logs.logging import get_logger
from socketcluster_runtime.sockets.framed import FramedStream
from socketcluster_worker.mesh import frames

log = get_logger(__name__)

PATIENCE = 1.0
"""Seconds without a connection after which broadcasts go by the store."""
MAX_KEPT_BYTES = 16 * 1024 * 1024
"""Bytes of broadcasts that are kept for a worker that does not say that they have come."""
ENTRY_BYTES = 100
"""What one takes beside itself, roughly."""
TOLD_AFTER = 64
"""Broadcasts after which a worker is told that they have come."""
TOLD_AFTER_BYTES = 256 * 1024


class _Kept(NamedTuple):
    number: int
    namespace: str
    packed: bytes


class Way(Protocol):
    """What a neighbour needs of the mesh."""

    def publish(self, namespace: str, packed: bytes, numbers: dict[str, int]) -> None:
        """Send a broadcast by the store, to the workers that have a number."""


class Neighbour:
    """Another worker.

    Args:
        worker_id: its id.
        bit: stands for it in sets of workers.
        way: the other way to it.
    """

    def __init__(self, worker_id: str, bit: int, way: Way) -> None:
        self.id = worker_id
        self.bit = bit
        self.address: tuple[str, int] | None = None
        """Where it can be linked to; ``None``: no store knows it any more."""
        self.stream: FramedStream | None = None
        """The connection, once both have shown who they are."""
        self.origin = ""
        """Its process, of which came what is ``received``."""
        self.received = 0
        """The number of the last broadcast that came from it."""
        self.by_store = False
        """Do broadcasts go by the store?"""
        self.lost = 0
        """Broadcasts that it never got, since too many waited."""
        self._way = way
        self._sent = 0
        self._kept: deque[_Kept] = deque()
        self._kept_bytes = 0
        self._outbox: list[bytes] = []
        self._told = 0  # it was told that so many have come
        self._untold_bytes = 0
        self._patience: asyncio.TimerHandle | None = None
        self._stuck: asyncio.Future[None] | None = None

    def send(self, namespace: str, encoded: bytes, packed: bytes) -> int:
        """Send a broadcast; return its number if it is to go by the store."""
        self._sent += 1
        number = self._sent
        self._kept.append(_Kept(number, namespace, packed))
        self._kept_bytes += len(packed) + ENTRY_BYTES
        if self.stream is not None and self._stuck is None:
            self.say(frames.write_broadcast(number, encoded, packed))
            self._look_if_stuck(self.stream)
        if self._kept_bytes > MAX_KEPT_BYTES:
            self._overflow()
        return number if self.by_store else 0

    def say(self, frame: bytes) -> None:
        """Send a frame, with whatever else is sent in this turn of the loop."""
        if not self._outbox:
            asyncio.get_running_loop().call_soon(self.flush)
        self._outbox.append(frame)

    def flush(self) -> None:
        """Send what there is now."""
        outbox, self._outbox = self._outbox, []
        if outbox and self.stream is not None:
            self.stream.send_now(outbox)
            if self.stream.waiting > MAX_KEPT_BYTES:
                self._give_up(self.stream)

    def say_now(self, frame: bytes) -> None:
        """Send a frame before this returns, behind those before it."""
        self._outbox.append(frame)
        self.flush()

    def connected(self, stream: FramedStream, origin: str, received: int, rooms: bytes) -> None:
        """Say which rooms are here on a new connection, and go on behind what has come there."""
        self._stop_waiting()
        self.by_store = False
        self.stream = stream
        self._stuck = None
        self._outbox = [rooms]
        if origin != self.origin:
            self._restarted(origin)
        self._received_there(received)
        self._send_kept()

    def broken(self) -> None:
        """Note that there is no connection."""
        self.stream = None
        self._outbox.clear()
        self._stuck = None
        self.wait()

    def wait(self) -> None:
        """Have broadcasts go by the store if there is no connection soon."""
        if self._patience is None and self.stream is None:
            self._patience = asyncio.get_running_loop().call_later(PATIENCE, self._go_by_store)

    def close(self) -> None:
        """Send nothing any more."""
        self._stop_waiting()
        if self.stream is not None:
            self.stream.abort()

    def heard_of(self, number: int) -> None:
        """Take that it has got the broadcasts up to a number."""
        self._received_there(number)

    def takes(self, origin: str, number: int, size: int = 0) -> bool:
        """Is this broadcast of it, that came by either way, a new one? Then it has come."""
        if origin != self.origin:
            if self.stream is not None:
                return False  # it comes late, by the store, from a process that is no more
            self._restarted(origin)
        if number <= self.received:
            return False
        self.received = number
        self._untold_bytes += size
        if number - self._told >= TOLD_AFTER or self._untold_bytes > TOLD_AFTER_BYTES:
            self._told, self._untold_bytes = number, 0
            if self.stream is not None:
                self.say(frames.write_received(number))
        return True

    def _restarted(self, origin: str) -> None:
        """It is another process: what was kept was for the clients of the one before."""
        if self.origin:
            self._kept.clear()
            self._kept_bytes = 0
        self.origin = origin
        self.received = self._told = self._untold_bytes = 0

    def _received_there(self, number: int) -> None:
        kept = self._kept
        while kept and kept[0].number <= number:
            self._kept_bytes -= len(kept.popleft().packed) + ENTRY_BYTES

    def _send_kept(self) -> None:
        if self.stream is None:
            return
        self._outbox += [frames.write_broadcast(one.number, one.namespace.encode(), one.packed) for one in self._kept]
        self.flush()
        self._look_if_stuck(self.stream)

    def _look_if_stuck(self, stream: FramedStream) -> None:
        """Send nothing more while too much waits in the connection; what is kept follows."""
        stuck = stream.writable
        if stuck is not None and self._stuck is None:
            last = self._sent
            self._stuck = stuck
            stuck.add_done_callback(lambda _: self._unstuck(stream, last))

    def _unstuck(self, stream: FramedStream, last: int) -> None:
        if self.stream is not stream:
            return
        self._stuck = None
        left = itertools.dropwhile(lambda one: one.number <= last, self._kept)
        for one in list(left):
            self.say(frames.write_broadcast(one.number, one.namespace.encode(), one.packed))
        self.flush()
        self._look_if_stuck(stream)

    def _overflow(self) -> None:
        """Give up the oldest; those that went by the store are not lost by that."""
        before = self.lost
        while self._kept_bytes > MAX_KEPT_BYTES:
            self._kept_bytes -= len(self._kept.popleft().packed) + ENTRY_BYTES
            self.lost += not self.by_store
        if self.lost > before and self.stream is not None:
            self._give_up(self.stream)

    def _give_up(self, stream: FramedStream) -> None:
        log.error(
            "a worker does not read what others broadcast: its connection is closed", worker=self.id, lost=self.lost
        )
        stream.abort()

    def _go_by_store(self) -> None:
        self._patience = None
        if self.address is None:
            return
        self.by_store = True
        for one in self._kept:
            self._way.publish(one.namespace, one.packed, {self.id: one.number})

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
