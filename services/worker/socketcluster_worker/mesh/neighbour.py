"""Another worker, as this one sees it: what is sent to it, and what has come from it.

Broadcasts to it are numbered and kept until it says that they have come, so that a connection that breaks between two
living workers takes none along. While there is no connection for ``PATIENCE`` seconds they go by the store, with the
same numbers: so whatever way each takes, it is delivered once, and none after a later one.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from math import inf
from typing import NamedTuple, Protocol

from socketcluster_runtime.logs.logging import get_logger
from socketcluster_runtime.sockets.framed import FramedStream
from socketcluster_worker.mesh import frames

log = get_logger(__name__)

PATIENCE = 1.0
"""Seconds without a connection after which broadcasts go by the store."""
MAX_KEPT_BYTES = 64 * 1024 * 1024
"""Bytes of broadcasts that are kept for a worker that does not say that they have come; all workers' share them."""
MAX_PUBLISHED_BYTES = 16 * 1024 * 1024
"""The same while they go by the store."""
PUBLISHED_AT_ONCE = 1000
"""How many of those kept are given to the store before everything else has its turn."""
ENTRY_BYTES = 100
"""What one takes beside itself, roughly."""
PORTION_BYTES = 1024 * 1024
"""What is sent before it is looked whether the connection takes more."""
TOLD_AFTER = 64
"""Broadcasts after which a worker is told that they have come."""
TOLD_AFTER_BYTES = 256 * 1024


class _Kept(NamedTuple):
    number: int
    namespace: str
    packed: bytes


class Counts(NamedTuple):
    """What is to be known of a worker that was forgotten, if it turns out to be there still."""

    origin: str
    received: int
    sent: int


