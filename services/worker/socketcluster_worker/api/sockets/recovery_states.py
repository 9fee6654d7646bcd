"""What is kept of a Socket.IO client in the store, for it to take up where it was: given once, for its ticket.

A state lies in the application's tree under a hash of its ticket, so that who reads the store learns no ticket. It
expires by the store's clock. A worker that is killed cannot say when; so the state of a client that is connected
expires, too, a little later than the window, and its worker puts that off again and again.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from hashlib import blake2b
from typing import Any

import msgspec

from socketcluster_proto.v1 import store_pb2 as pb
from socketcluster_runtime.logs import logging
from socketcluster_runtime.logs.throttle import Throttle
from socketcluster_store_client.client import StoreClient
from socketcluster_store_client.errors import LinkError, StoreUnavailableError
from socketcluster_store_client.partitioning import partition_of
from socketcluster_worker.api.data.values import TRUE, pack, unpack
from socketcluster_worker.errors import NotSerializableError

log = logging.get_logger(__name__)

PREFIX = "\0recovery\0"
"""Begins the keys of the states; keys with a NUL are the services' own, and no application sees them."""
MAX_TICKET = 64
"""Characters of what can be a ticket."""
MAX_INTERVAL = 30.0
"""Seconds between two renewals of a state's expiry, unless a quarter of the window is less: so much longer can a state
be kept whose worker was killed."""
AT_ONCE = 200
"""States whose expiry is renewed in one turn of the loop."""

_decode_result = msgspec.msgpack.Decoder(tuple[bool, Any]).decode
_decode_results = msgspec.msgpack.Decoder(tuple[tuple[bool, Any], bool]).decode


class RecoveryState:
    """One client's state, and its ticket.

    Args:
        states: those that it is one of.
        ticket: that its client recovered with; ``None``: a new one is made.
    """

    __slots__ = ("_key", "_seen", "_states", "over", "ticket")

    def __init__(self, states: RecoveryStates, ticket: str | None = None) -> None:
        self._states = states
        self.ticket = secrets.token_urlsafe(24) if ticket is None else ticket
        """What the client is given: 192 random bits."""
        self._key = _key(self.ticket)
        self._seen = _digest(pack(None))  # of what the store has, unless another worker took it
        self.over = False
        """Is the state no longer this worker's: taken, dropped, or left to expire?"""

    async def keep(self, state: dict[str, Any], *, connected: bool) -> None:
        """Keep a state in the place of the one before, unless that was taken meanwhile.

        Without a connection it is the last one, and is kept for the window from now on.
        """
        if self.over:
            return
        try:
            packed = pack(state)
        except NotSerializableError as error:
            log.warning("a client's data cannot be kept, so it cannot recover", error=str(error))
            return
        seen, self._seen = self._seen, _digest(packed)
        self.over = not connected
        swap = pack((seen, msgspec.Raw(packed)))
        steps = [
            (pb.VERB_UPDATE, (self._key,), swap),
            (pb.VERB_EXPIRE, (self._key,), pack(self._states.seconds(connected=connected))),
        ]
        if connected:
            self._states.renew(self)
        else:
            self._states.forget(self)
        try:
            (done, _), _ = _decode_results(await self._states.change(self._key, pack(steps)))
        except LinkError as error:
            self._states.failed(error)
            return
        if not done:
            self.leave()

    def leave(self) -> None:
        """Have nothing more to do with the state: another worker has it."""
        self.over = True
        self._states.forget(self)

    async def drop(self) -> None:
        """Drop the state, unless another worker has it: the client was sent away, or went for good."""
        if not self.over:
            self.leave()
            await self._states.drop(self._key, self._seen)

    def put_off(self) -> None:
        """Renew the expiry."""
        self._states.put_off(self._key)


