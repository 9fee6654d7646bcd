"""The worker's view of the stores: operations go to whichever store owns their partition, whatever happens to it.

An operation whose store goes away waits, and is sent again to the next owner of its partition, in the order in which
the operations were called. What a worker has attached and subscribed is remembered and said again first.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from socketcluster_proto.v1 import store_pb2
from socketcluster_runtime.logs.logging import get_logger
from socketcluster_runtime.tls.rpc_tls import RpcTls
from socketcluster_store_client import operations
from socketcluster_store_client.channel_feed import ChannelFeed, Gap
from socketcluster_store_client.errors import (
    InvalidOperationError,
    LinkError,
    SessionOverError,
    StoreUnavailableError,
    TooLargeError,
)
from socketcluster_store_client.held_sessions import HeardEmits
from socketcluster_store_client.link import StoreLink
from socketcluster_store_client.links import StoreLinks, opening
from socketcluster_store_client.messages import (
    HistoryPage,
    HistoryRequest,
    Operation,
    Position,
    Result,
    decode_results,
    write_history_request,
)
from socketcluster_store_client.partitioning import PARTITION_COUNT, partition_of
from socketcluster_store_client.reach import StoreReach
from socketcluster_store_client.resync import Resync
from socketcluster_store_client.routes import ANSWERS_TELL, RENEW, Pending, Route, clock, partition_for
from socketcluster_store_client.streams.dialing import GrpcDialer
from socketcluster_store_client.streams.framed_dialing import FramedDialer
from socketcluster_store_client.worker_directory import WorkerDirectory

log = get_logger(__name__)

MAX_PENDING = 100_000
"""Operations that may wait for their answers."""
MAX_PENDING_BYTES = 256 * 1024 * 1024
"""Bytes of values in them."""
MAX_OPERATION_BYTES = 32 * 1024 * 1024
"""The largest value that is sent at all; a store allows less."""
MAX_HISTORIES = 16
"""Answers of histories that may be on their way; each has a megabyte or so."""

_ATTACH = store_pb2.VERB_SESSION_ATTACH
_SUBSCRIBE = store_pb2.VERB_CHANNEL_SUBSCRIBE


class StoreClient:
    """Links to every store, and routes operations by partition."""

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        worker_id: str,
        app_name: str,
        secret: str,
        tls: RpcTls | None = None,
        timeout: float = 10.0,
        framed: bool = False,
        beside: StoreReach | None = None,
        on_session_message: Callable[[str, str, bytes], None] = lambda _session_id, _event, _args: None,
        on_session_destroyed: Callable[[str], None] = lambda _session_id: None,
        on_session_over: Callable[[str], None] = lambda _session_id: None,
        on_session_renewed: Callable[[str, str], None] = lambda _session_id, _renewed_id: None,
        on_channel_message: Callable[[str, bytes, int, int], None] = lambda _channel, _message, _offset, _epoch: None,
        on_data_change: Callable[[store_pb2.DataChange], None] = lambda _change: None,
        on_channel_gap: Callable[[Gap], None] = lambda _gap: None,
    ) -> None:
        """Prepare the links; ``start`` opens them.

        Args:
            addresses: ``host:port``, ``unix:/path``, or ``dns:///name:port`` for every host of that name.
            worker_id: this worker's; one worker has one link a store.
            app_name: the application whose stores they are.
            secret: the cluster's.
            tls: what the links to stores on other machines are secured with.
            timeout: seconds that an operation waits for its answer.
            framed: are its links framed streams, which cost less a message than those of gRPC?
            beside: the ``reach`` of the worker's other client, which is to tell of this one's, too.
            on_session_message: called with session id, event name and MessagePack of the list of arguments.
            on_session_destroyed: called with the session id.
            on_session_over: called with the id of a session that was ended on purpose, before ``on_session_destroyed``,
                and with that of one that was renewed or ended while nobody could tell this worker.
            on_session_renewed: called with the id that a session had, and the one that it has now.
            on_channel_message: called with channel, MessagePack, offset and epoch, in order and once.
            on_data_change: called with what became of a watched key chain.
            on_channel_gap: called with what the history of a channel no longer had after a break.

        Raises:
            SettingsError: an address is malformed.
        """
        self._opening = opening(worker_id, app_name)
        self.workers = WorkerDirectory()
        """Where the workers are that the stores know."""
        dialer = FramedDialer(app_name, secret, tls) if framed else GrpcDialer(secret, tls)
        self._links = StoreLinks(addresses, self._opening, self, dialer)
        self._timeout = timeout
        self._on_session_message = on_session_message
        self._on_session_destroyed = on_session_destroyed
        self._on_session_over = on_session_over
        self._on_session_renewed = on_session_renewed
        self._on_channel_message = on_channel_message
        self._on_data_change = on_data_change
        self._on_channel_gap = on_channel_gap
        self._last_id = 0
        self._ids = itertools.count(1)
        self._renewing: dict[int, Route] = {}
        self._routes: list[Route] = []
        self.reach = StoreReach(timeout, self._routes, beside)
        """Which partitions' owners have not been reached for so long that operations fail."""
        self._untold = Resync(self._routes)
        gone, over = partial(self._gone, on_session_destroyed), partial(self._gone, on_session_over)
        self._routes += [
            Route(number, self._ids, self._renewing, gone, over, self._untold.note) for number in range(PARTITION_COUNT)
        ]
        self._feeds: dict[str, ChannelFeed] = {}  # of all routes
        self._pending: dict[int, Pending] = {}  # in the order of their deadlines
        self._pending_bytes = 0
        self._emits = HeardEmits()
        self._timer: asyncio.TimerHandle | None = None
        self._histories = asyncio.Semaphore(MAX_HISTORIES)
        self._ready = asyncio.Event()
        self._closed = False

    async def start(self, http: tuple[str, int] | None = None, mesh_port: int = 0) -> None:
        """Begin to link, in the background.

        Args:
            http: host and port where other workers reach this one; an empty host is the one that stores see.
            mesh_port: where they link to it, on that host.
        """
        if http is not None:
            self._opening.http_host, self._opening.http_port, self._opening.mesh_port = *http, mesh_port
        self.reach.note_missing(range(PARTITION_COUNT))
        self._links.start()

    async def close(self) -> None:
        """End all links; operations that have no answer fail with ``StoreUnavailableError``."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._untold.close()
        self.reach.close()
        await self._links.close()
        self._ready.clear()
        for feed in self._feeds.values():
            feed.close()
        for pending in list(self._pending.values()):
            self._fail(pending, StoreUnavailableError("the link to the stores was closed"))

    async def wait_ready(self) -> None:
        """Return when every partition has an owner that this worker is linked to, or is known to be broken."""
        await self._ready.wait()

    @property
    def ready(self) -> bool:
        """Has every partition an owner that this worker is linked to, or is it known to be broken?"""
        return self._ready.is_set()

    def call(
        self,
        verb: store_pb2.Verb.ValueType,
        *,
        session_id: str = "",
        keys: Iterable[str] = (),
        name: str = "",
        value: bytes = b"",
        partition: int | None = None,
        message_id: str = "",
    ) -> asyncio.Future[bytes]:
        """Send an operation; its result is MessagePack, empty where the verb returns nothing.

        ``partition`` is needed only where nothing else tells it: for the whole of the application's own tree.

        The future's errors are subclasses of ``LinkError``. Cancelling it does not undo the operation.
        """
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        try:
            keys = tuple(keys)
            for text in (session_id, name, message_id, *keys):
                if not str.isascii(text):
                    text.encode()  # or it would be the whole batch that cannot be sent
            if not isinstance(value, bytes):
                raise TypeError(f"a value is bytes, not {type(value).__name__}")
            if partition is None:
                partition = partition_for(verb, session_id, keys, name)
            elif not 0 <= partition < PARTITION_COUNT:
                raise ValueError(f"there is no partition {partition}")
            self._last_id = next(self._ids)
            operation = Operation(
                id=self._last_id,
                verb=verb,
                session_id=session_id,
                keys=keys,
                name=name,
                value=value,
                partition=partition,
                message_id=message_id,
            )
            route = self._routes[partition]
        except (AttributeError, TypeError, ValueError) as error:
            future.set_exception(InvalidOperationError(str(error), operation=operations.operation_name(verb)))
            return future
        size = len(value)
        if self._closed:
            refused: type[LinkError] = StoreUnavailableError
            why = "the link to the stores was closed"
        elif size > MAX_OPERATION_BYTES:
            refused = TooLargeError
            why = f"a value of {size} bytes is too large to be sent"
        elif len(self._pending) >= MAX_PENDING or self._pending_bytes + size > MAX_PENDING_BYTES:
            refused = StoreUnavailableError
            why = "too many operations wait for the stores"
        elif route.refusals and (reason := route.unavailable):
            route.failed(operation, reason)
            self.reach.failed(partition, unavailable := operations.partition_unavailable(operation, reason))
            future.set_exception(unavailable)
            return future
        else:
            deadline = clock() + self._timeout
            pending = Pending(operation, future, deadline)
            self._pending[operation.id] = pending
            self._pending_bytes += size
            if self._timer is None:
                self._arm(pending)
            route.dispatch(pending)
            return future
        refusal = refused(
            f"{operations.described(operation)}: {why}", operation=operations.operation_name(verb), keys=keys
        )
        if isinstance(refusal, StoreUnavailableError):
            route.failed(operation, why)
            self.reach.failed(partition, refusal)
        future.set_exception(refusal)
        return future

    def attach(self, session_id: str) -> asyncio.Future[bytes]:
        """Hold a session, on every later link too, until ``detach``; the result tells whether it existed."""
        if (route := self._route_of(session_id)) is not None:
            route.sessions.attach(session_id)
        return self.call(_ATTACH, session_id=session_id)

    def detach(self, session_id: str) -> asyncio.Future[bytes]:
        """Let go of a session."""
        if (route := self._route_of(session_id)) is not None:
            route.sessions.detach(session_id)
        return self.call(store_pb2.VERB_SESSION_DETACH, session_id=session_id)

    def session_renewed(self, session_id: str, renewed_id: str) -> None:
        """Note that a session has another id, of the same partition; more than once is as good.

        The store is told anew if there are sockets of it here: it gave the new id to whoever had the old one then, and
        knows of none that came or went while the news was on its way.
        """
        is_here = self._routes[partition_of(session_id)].sessions.renewed(session_id, renewed_id)
        self._on_session_renewed(session_id, renewed_id)
        if is_here is not None:
            told = self.attach(renewed_id) if is_here else self.detach(renewed_id)
            told.add_done_callback(lambda done: done.cancelled() or done.exception())  # each new owner is told, too

    def subscribe(self, channel: str, begun: Callable[[Position], None] | None = None) -> asyncio.Future[bytes]:
        """Get a channel's messages, on every later link too, until ``unsubscribe``.

        After a break those that were missed are read from the channel's history. The result is where the channel is;
        a new subscriber's ``begun`` is called with that even if this fails, when a store has taken it after all.
        """
        if (route := self._route_of(channel)) is None:
            return self.call(_SUBSCRIBE, name=channel)
        feed = route.channels.get(channel)
        is_new = feed is None
        if feed is None:
            feed = ChannelFeed(channel, self.history, self._on_channel_message, self._on_channel_gap, begun)
            route.channels[channel] = self._feeds[channel] = feed
        subscribed = self.call(_SUBSCRIBE, name=channel)
        if is_new:
            feed.reopen(self._last_id)
        return subscribed

    def unsubscribe(self, channel: str) -> asyncio.Future[bytes]:
        """Get a channel's messages no longer."""
        if (route := self._route_of(channel)) is not None and (feed := route.channels.pop(channel, None)) is not None:
            feed.close()
            del self._feeds[channel]
        return self.call(store_pb2.VERB_CHANNEL_UNSUBSCRIBE, name=channel)

    def watch(self, session_id: str, keys: tuple[str, ...], tag: bytes) -> asyncio.Future[bytes]:
        """Get the changes of a key chain, on every later link too, until ``unwatch``.

        The first one on each link has no operation, says where the watch begins, and has ``tag`` as its value.
        """
        future = self.call(store_pb2.VERB_WATCH, session_id=session_id, keys=keys, value=tag)
        if not future.done() and (route := self._route_of(session_id or next(iter(keys), ""))) is not None:
            route.watches[session_id, keys] = tag
        return future

    def unwatch(self, session_id: str, keys: tuple[str, ...]) -> asyncio.Future[bytes]:
        """Get the changes of a key chain no longer."""
        if (route := self._route_of(session_id or next(iter(keys), ""))) is not None:
            route.watches.pop((session_id, keys), None)
        return self.call(store_pb2.VERB_UNWATCH, session_id=session_id, keys=keys)

    async def history(self, channel: str, since: Position | None, limit: int) -> HistoryPage:
        """Return at most ``limit`` messages of a channel: those after a position, or the newest.

        Raises:
            LinkError: as the futures of ``call``.
        """
        request = HistoryRequest(limit) if since is None else HistoryRequest(limit, *since)
        async with self._histories:
            answer = await self.call(store_pb2.VERB_CHANNEL_HISTORY, name=channel, value=write_history_request(request))
        return operations.history_page(channel, answer)

    # What a link tells its owner

    def on_reply(self, link: StoreLink, reply: store_pb2.LinkReply) -> None:
        """Take a link's reply."""
        link.heard_at = clock()
        if self.reach.silent:
            self.reach.heard(link)
        if reply.HasField("announcement"):
            self._announced(link, reply.announcement)
        if reply.HasField("directory"):
            self.workers.told(link, reply.directory)
        if results := reply.results:
            for result in decode_results(results):
                if not link.stale or not link.is_stale(result.id):
                    self._answered(link, result)
        for event in reply.events:
            try:
                self._on_event(link, event)
            except Exception:
                log.exception("an event of the store could not be handled", kind=event.WhichOneof("kind"))

    def on_broken(self, link: StoreLink) -> None:
        """Take back what is in flight on a link."""
        self._fail_overdue()  # another store may be sent the rest at once
        self.reach.broken(link)
        for route in self._routes:
            route.broken(link)
        link.stale.clear()  # no answer comes any more
        self.workers.broken(link)
        self._note_readiness()

    # Ownership

    def _announced(self, link: StoreLink, announcement: store_pb2.Announcement) -> None:
        self._fail_overdue()  # they must not be sent again, and the timer is late if the machine slept
        epochs = {ownership.partition: ownership.epoch for ownership in announcement.partitions}
        reasons = {broken.partition: broken.reason for broken in announcement.broken}
        for number, route in enumerate(self._routes):
            epoch = epochs.get(number)
            route.refusals.pop(link, None)
            if (reason := reasons.get(number)) is not None:
                route.refusals[link] = reason
            if epoch is None:
                route.lost(link)
            else:
                route.announced(link, epoch)
        self._note_readiness()

    def _note_readiness(self) -> None:
        missing = [route.number for route in self._routes if route.owner is None and not self._refuse_parked(route)]
        self.reach.note_missing(missing)
        (self._ready.clear if missing else self._ready.set)()

    def _refuse_parked(self, route: Route) -> bool:
        """Fail what waits for an owner that the partition cannot have; return whether that is so."""
        reason = route.unavailable
        if reason:
            for pending in list(route.parked.values()):
                self._fail(pending, operations.partition_unavailable(pending.operation, reason))
        return bool(reason)

    # Operations on their way

    def _answered(self, link: StoreLink, result: Result) -> None:
        if result.error is not None and result.error.code == store_pb2.Error.CODE_NOT_OWNER:
            self._fail_overdue()  # another store may be sent the rest at once
        pending = self._pending.get(result.id)
        if pending is None:
            if (renewing := self._renewing.get(result.id)) is not None:
                renewing.renewed(link, result)
                self._note_lost(renewing)
            return  # or it timed out
        route = self._routes[pending.operation.partition]
        if route.sent_to is not link or route.in_flight.pop(result.id, None) is None:
            return  # it waits to be sent to another store
        if result.error is None:
            if pending.operation.verb in ANSWERS_TELL:
                route.answered(pending.operation, result.value)
            self._forget(pending)
            if not pending.future.done():
                pending.future.set_result(result.value)
        elif result.error.code == store_pb2.Error.CODE_NOT_OWNER:
            route.not_owned(link, pending)
            self._note_lost(route)
        else:
            self._fail(pending, operations.error_of(pending.operation, result.error))

    def _note_lost(self, route: Route) -> None:
        if route.owner is None and not self._refuse_parked(route):
            self.reach.note_lost(route.number)
            self._ready.clear()

    def _on_event(self, link: StoreLink, event: store_pb2.Event) -> None:
        kind = event.WhichOneof("kind")
        if kind == "channel_message":
            message = event.channel_message
            feed = self._feeds.get(message.channel)
            if feed is not None:  # else it was on its way while the subscription ended
                feed.take(message.value, message.offset, message.epoch, link)
        elif kind == "session_message":
            emit = event.session_message
            if self._emits.is_new(emit):
                self._on_session_message(emit.session_id, emit.name, emit.value)
        elif kind == "data_change":
            self._on_data_change(event.data_change)
        elif kind == "session_destroyed":
            session_id = event.session_destroyed.session_id
            on_purpose = event.session_destroyed.on_purpose
            if on_purpose:
                self._on_session_over(session_id)
            is_news = self._routes[partition_of(session_id)].ended(session_id, link, on_purpose=on_purpose)
            if is_news:
                self._on_session_destroyed(session_id)
        elif kind == "session_renewed":
            self.session_renewed(event.session_renewed.session_id, event.session_renewed.renewed_id)

    def _gone(self, tell: Callable[[str], None], session_id: str) -> None:
        """Tell of a session that ended, or is over, while nobody could tell this worker."""
        try:
            tell(session_id)
        except Exception:
            log.exception("the end of a session could not be handled")

    def _forget(self, pending: Pending) -> None:
        del self._pending[pending.operation.id]
        self._pending_bytes -= len(pending.operation.value)

    def _fail(self, pending: Pending, error: LinkError) -> None:
        route = self._routes[pending.operation.partition]
        route.forget(pending.operation.id)
        operation = pending.operation
        if operation.verb == RENEW:
            route.sessions.end_renewal(operation.session_id)
        elif isinstance(error, SessionOverError):
            if operation.verb == _ATTACH:
                route.over(operation.session_id)
        elif not isinstance(error, InvalidOperationError):
            route.failed(operation, str(error))
        if isinstance(error, StoreUnavailableError):
            self.reach.failed(route.number, error)
        self._forget(pending)
        if not pending.future.done():
            pending.future.set_exception(error)

    def _arm(self, pending: Pending) -> None:
        self._timer = asyncio.get_running_loop().call_later(pending.deadline - clock(), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._fail_overdue()
        if self._pending:
            self._arm(next(iter(self._pending.values())))

    def _fail_overdue(self) -> None:
        """Fail what is overdue; deadlines rise with the order of calls, so the first are the earliest."""
        now = clock()
        overdue = list(itertools.takewhile(lambda pending: pending.deadline <= now, self._pending.values()))
        if not overdue:
            return
        ids = {pending.operation.id for pending in overdue}
        for link in self._links:
            link.forget(ids)
        for pending in overdue:
            operation = pending.operation
            if silent := self._routes[operation.partition].asked_in_vain(pending, self._timeout):
                self.reach.unanswered(silent)
            self._fail(pending, operations.unanswered(operation, self._timeout))

    def _route_of(self, identifier: str) -> Route | None:
        """Return where a session or channel belongs, unless it has no proper name: its operation is refused then."""
        try:
            return self._routes[partition_of(identifier)] if identifier else None
        except (AttributeError, ValueError):
            return None