NOTHING = Counts("", 0, 0)


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
        before: what was counted before it was forgotten.
    """

    def __init__(self, worker_id: str, bit: int, way: Way, before: Counts = NOTHING) -> None:
        self.id = worker_id
        self.bit = bit
        self.address: tuple[str, int] | None = None
        """Where it can be linked to; ``None``: no store knows it any more."""
        self.stream: FramedStream | None = None
        """The connection, once both have said what had come from the other one before."""
        self.coming: FramedStream | None = None
        """A connection on which the other one has shown who it is, and has not said that yet."""
        self.origin = before.origin
        """Its process, of which came what is ``received``."""
        self.received = before.received
        """The number of the last broadcast that came from it."""
        self.linked_at = -inf
        """When the last connection began, on the loop's clock."""
        self.by_store = False
        """Do broadcasts go by the store?"""
        self.lost = 0
        """Broadcasts that it never got, since too many waited."""
        self._way = way
        self._sent = before.sent
        self._kept: deque[_Kept] = deque()
        self._kept_bytes = 0
        self._outbox: list[bytes] = []
        self._outbox_bytes = 0
        self._told = before.received  # it was told that so many have come
        self._untold_bytes = 0
        self._patience: asyncio.TimerHandle | None = None
        self._stuck: asyncio.Future[None] | None = None

    def send(self, namespace: str, encoded: bytes, packed: bytes) -> int:
        """Send a broadcast; return its number if it is to go by the store."""
        self._sent += 1
        number = self._sent
        self._kept.append(_Kept(number, namespace, packed))
        self._kept_bytes += len(packed) + ENTRY_BYTES
        stream = self.stream
        if stream is not None and self._stuck is None:
            self.say(frames.write_broadcast(number, encoded, packed))
            self._is_stuck(stream, number)
        most = MAX_PUBLISHED_BYTES if self.by_store else MAX_KEPT_BYTES
        if self._kept_bytes > most:
            self._overflow(most)
        return number if self.by_store else 0

    def say(self, frame: bytes) -> None:
        """Send a frame, with whatever else is sent in this turn of the loop, unless that is much."""
        if not self._outbox:
            asyncio.get_running_loop().call_soon(self.flush)
        self._outbox.append(frame)
        self._outbox_bytes += len(frame)
        if self._outbox_bytes > PORTION_BYTES:
            self.flush()

    def flush(self) -> None:
        """Send what there is now."""
        outbox, self._outbox, self._outbox_bytes = self._outbox, [], 0
        if outbox and self.stream is not None:
            self.stream.send_now(outbox)
            if self.stream.waiting > MAX_KEPT_BYTES:
                self._give_up(self.stream)

    def say_now(self, frame: bytes) -> None:
        """Send a frame before this returns, behind those before it."""
        self._outbox.append(frame)
        self.flush()

    @property
    def is_away(self) -> bool:
        """Is there neither a connection, nor a store that knows it?"""
        return self.stream is None and self.coming is None and self.address is None

    @property
    def counts(self) -> Counts:
        """What goes on where it stopped, should this be forgotten."""
        return Counts(self.origin, self.received, self._sent)

    def comes(self, stream: FramedStream) -> None:
        """Have a new connection take the place of the one before, as soon as ``connected`` says so."""
        former, self.coming = (self.stream, self.coming), stream
        self.broken()
        for each in former:
            if each is not None:
                each.abort()

    def connected(self, stream: FramedStream, origin: str, received: int, rooms: bytes) -> None:
        """Say which rooms are here on a new connection, and go on behind what has come there."""
        self._stop_waiting()
        self.by_store = False
        self.stream, self.coming = stream, None
        self._stuck = None
        self._outbox = [rooms]
        if origin != self.origin:
            self._restarted(origin)
        self._received_there(received)
        self.flush()
        self._send_kept(stream)

    def broken(self) -> None:
        """Note that there is no connection."""
        self.stream = None
        self._outbox.clear()
        self._stuck = None
        self.wait()

    def wait(self) -> None:
        """Have broadcasts go by the store if there is no connection soon."""
        if self._patience is None and self.stream is None and not self.by_store:
            self._patience = asyncio.get_running_loop().call_later(PATIENCE, self._go_by_store)

    def close(self) -> None:
        """Send what there is, and nothing any more."""
        self.flush()
        for stream in (self.stream, self.coming):
            if stream is not None:
                stream.abort()
        self._stop_waiting()  # which the end of a connection begins

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

    def _send_kept(self, stream: FramedStream, behind: int = 0) -> None:
        """Send what is kept behind a number, as far as the connection takes it; the rest follows."""
        for one in list(itertools.dropwhile(lambda one: one.number <= behind, self._kept)):
            self.say(frames.write_broadcast(one.number, one.namespace.encode(), one.packed))
            if self._is_stuck(stream, one.number) or self.stream is not stream:
                return
        self.flush()
        self._is_stuck(stream, self._sent)

    def _is_stuck(self, stream: FramedStream, last: int) -> bool:
        """Does too much wait in the connection? Then nothing more is sent; what is kept behind ``last`` follows."""
        stuck = stream.writable
        if stuck is not None and self._stuck is None:
            self._stuck = stuck
            stuck.add_done_callback(lambda _: self._unstuck(stream, last))
        return stuck is not None

    def _unstuck(self, stream: FramedStream, last: int) -> None:
        if self.stream is stream:
            self._stuck = None
            self._send_kept(stream, last)

    def _overflow(self, most: int) -> None:
        """Give up the oldest; those that went by the store are not lost by that."""
        before = self.lost
        while self._kept_bytes > most:
            self._kept_bytes -= len(self._kept.popleft().packed) + ENTRY_BYTES
            self.lost += not self.by_store
        if self.lost > before and self.stream is not None:
            self._give_up(self.stream)

    def _give_up(self, stream: FramedStream) -> None:
        log.error(
            "a worker does not read what others broadcast: its connection is closed", worker=self.id, lost=self.lost
        )
        stream.abort()

    def _go_by_store(self, behind: int = 0) -> None:
        """Publish what is kept behind a number, some in a turn of the loop; then what comes, too."""
        self._patience = None
        if self.address is None:
            return
        kept = self._kept
        first = max(0, behind + 1 - kept[0].number) if kept else 0  # they are numbered without a gap
        some = tuple(itertools.islice(kept, first, first + PUBLISHED_AT_ONCE))
        for one in some:
            self._way.publish(one.namespace, one.packed, {self.id: one.number})
        if first + len(some) < len(kept):
            self._patience = asyncio.get_running_loop().call_later(0, self._go_by_store, some[-1].number)
        else:
            self.by_store = True

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
