"""One worker, as the balancer sees it."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable

from socketcluster_balancer.api import WorkerInfo
from socketcluster_balancer.placement.handoff import HandoffLink
from socketcluster_balancer.placement.signs_of_life import OwnTime, SignOfLife
from socketcluster_proto.v1.worker_pb2_grpc import WorkerStub
from socketcluster_runtime.logs.conditions import Condition
from socketcluster_runtime.logs.logging import get_logger
from socketcluster_runtime.sockets.beats import BeatReader

log = get_logger(__name__)

SEEN = 2
"""New signs of life in its file after which a worker counts as seen: they are this host's, and not a copy's."""

SUSPICION = 1.0
"""Seconds for which a worker that failed to take a client is chosen only if there is no other."""

MEMORY = 2.0
"""Seconds after which a client that was given to a worker weighs 1/e of what it did.

A client that was given is not a connection at once: a page is loaded first, a handshake made. Were it forgotten before
it is among those that the worker tells, the worker would be given too many others, again and again; that it then weighs
twice for a while holds for every worker.
"""


class WatchedWorker:
    """What the balancer knows of one worker."""

    def __init__(
        self, address: str, clock: Callable[[], float] = time.monotonic, own_time: OwnTime | None = None
    ) -> None:
        self._clock = clock
        self.address = address
        """Of its gRPC server."""
        self.worker_id = ""
        self.name = ""
        self.ready = False
        """May it be given clients?"""
        self.draining = False
        self.reaches_stores = False
        """Does it reach the owner of each partition?"""
        self.stub: WorkerStub | None = None
        """Its gRPC service, while it is there."""
        self.http: tuple[str, int] | None = None
        """Where relayed connections go."""
        self.http_path = ""
        """Where it serves HTTP at a Unix socket, if that is to be found on this host."""
        self._beats: BeatReader | None = None
        self._stream = b""
        self.link: HandoffLink | None = None
        """Where sockets go; ``None`` if it takes none over."""
        self._given = 0.0
        """The clients that it was given, each of which weighs less as time passes."""
        self._weighed_at = 0.0
        self.tags: tuple[str, ...] = ()
        self.called: frozenset[str] = frozenset()
        """Its name, id and tags."""
        self.suspect_until = 0.0
        """Loop time until which it is chosen only if there is no other."""
        self.connections = 0
        self.full = False
        """Is it without a descriptor for a client?"""
        self.sign_of_life = SignOfLife(own_time or OwnTime())
        self.hanging = Condition(
            log, "worker hangs: it is given no clients", over="worker gives signs of life again", lasts=True
        )

    @property
    def available(self) -> bool:
        """May it be given clients now, be it only if there is no other?"""
        return bool(self.worker_id) and self.ready and not self.draining and not self.silent

    @property
    def hung(self) -> bool:
        """Does it hang, or did so a moment ago? It is chosen only if there is no other."""
        return self.sign_of_life.hung

    @property
    def silent(self) -> bool:
        """Does it hang now? It gets no clients at all."""
        return self.sign_of_life.silent

    def open_beats(self, path: str, stream: bytes) -> None:
        """Look at its signs of life, if they are to be found on this host; ``stream`` is its status's."""
        if path:
            with contextlib.suppress(OSError):
                self._beats, self._stream = BeatReader(path), stream

    def close_beats(self) -> None:
        """Look at them no more: the connection has ended."""
        if self._beats is not None:
            self._beats.close()
            self._beats = None

    def look_at_beats(self, looked_at: float) -> None:
        """Look at its signs of life; ``looked_at`` is the balancer's own time of the look before."""
        if self._beats is None:
            return
        try:
            age = self._beats.look()
        except OSError:
            self.close_beats()  # its status tells again
        else:
            if age is not None:
                self.sign_of_life.beat(age, looked_at)

    @property
    def seen_for(self) -> bytes:
        """The stream of its status that is not needed as a sign of life, as it is seen to beat; empty: it is."""
        return self._stream if self._beats is not None and self._beats.count >= SEEN else b""

    @property
    def load(self) -> float:
        """Its connections, and what it was given of late, which may not be among them yet."""
        return self.connections + self._given_of_late(self._clock())

    def give(self) -> None:
        """Count a client that it was given."""
        now = self._clock()
        self._given = self._given_of_late(now) + 1
        self._weighed_at = now

    def forget_clients(self) -> None:
        """Count from nothing again: it is another process, or none."""
        self.connections, self._given = 0, 0.0

    def _given_of_late(self, now: float) -> float:
        return self._given * math.exp((self._weighed_at - now) / MEMORY)

    def info(self) -> WorkerInfo:
        """Return what the balancer's controller may know."""
        return WorkerInfo(self.worker_id, self.name, self.tags, self.connections)
