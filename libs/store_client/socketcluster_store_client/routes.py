"""Where the operations of each partition go, and in what order.

Operations of one partition reach its owner in the order in which they were called, whatever happens to owners and
links: an operation is *in flight* from when it is sent until it is answered or its link breaks, and *parked* while
there is no owner to send it to. When another owner is announced, or the same one with another epoch, what is in flight
is taken back: withdrawn from the link that has not sent it yet, and its answer ignored if it was sent. Then it is sent
again with the same id, as an operation of its own: what a link was given is never changed.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Protocol

import msgspec

from socketcluster_proto.v1 import store_pb2
from socketcluster_runtime.logs.logging import get_logger
from socketcluster_store_client.channel_feed import ChannelFeed
from socketcluster_store_client.held_sessions import HeldSessions
from socketcluster_store_client.messages import Operation, Result, read_channel_position
from socketcluster_store_client.partitioning import partition_of
from socketcluster_store_client.resync import CHANNELS, CHECKS, SESSIONS, WATCHES, State, state_of

log = get_logger(__name__)

CHECKED_AT_ONCE = 1000
"""Session ids that one operation asks for."""
MAX_OVER = 2000
"""States of a partition that are over and untold, and are remembered; see ``_forget_some``."""
TOLD_TO_NEW_OWNER = 100
"""Of them, those that a new owner is told at once; the others follow as what was refused."""

_ATTACH = store_pb2.VERB_SESSION_ATTACH
RENEW = store_pb2.VERB_SESSION_RENEW
_CHECK = store_pb2.VERB_SESSION_CHECK
_SUBSCRIBE = store_pb2.VERB_CHANNEL_SUBSCRIBE
_WATCH = store_pb2.VERB_WATCH
_DETACH = store_pb2.VERB_SESSION_DETACH
_UNSUBSCRIBE = store_pb2.VERB_CHANNEL_UNSUBSCRIBE
_UNWATCH = store_pb2.VERB_UNWATCH
_NEGATIVE = frozenset((_DETACH, _UNSUBSCRIBE, _UNWATCH))
ANSWERS_TELL = frozenset((_ATTACH, _DETACH, _SUBSCRIBE, RENEW))
"""The verbs of operations whose answers tell a route something."""
_CHANNEL_VERBS = frozenset(
    (
        _SUBSCRIBE,
        store_pb2.VERB_CHANNEL_UNSUBSCRIBE,
        store_pb2.VERB_CHANNEL_PUBLISH,
        store_pb2.VERB_CHANNEL_HISTORY,
    )
)
_encode = msgspec.msgpack.Encoder().encode
_FALSE = _encode(False)
_decode_ids = msgspec.msgpack.Decoder(list[str]).decode
_replace = msgspec.structs.replace

clock = partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
"""Tells deadlines, in seconds: a clock that goes on while the machine is suspended, unlike the event loop's. Stores
forget what they have applied after a while, so an operation that slept for long must not be sent again."""


class Sender(Protocol):
    """The link to a store."""

    heard_at: float
    """When the store said something last, by ``clock``."""

    def send(self, operation: Operation) -> None:
        """Send an operation, after those before it."""

    def forget(self, ids: Iterable[int]) -> None:
        """Do not send these operations, if they still wait; nobody wants their answers."""

    def take_back(self, ids: Iterable[int]) -> None:
        """Do not send these operations, if they still wait, or ignore their answers: they will be sent again."""

    def restart(self) -> None:
        """End the stream, soon, and begin another one."""


class Pending:
    """An operation that has no answer yet, and the time of ``clock`` at which nobody waits for one any more."""

    __slots__ = ("deadline", "future", "operation")

    def __init__(self, operation: Operation, future: asyncio.Future[bytes], deadline: float) -> None:
        self.operation = operation
        self.future = future
        self.deadline = deadline


Own = tuple[Operation, Callable[[bytes], None]]
"""An operation of the route's own, and what hears its result."""


