"""The worker's view of the stores: operations go to whichever store owns their partition, whatever happens to it.

An operation whose store goes away waits, and is sent again to the next owner of its partition, in the order in which
the operations were called. What a worker has attached and subscribed is remembered and said again first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from secrets import token_hex

import msgspec

from socketcluster_proto.v1 import store_pb2
from socketcluster_runtime.addresses import is_name, resolve, split_host_port
from socketcluster_runtime.channel_feed import ChannelFeed, ChannelPosition, Gap, HistoryPage, Position
from socketcluster_runtime.errors import InvalidOperationError, LinkError, StoreUnavailableError, TooLargeError
from socketcluster_runtime.link import StoreLink
from socketcluster_runtime.logging import get_logger
from socketcluster_runtime.operations import described, error_of, operation_name
from socketcluster_runtime.routing import PARTITION_COUNT, partition_of
from socketcluster_runtime.store_routes import Pending, Route

log = get_logger(__name__)

MAX_PENDING = 100_000
"""Operations that may wait for their answers."""
MAX_PENDING_BYTES = 256 * 1024 * 1024
"""Bytes of values in them."""
MAX_OPERATION_BYTES = 32 * 1024 * 1024
"""The largest value that is sent at all; a store allows less."""
MAX_HISTORIES = 16
"""Answers of histories that may be on their way; each has a megabyte or so."""
RESOLVE_INTERVAL = 1.0
"""Seconds between two look-ups of a name."""

_SUBSCRIBE = store_pb2.VERB_CHANNEL_SUBSCRIBE
_CHANNEL_VERBS = frozenset(
    (
        _SUBSCRIBE,
        store_pb2.VERB_CHANNEL_UNSUBSCRIBE,
        store_pb2.VERB_CHANNEL_PUBLISH,
        store_pb2.VERB_CHANNEL_HISTORY,
    )
)
_encode = msgspec.msgpack.Encoder().encode
_read_page = msgspec.msgpack.Decoder(HistoryPage).decode
read_position = msgspec.msgpack.Decoder(ChannelPosition).decode
"""Reads the result of ``subscribe``."""


class StoreClient:
    """Links to every store, and routes operations by partition."""

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        worker_id: str,
        app_name: str,
        secret: str,
        timeout: float = 10.0,
        on_session_message: Callable[[str, str, bytes], None],
        on_session_destroyed: Callable[[str], None],
        on_channel_message: Callable[[str, bytes, int, int], None],
        on_data_change: Callable[[store_pb2.DataChange], None] = lambda _change: None,
        on_channel_gap: Callable[[Gap], None] = lambda _gap: None,
    ) -> None:
        """Prepare the links; ``start`` opens them.

        Args:
            addresses: ``host:port``, ``unix:/path``, or ``dns:///name:port`` for every host of that name.
            worker_id: this worker's; one worker has one link a store.
            app_name: the application whose stores they are.
            secret: the cluster's.
            timeout: seconds that an operation waits for its answer.
            on_session_message: called with session id, event name and MessagePack of the list of arguments.
            on_session_destroyed: called with the session id.
            on_channel_message: called with channel, MessagePack, offset and epoch, in order and once.
            on_data_change: called with what became of a watched key chain.
            on_channel_gap: called with what the history of a channel no longer had after a break.

        Raises:
            SettingsError: an address is malformed.
        """
        for address in addresses:
            if not address.startswith("unix:"):
                split_host_port(address.removeprefix("dns:///"))
        self._addresses = list(dict.fromkeys(addresses))
        self._opening = store_pb2.LinkOpen(worker_id=worker_id, app_name=app_name, incarnation=token_hex(8))
        self._secret = secret
        self._timeout = timeout
        self._on_session_message = on_session_message
        self._on_session_destroyed = on_session_destroyed
        self._on_channel_message = on_channel_message
        self._on_data_change = on_data_change
        self._on_channel_gap = on_channel_gap
        self._links: dict[str, StoreLink] = {}
        self._named: set[str] = set()  # addresses of links that were found by name
        self._unresolved: set[str] = set()
        self._routes = [Route() for _ in range(PARTITION_COUNT)]
        self._feeds: dict[str, ChannelFeed] = {}  # of all routes
        self._pending: dict[int, Pending] = {}  # in the order of their deadlines
        self._pending_bytes = 0
        self._last_id = 0
        self._timer: asyncio.TimerHandle | None = None
        self._histories = asyncio.Semaphore(MAX_HISTORIES)
        self._resolver: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._closed = False

    async def start(self) -> None:
        """Begin to link, in the background."""
        for address in self._addresses:
            if not is_name(address):
                self._add_link(address)
        if any(map(is_name, self._addresses)):
            self._resolver = asyncio.create_task(self._resolve_names(), name="store addresses")

    async def close(self) -> None:
        """End all links; operations that have no answer fail with ``StoreUnavailableError``."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._resolver is not None:
            self._resolver.cancel()
            await asyncio.wait({self._resolver})
        await asyncio.gather(*(link.close() for link in self._links.values()))
        self._links.clear()
        self._ready.clear()
        for feed in self._feeds.values():
            feed.close()
        for pending in list(self._pending.values()):
            self._fail(pending, StoreUnavailableError("the link to the stores was closed"))

    async def wait_ready(self) -> None:
        """Return when every partition has an owner that this worker is linked to."""
        await self._ready.wait()

    @property
    def ready(self) -> bool:
        """Has every partition an owner that this worker is linked to?"""
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
            if partition is None:
                partition = _partition(verb, session_id, keys, name)
            self._last_id += 1
            operation = store_pb2.Operation(
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
        except (AttributeError, TypeError, ValueError, IndexError) as error:
            future.set_exception(InvalidOperationError(str(error), operation=operation_name(verb)))
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
        else:
            deadline = asyncio.get_running_loop().time() + self._timeout
            pending = Pending(operation, future, deadline)
            self._pending[operation.id] = pending
            self._pending_bytes += size
            if self._timer is None:
                self._arm(deadline)
            self._dispatch(route, pending)
            return future
        text = f"{described(operation)}: {why}"
        future.set_exception(refused(text, operation=operation_name(verb), keys=keys))
        return future

    def attach(self, session_id: str) -> asyncio.Future[bytes]:
        """Hold a session, on every later link too, until ``detach``."""
        if (route := self._route_of(session_id)) is not None:
            route.sessions[session_id] = None
        return self.call(store_pb2.VERB_SESSION_ATTACH, session_id=session_id)

    def detach(self, session_id: str) -> asyncio.Future[bytes]:
        """Let go of a session."""
        if (route := self._route_of(session_id)) is not None:
            route.sessions.pop(session_id, None)
        return self.call(store_pb2.VERB_SESSION_DETACH, session_id=session_id)

    def subscribe(self, channel: str) -> asyncio.Future[bytes]:
        """Get a channel's messages, on every later link too, until ``unsubscribe``.

        After a break those that were missed are read from the channel's history. The result is where the channel is.
        """
        if (route := self._route_of(channel)) is None:
            return self.call(_SUBSCRIBE, name=channel)
        feed = route.channels.get(channel)
        is_new = feed is None
        if feed is None:
            feed = ChannelFeed(channel, self.history, self._on_channel_message, self._on_channel_gap)
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
        if (route := self._route_of(session_id or next(iter(keys), ""))) is not None:
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
        request = {"limit": limit}
        if since is not None:
            request |= since._asdict()
        async with self._histories:
            answer = await self.call(store_pb2.VERB_CHANNEL_HISTORY, name=channel, value=_encode(request))
        return _read_page(answer)

    # What a link tells its owner

    def on_reply(self, link: StoreLink, reply: store_pb2.LinkReply) -> None:
        """Take a link's reply."""
        if reply.HasField("announcement"):
            self._announced(link, reply.announcement)
        for result in reply.results:
            self._answered(link, result)
        for event in reply.events:
            try:
                self._on_event(event)
            except Exception:
                log.exception("an event of the store could not be handled", kind=event.WhichOneof("kind"))

    def on_broken(self, link: StoreLink) -> None:
        """Take back what is in flight on a link."""
        for route in self._routes:
            if route.owner is link:
                self._lose(route)
            if route.sent_to is link:
                in_flight, route.in_flight, route.sent_to = route.in_flight, {}, None
                for pending in in_flight.values():
                    self._park(route, pending)
                self._release(route)

    # Ownership

    def _announced(self, link: StoreLink, announcement: store_pb2.Announcement) -> None:
        epochs = {ownership.partition: ownership.epoch for ownership in announcement.partitions}
        for number, route in enumerate(self._routes):
            epoch = epochs.get(number)
            if epoch is None:
                if route.owner is link:
                    self._lose(route)
            elif route.owner is None or epoch > route.epoch:
                route.owner = link
                route.epoch = epoch
                route.renew = True
                self._release(route)
        if not self._ready.is_set() and all(route.owner is not None for route in self._routes):
            self._ready.set()

    def _lose(self, route: Route) -> None:
        route.owner = None
        self._ready.clear()

    # Operations on their way

    def _dispatch(self, route: Route, pending: Pending) -> None:
        if route.clear and not route.parked and not route.renew:
            self._send(route, pending)
        else:
            route.parked[pending.operation.id] = pending

    def _send(self, route: Route, pending: Pending) -> None:
        owner = route.owner
        assert owner is not None  # noqa: S101  # the route is clear
        route.sent_to = owner
        route.in_flight[pending.operation.id] = pending
        owner.send(pending.operation)

    def _park(self, route: Route, pending: Pending) -> None:
        """Keep what was not answered for the next owner; the client's own operations are made anew for it."""
        if pending.future is None or pending.future.cancelled():
            self._forget(pending)
        else:
            route.parked[pending.operation.id] = pending

    def _release(self, route: Route) -> None:
        """Send what waits for an owner, if there is one now."""
        if not route.clear:
            return
        if route.renew:
            route.renew = False
            for session_id in route.sessions:
                self._send_own(route, store_pb2.Operation(verb=store_pb2.VERB_SESSION_ATTACH, session_id=session_id))
            for channel, feed in route.channels.items():
                self._send_own(route, store_pb2.Operation(verb=_SUBSCRIBE, name=channel))
                feed.reopen(self._last_id)
            for (session_id, keys), tag in route.watches.items():
                self._send_own(
                    route, store_pb2.Operation(verb=store_pb2.VERB_WATCH, session_id=session_id, keys=keys, value=tag)
                )
        if route.parked:
            parked = sorted(route.parked.items())
            route.parked.clear()
            for _id, pending in parked:
                self._send(route, pending)

    def _send_own(self, route: Route, operation: store_pb2.Operation) -> None:
        self._last_id += 1
        operation.id = self._last_id
        operation.partition = self._routes.index(route)
        pending = Pending(operation, None, asyncio.get_running_loop().time() + self._timeout)
        self._pending[operation.id] = pending
        if self._timer is None:
            self._arm(pending.deadline)
        self._send(route, pending)

    def _answered(self, link: StoreLink, result: store_pb2.Result) -> None:
        pending = self._pending.get(result.id)
        if pending is None:
            return  # it timed out
        route = self._routes[pending.operation.partition]
        if route.sent_to is not link or route.in_flight.pop(result.id, None) is None:
            return  # it is on its way to another store
        if not result.HasField("error"):
            self._forget(pending)
            if pending.operation.verb == _SUBSCRIBE:
                feed = route.channels.get(pending.operation.name)
                if feed is not None and feed.opening == result.id:
                    feed.opened(read_position(result.value))
            if pending.future is not None and not pending.future.done():
                pending.future.set_result(result.value)
        elif result.error.code == store_pb2.Error.CODE_NOT_OWNER:
            if route.owner is link:
                self._lose(route)
            self._park(route, pending)
        else:
            self._fail(pending, error_of(pending.operation, result.error))
        if route.parked or route.renew:
            self._release(route)

    def _on_event(self, event: store_pb2.Event) -> None:
        kind = event.WhichOneof("kind")
        if kind == "channel_message":
            message = event.channel_message
            feed = self._feeds.get(message.channel)
            if feed is not None:  # else it was on its way while the subscription ended
                feed.take(message.value, message.offset, message.epoch)
        elif kind == "session_message":
            self._on_session_message(
                event.session_message.session_id, event.session_message.name, event.session_message.value
            )
        elif kind == "data_change":
            self._on_data_change(event.data_change)
        elif kind == "session_destroyed":
            self._on_session_destroyed(event.session_destroyed.session_id)

    def _forget(self, pending: Pending) -> None:
        del self._pending[pending.operation.id]
        self._pending_bytes -= len(pending.operation.value)

    def _fail(self, pending: Pending, error: LinkError) -> None:
        route = self._routes[pending.operation.partition]
        route.in_flight.pop(pending.operation.id, None)
        route.parked.pop(pending.operation.id, None)
        self._forget(pending)
        if pending.future is None:
            log.error("a session or channel could not be taken up again", error=str(error))
        elif not pending.future.done():
            pending.future.set_exception(error)

    def _arm(self, deadline: float) -> None:
        self._timer = asyncio.get_running_loop().call_at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        """Fail what is overdue; deadlines rise with the order of calls, so the first are the earliest."""
        self._timer = None
        now = asyncio.get_running_loop().time()
        overdue = []
        for pending in self._pending.values():
            if pending.deadline > now:
                self._arm(pending.deadline)
                break
            overdue.append(pending)
        for pending in overdue:
            operation = pending.operation
            text = f"no store answered {described(operation)} within {self._timeout:g} s"
            name = operation_name(operation.verb)
            self._fail(pending, StoreUnavailableError(text, operation=name, keys=operation.keys))

    # Links

    def _route_of(self, identifier: str) -> Route | None:
        """Return where a session or channel belongs, unless it has no proper name: its operation is refused then."""
        try:
            return self._routes[partition_of(identifier)] if identifier else None
        except (AttributeError, ValueError):
            return None

    def _add_link(self, address: str) -> None:
        link = StoreLink(address, self._opening, self._secret, self)
        self._links[address] = link
        link.start()

    async def _resolve_names(self) -> None:
        while True:
            present: set[str] = set()
            complete = True
            for address in filter(is_name, self._addresses):
                hosts = await resolve(address)
                present.update(hosts)
                if hosts:
                    self._unresolved.discard(address)
                    continue
                complete = False
                if address not in self._unresolved:
                    self._unresolved.add(address)
                    log.warning("no store has that name", address=address)
            for host in present - self._links.keys():
                self._named.add(host)
                self._add_link(host)
            if complete:
                for host in [host for host in self._named - present if not self._links[host].linked]:
                    self._named.discard(host)
                    await self._links.pop(host).close()
            await asyncio.sleep(RESOLVE_INTERVAL)


def _partition(verb: int, session_id: str, keys: Sequence[str], name: str) -> int:
    if verb in _CHANNEL_VERBS:
        return partition_of(name)
    if session_id:
        return partition_of(session_id)
    if keys:
        return partition_of(keys[0])
    raise ValueError("neither a session, nor a key, nor a partition is named")