class RecoveryStates:
    """The states of one namespace's clients on this worker.

    Args:
        client: the store's.
        window: seconds for which a client that is gone can come back.
    """

    def __init__(self, client: StoreClient, window: float) -> None:
        self._client = client
        self._window = window
        self._interval = min(window / 4, MAX_INTERVAL)
        self._due: dict[RecoveryState, float] = {}  # in the order of their times
        self._timer: asyncio.TimerHandle | None = None
        self._failed = Throttle(
            lambda count: log.warning("clients' states could not be kept or read", count=count, last=self._failed.last)
        )

    def __len__(self) -> int:
        return len(self._due)

    def new(self, ticket: str | None = None) -> RecoveryState:
        """Begin a state with a new ticket, or with that one from which ``take`` has taken the state."""
        return RecoveryState(self, ticket)

    def seconds(self, *, connected: bool) -> float:
        """Return how long a state is kept from now on."""
        return self._window + self._interval if connected else self._window

    async def look(self, ticket: object) -> dict[str, Any] | None:
        """Return the state of a ticket that a client shows, ``None`` if there is none; it stays where it is."""
        if not isinstance(ticket, str) or not 0 < len(ticket) <= MAX_TICKET or not ticket.isascii():
            return None
        try:
            state = unpack(await self._client.call(pb.VERB_GET, keys=(_key(ticket),)))
            if not isinstance(state, dict):
                return None
            asked = pack([state["session"]])
            gone = await self._client.call(pb.VERB_SESSION_CHECK, value=asked, partition=partition_of(state["session"]))
        except LinkError as error:
            self.failed(error)
            return None
        return None if unpack(gone) else state  # with its session, what belongs to it has ended

    async def take(self, ticket: str) -> dict[str, Any] | None:
        """Return the state of a ticket that ``look`` found, and drop it; ``None`` if somebody else was faster."""
        try:
            state = unpack(await self._client.call(pb.VERB_REMOVE, keys=(_key(ticket),), value=TRUE))
        except LinkError as error:
            self.failed(error)
            return None
        return state if isinstance(state, dict) else None

    def change(self, key: str, steps: bytes) -> asyncio.Future[bytes]:
        """Have a transaction applied to a state."""
        return self._client.call(pb.VERB_TRANSACTION, value=steps, partition=partition_of(key))

    async def drop(self, key: str, seen: bytes) -> None:
        """Drop a state if it is still the one of that digest: a client that recovers has its own by the same key."""
        try:
            nothing = pack((seen, None))
            done, _ = _decode_result(await self._client.call(pb.VERB_UPDATE, keys=(key,), value=nothing))
            if done:
                await self._client.call(pb.VERB_REMOVE, keys=(key,))
        except LinkError as error:
            self.failed(error)

    def failed(self, error: LinkError) -> None:
        """Log that a state could not be kept or read; where no store answers, that is known."""
        if not isinstance(error, StoreUnavailableError):
            self._failed.add(str(error))

    def renew(self, state: RecoveryState) -> None:
        """Put a state's expiry off from now on, until it is forgotten."""
        self._due.pop(state, None)
        self._due[state] = asyncio.get_running_loop().time() + self._interval
        if self._timer is None:
            self._arm()

    def forget(self, state: RecoveryState) -> None:
        """Let a state expire."""
        self._due.pop(state, None)
        if not self._due and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def put_off(self, key: str) -> None:
        """Renew the expiry of a state."""
        sent = self._client.call(pb.VERB_EXPIRE, keys=(key,), value=pack(self.seconds(connected=True)))
        sent.add_done_callback(lambda done: done.cancelled() or done.exception())  # it will be tried again

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_at(next(iter(self._due.values())), self._put_off_due)

    def _put_off_due(self) -> None:
        now = asyncio.get_running_loop().time()
        due = list(itertools.takewhile(lambda state: self._due[state] <= now, itertools.islice(self._due, AT_ONCE)))
        for state in due:
            state.put_off()
            del self._due[state]
            self._due[state] = now + self._interval
        self._arm()  # should more be due now, in the next turn, after what else there is to do


def _digest(packed: bytes) -> bytes:
    return blake2b(packed, digest_size=16).digest()


def _key(text: str) -> str:
    return PREFIX + blake2b(text.encode(), digest_size=16).hexdigest()