class Route:
    """The operations of one partition, and what its owner is to know of this worker."""

    __slots__ = (
        "_claims",
        "_ids",
        "_left",
        "_on_over",
        "_on_untold",
        "_renewing",
        "_unanswered",
        "_untold_limit",
        "channels",
        "epoch",
        "in_flight",
        "number",
        "owner",
        "parked",
        "refusals",
        "sent_to",
        "sessions",
        "untold",
        "watches",
    )

    def __init__(
        self,
        number: int,
        ids: Iterator[int],
        renewing: dict[int, Route],
        on_gone: Callable[[str], None],
        on_over: Callable[[str], None] = lambda _session_id: None,
        on_untold: Callable[[str], None] = lambda _why: None,
    ) -> None:
        """Prepare the route.

        Args:
            number: the partition's.
            ids: where the ids of the route's own operations come from.
            renewing: shared by all routes: by the id of such an operation, its route.
            on_gone: called with a session that ended unheard.
            on_over: called with one that was renewed or ended on purpose, unheard.
            on_untold: called with the reason when something is ``untold``: ``tell_again`` is to be called in a while.
        """
        self.number = number
        self.owner: Sender | None = None
        self.epoch = 0  # of the owner, or of the last one
        self._claims: dict[Sender, int] = {}  # the links to stores that say they are the owner, with which epochs
        self._left: dict[Sender, tuple[int, int]] = {}  # what was taken back of their streams: an epoch, the last id
        self.sent_to: Sender | None = None  # the owner, or the last one as long as it may answer what it was sent
        self.refusals: dict[Sender, str] = {}  # the links to stores that are to own the partition and cannot, and why
        # On sent_to with this epoch, in the order of their ids; a dict's first key is found past all that were taken
        # away before it
        self.in_flight: OrderedDict[int, Pending] = OrderedDict()
        self.parked: dict[int, Pending] = {}
        self.sessions = HeldSessions(on_gone)
        self.channels: dict[str, ChannelFeed] = {}  # subscribed
        self.watches: dict[tuple[str, tuple[str, ...]], bytes] = {}  # by session id and key chain, their tags
        self.untold: dict[State, None] = {}  # what the owner has refused to know so far, or did not answer
        self._unanswered: dict[int, Own] = {}  # operations of its own on sent_to; made anew for each owner
        self._ids = ids
        self._renewing = renewing
        self._untold_limit = MAX_OVER
        self._on_over = on_over
        self._on_untold = on_untold

    # Ownership

    def announced(self, link: Sender, epoch: int) -> None:
        """Note that the store behind ``link`` says that it owns the partition, with that epoch."""
        self._claims[link] = epoch
        self._choose_owner()

    def lost(self, link: Sender) -> None:
        """Note that the store behind ``link`` does not own the partition."""
        if self._claims.pop(link, None) is not None:
            self._choose_owner()

    def _choose_owner(self) -> None:
        """Take the store that says so with the highest epoch for the owner, and send it all that has no answer.

        Another one may be heard of too late, or hang. If it was not right to prefer it, it will refuse what it is sent,
        and the next one has its turn without having to say it again.

        What was sent before was meant for a former epoch, even if the link is the same: what was not applied by now
        never will be, and the answers may not come.

        On one stream nothing is sent twice with one epoch: a store that has applied it, and does not know yet that it
        is the owner no more, could not tell it from what was overtaken. So one whose turn it is again begins a new one.
        """
        link = max(self._claims, key=self._claims.__getitem__, default=None)
        epoch = 0 if link is None else self._claims[link]
        if link is None or (link is self.owner and epoch == self.epoch):
            self.owner = link
            return
        if self.sent_to is not None:
            if self.in_flight:
                self._left[self.sent_to] = self.epoch, next(reversed(self.in_flight))
            self.sent_to.take_back(self.in_flight)
            self._take_back()
        left_epoch, last = self._left.get(link, (0, 0))
        if left_epoch == epoch and any(operation_id <= last for operation_id in self.parked):
            self.owner = None
            link.restart()
            self.lost(link)
            return
        self.owner = self.sent_to = link
        self.epoch = epoch
        for operation, heard in self._renewals():
            self._send_own(operation, heard)
        if self.tell_again(TOLD_TO_NEW_OWNER):
            self._on_untold("there is more than a new owner is told at once")
        parked = sorted(self.parked.items())
        self.parked.clear()
        for _id, pending in parked:
            self._send(pending)

    @property
    def unavailable(self) -> str:
        """Why the partition cannot have an owner now; empty: it has one, or may have one soon."""
        return next(iter(self.refusals.values())) if self.owner is None and self.refusals else ""

    def broken(self, link: Sender) -> None:
        """Take back what was sent on a link that is no more."""
        self.refusals.pop(link, None)
        self._left.pop(link, None)
        if self.sent_to is link:
            link.forget(self.in_flight)
            self._take_back()
        self.lost(link)

    def not_owned(self, link: Sender, pending: Pending) -> None:
        """Keep an operation that the store refused for the owner."""
        self._park(pending)
        self.lost(link)

    # Operations on their way

    def dispatch(self, pending: Pending) -> None:
        """Send an operation, or park it."""
        if pending.operation.verb == RENEW:
            self.sessions.begin_renewal(pending.operation.session_id)
        if self.owner is not None:  # then nothing is parked, and what is in flight was sent to it with its epoch
            self._send(pending)
        else:
            self.parked[pending.operation.id] = pending

    def renewed(self, link: Sender, result: Result) -> None:
        """Take the answer to an operation of the route's own."""
        if self.sent_to is not link:
            return
        operation, heard = self._unanswered.pop(result.id)
        del self._renewing[result.id]
        if result.error is None:
            heard(result.value)
        elif result.error.code == store_pb2.Error.CODE_SESSION_OVER:
            if self.over(operation.session_id):
                self._on_over(operation.session_id)
        elif result.error.code == store_pb2.Error.CODE_INVALID:  # and will ever be
            log.error("a session or channel could not be taken up again", error=result.error.message)
        else:
            self.failed(operation, result.error.message)
            if result.error.code == store_pb2.Error.CODE_NOT_OWNER:
                self.lost(link)

    def answered(self, operation: Operation, result: bytes) -> None:
        """Take the answer to an operation that was called, in the order in which the owner answered it and others."""
        if operation.verb == _SUBSCRIBE:
            self.subscribed(operation.name, operation.id, result)
        elif operation.verb == _ATTACH:
            self._attached(operation.session_id, result)
        elif operation.verb == _DETACH:
            self._detached(operation.session_id)
        else:
            self.sessions.end_renewal(operation.session_id)

    def over(self, session_id: str) -> bool:
        """Take that an attachment was refused, as the session is over; who renews it from here hears of that first.

        Returns:
            Is it over for this worker?
        """
        if self.sessions.is_renewing(session_id):
            self._untold(State(SESSIONS, session_id), "the session is being renewed")
            return False
        self.sessions.forget(session_id)
        return True

    def asked_in_vain(self, pending: Pending, timeout: float) -> Sender | None:
        """Return the link to the store that has said nothing since an overdue operation, if that was sent to it."""
        link = self.sent_to
        if link is None or pending.operation.id not in self.in_flight or link.heard_at > pending.deadline - timeout:
            return None
        return link

    def forget(self, operation_id: int) -> None:
        """Forget an operation that nobody waits for any more."""
        self.in_flight.pop(operation_id, None)
        self.parked.pop(operation_id, None)

    def _send(self, pending: Pending) -> None:
        owner = self.owner
        assert owner is not None  # noqa: S101  # the callers have looked
        operation = pending.operation  # no link has it yet: it is new, or a copy
        operation.epoch = self.epoch
        in_flight = self.in_flight
        if in_flight:
            operation.behind = operation.id - next(iter(in_flight))
        in_flight[operation.id] = pending
        owner.send(operation)

    def _send_own(self, operation: Operation, heard: Callable[[bytes], None]) -> None:
        owner = self.owner
        assert owner is not None  # noqa: S101  # the caller has set it
        operation.partition = self.number
        operation.epoch = self.epoch
        self._unanswered[operation.id] = operation, heard
        self._renewing[operation.id] = self
        owner.send(operation)

    def _take_back(self) -> None:
        """Have nothing in flight any more; the link knows it of the operations that may be sent on it again."""
        sent_to, self.sent_to = self.sent_to, None
        if sent_to is not None:
            sent_to.forget(self._unanswered)  # their ids are not used again: a late answer finds nothing
        for operation_id, (operation, _heard) in self._unanswered.items():
            del self._renewing[operation_id]
            if operation.verb in _NEGATIVE:  # the others are said to any owner
                self.failed(operation, "the link or the owner is another")
        self._unanswered.clear()
        in_flight, self.in_flight = self.in_flight, OrderedDict()
        for pending in in_flight.values():
            self._park(pending)

    def _park(self, pending: Pending) -> None:
        """Have an operation wait that was sent; the link may still hold it, so it is another one that will be sent."""
        operation = pending.operation = _replace(pending.operation, behind=0)
        self.parked[operation.id] = pending

    # What the owner is to know

    def attached_sessions(self) -> list[str]:
        """Return the sessions of which there are sockets here."""
        return self.sessions.all_here()

    def ended(self, session_id: str, link: Sender, *, on_purpose: bool) -> bool:
        """Note that a session's end was heard of; return false if that was told already, and a former owner is late.

        A store tells of an end on a link on which it has announced the ownership that it belongs to, and withdrawn no
        word of it yet.
        """
        epoch = self._claims.get(link, 0)
        if on_purpose:
            return self.sessions.ended_on_purpose(session_id, epoch)
        is_news = self.sessions.ended(session_id, epoch)
        if is_news and self.sessions.is_here(session_id):
            self._untold(State(SESSIONS, session_id), "a session ended that has sockets here")
        return is_news

    def _attached(self, session_id: str, existed: bytes) -> None:
        self.sessions.attached(session_id, existed=existed != _FALSE, epoch=self.epoch)

    def _detached(self, session_id: str, _result: bytes = b"") -> None:
        self.sessions.settle(session_id)

    def subscribed(self, channel: str, operation_id: int, position: bytes) -> None:
        """Take the store's answer to a subscription."""
        feed = self.channels.get(channel)
        if feed is not None and feed.opening is not None and feed.opening <= operation_id:  # else it is a former feed's
            feed.opened(read_channel_position(position), self.sent_to)

    def _renewals(self) -> Iterator[Own]:
        """Make the operations that tell a new owner what is attached and subscribed, and ask for what may be gone."""
        for session_id in self.sessions.all_here():
            yield self._telling_of_session(session_id)
        yield from self._checks()
        for channel, feed in self.channels.items():
            if feed.opening not in self.parked:  # else that follows, maybe after an unsubscription that would part them
                yield self._subscription(channel, feed)
        for key, tag in self.watches.items():
            yield self._telling_of_watch(key, tag)
        self.untold = {state: None for state in self.untold if not self._is_so(state)}  # the others are said

    def tell_again(self, at_most: int) -> bool:
        """Tell the owner states that are untold; return whether others are left that can be told now.

        Without an owner nothing needs to be told: whoever is the next is told all. What was said and has no answer
        counts as told now, so that it does not pile up for a store that does not read.
        """
        if self.owner is None:
            return False
        for state in list(itertools.islice(self.untold, max(0, at_most - len(self._unanswered)))):
            del self.untold[state]
            for operation, heard in self._telling(state):
                self._send_own(operation, heard)
        return bool(self.untold)

    def failed(self, operation: Operation, why: str) -> None:
        """Note that an operation was refused or not answered: what it tells of this worker is to be told again."""
        state = state_of(operation)
        if state is not None:
            self._untold(state, why)

    def _untold(self, state: State, why: str) -> None:
        if self.owner is None and self._is_so(state):
            return  # whoever is the next owner is told
        self.untold[state] = None
        if len(self.untold) > self._untold_limit:
            self._forget_some()
        self._on_untold(why)

    def _forget_some(self) -> None:
        """Forget the oldest states that are over, if they are many: no store may be there for long, or refuse all.

        The next owner knows nothing of them anyway. The one that has refused them goes on to hold such a session, or to
        tell of such a channel, for as long as it is the owner and the link holds.
        """
        over = [state for state in self.untold if not self._is_so(state)]
        for state in over[: -MAX_OVER // 2]:
            del self.untold[state]
            if state.kind == SESSIONS:
                self.sessions.settle(state.name)
        self._untold_limit = len(self.untold) + MAX_OVER // 2  # so that it is looked at now and then only

    def _is_so(self, state: State) -> bool:
        """Is it what a new owner is told anyway?"""
        if state.kind == SESSIONS:
            return self.sessions.is_here(state.name)
        if state.kind == CHANNELS:
            return state.name in self.channels
        return state.kind == CHECKS or (state.name, state.keys) in self.watches

    def _telling(self, state: State) -> Iterator[Own]:
        """Make the operations that tell what a state is at present."""
        if state.kind == SESSIONS:
            yield self._telling_of_session(state.name)
        elif state.kind == CHANNELS:
            feed = self.channels.get(state.name)
            if feed is None:
                yield Operation(id=next(self._ids), verb=_UNSUBSCRIBE, name=state.name), _ignore
            elif feed.opening is not None:  # else another subscription was answered
                yield self._subscription(state.name, feed)
        elif state.kind == WATCHES:
            yield self._telling_of_watch((state.name, state.keys), self.watches.get((state.name, state.keys)))
        else:
            yield from self._checks()

    def _telling_of_session(self, session_id: str) -> Own:
        is_here = self.sessions.is_here(session_id)
        operation = Operation(id=next(self._ids), verb=_ATTACH if is_here else _DETACH, session_id=session_id)
        return operation, partial(self._attached if is_here else self._detached, session_id)

    def _subscription(self, channel: str, feed: ChannelFeed) -> Own:
        operation = Operation(id=next(self._ids), verb=_SUBSCRIBE, name=channel)
        feed.reopen(operation.id)
        return operation, partial(self.subscribed, channel, operation.id)

    def _telling_of_watch(self, key: tuple[str, tuple[str, ...]], tag: bytes | None) -> Own:
        session_id, keys = key
        verb = _UNWATCH if tag is None else _WATCH
        operation = Operation(id=next(self._ids), verb=verb, session_id=session_id, keys=keys, value=tag or b"")
        return operation, _ignore

    def _checks(self) -> Iterator[Own]:
        left = self.sessions.left()
        for start in range(0, len(left), CHECKED_AT_ONCE):
            asked = _encode(left[start : start + CHECKED_AT_ONCE])
            yield Operation(id=next(self._ids), verb=_CHECK, value=asked), self._checked

    def _checked(self, gone: bytes) -> None:
        self.sessions.checked(_decode_ids(gone), self.epoch)


def partition_for(verb: int, session_id: str, keys: Sequence[str], name: str) -> int:
    """Return the partition of an operation.

    Raises:
        ValueError: nothing tells it.
    """
    if verb in _CHANNEL_VERBS:
        return partition_of(name)
    if session_id:
        return partition_of(session_id)
    if keys:
        return partition_of(keys[0])
    raise ValueError("neither a session, nor a key, nor a partition is named")


def _ignore(_result: bytes) -> None:
    """Nothing is to be done."""
