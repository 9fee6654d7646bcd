"""What SocketCluster's own events ask for: subscriptions, publications, authentication."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import msgspec

from socketcluster_store_client.errors import LinkError
from socketcluster_wire import socketcluster as wire
from socketcluster_worker.api.sockets.action import Action
from socketcluster_worker.api.sockets.namespace import Namespace
from socketcluster_worker.api.sockets.socket import Socket
from socketcluster_worker.errors import AuthTokenError, EventError, NotSerializableError
from socketcluster_worker.protocols import authentication
from socketcluster_worker.protocols.backpressure import Backpressure
from socketcluster_worker.protocols.dispatch import Dispatch
from socketcluster_worker.protocols.event_queue import EventQueue
from socketcluster_worker.protocols.socketcluster.encoding import encode_auth_error
from socketcluster_worker.tokens import Tokens

MAX_OPERATIONS = 256
"""Operations on the store that one client may have under way; what it sends waits until one of them is done."""

Start = Callable[[str, Any], asyncio.Future[bytes]]
"""Begins an operation on a channel."""
Begin = Callable[[str, Any], None]
"""Begins a request on a channel, and answers it."""


class Requests:
    """Carries out the requests of one socket.

    While a middleware is being asked about one, what the client sends after it waits, so that all of it happens in the
    order in which it was sent. The store is not waited for: what reaches it keeps its order.

    Args:
        namespace: whose middleware is asked.
        socket: whose requests these are.
        dispatch: tells the client, or the log, what failed.
        tokens: verifies auth tokens.
        answer: sends an answer.
        backpressure: is told what is under way.
        queue: where what the client sends waits for its turn.
    """

    def __init__(
        self,
        namespace: Namespace,
        socket: Socket,
        dispatch: Dispatch,
        tokens: Tokens,
        answer: Callable[[bytes], None],
        backpressure: Backpressure,
        queue: EventQueue,
    ) -> None:
        self._namespace = namespace
        self._socket = socket
        self._dispatch = dispatch
        self._tokens = tokens
        self._answer = answer
        self._backpressure = backpressure
        self._queue = queue
        self._operations = 0

    def take(self, event: wire.Event) -> None:
        """Carry out one request."""
        match event.name:
            case wire.PUBLISH:
                self._operate(event, "publish_in", event.data, partial(self._begin, event, self._publish))
            case wire.SUBSCRIBE:
                data = {"channel": event.data} if isinstance(event.data, str) else event.data
                if isinstance(data, dict) and "since" in data:
                    self._operate(event, "subscribe", data, partial(self._follow, event, data["since"]))
                else:
                    self._operate(event, "subscribe", data, partial(self._begin, event, self._subscribe))
            case wire.UNSUBSCRIBE:
                self._unsubscribe(event)
            case wire.AUTHENTICATE:
                self._authenticate(event)
            case wire.REMOVE_AUTH_TOKEN:
                self._socket.token_removed()
                self._done(event)
            case _:
                self._fail(event, "InvalidActionError", f"{event.name} is not understood")

    # Channels.

    def _operate(self, event: wire.Event, stage: str, data: Any, begin: Begin) -> None:
        channel: Any = None
        value: Any = msgspec.UNSET
        if type(data) is wire.PublishData:
            channel, value = data.channel, data.data or msgspec.UNSET
        elif isinstance(data, dict):
            channel, value = data.get("channel"), data.get("data", msgspec.UNSET)
        exchange = self._namespace.exchange
        try:
            exchange.check_name(channel)
            if event.name == wire.PUBLISH:
                exchange.check_publisher(channel)
        except EventError as error:
            self._dispatch.raised(error, event.name, event.cid)
            return
        if self._namespace.middleware.active(stage):
            is_empty = value is msgspec.UNSET
            action = Action(stage, self._socket, channel=channel, data=None if is_empty else value)
            asking = self._operate_if_allowed(event, action, begin, self._backpressure.size, is_empty=is_empty)
            self._ask(asking, f"middleware of the stage {stage!r}")
        else:
            begin(channel, value)

    async def _operate_if_allowed(
        self, event: wire.Event, action: Action, begin: Begin, size: int, *, is_empty: bool
    ) -> None:
        channel = action.channel
        try:
            await self._namespace.middleware.run(action)
        except Exception as error:
            self._dispatch.raised(error, event.name, event.cid)
        else:
            if self._socket.is_in:
                self._backpressure.size = size  # others may have come meanwhile
                begin(channel, msgspec.UNSET if is_empty and action.passed_on is None else action.passed_on)

    def _begin(self, event: wire.Event, start: Start, channel: str, value: Any) -> None:
        try:
            pending = start(channel, value)
        except NotSerializableError as error:  # an integer beyond 64 bits, say
            self._fail(event, "NotSerializableError", str(error))
            return
        except EventError as error:
            self._dispatch.raised(error, event.name, event.cid)
            return

        size = self._operation_begins()

        def finish(done: asyncio.Future[bytes]) -> None:
            self._operation_ends(size)
            if done.cancelled():
                self._fail(event, "InternalServerError", "the operation was cancelled")
            elif (error := done.exception()) is not None:
                self._dispatch.raised(error, event.name, event.cid)  # type: ignore[arg-type]  # a LinkError
            elif event.name == wire.SUBSCRIBE and channel not in self._socket.channels:
                self._fail(event, "BrokerError", "the subscription has ended meanwhile")
            else:
                self._done(event)

        pending.add_done_callback(finish)

    def _operation_begins(self) -> int:
        self._operations += 1
        if self._operations == MAX_OPERATIONS:
            self._queue.hold(self)
        return self._backpressure.begin()

    def _operation_ends(self, size: int) -> None:
        self._backpressure.end(size)
        self._operations -= 1
        if self._operations == MAX_OPERATIONS - 1:
            self._queue.release(self)

    def _follow(self, event: wire.Event, since: Any, channel: str, _data: Any) -> None:
        """Subscribe a client that is to get offsets."""
        try:
            if since is not None and not isinstance(since, str):
                raise EventError("since is an offset that came with a message, or null", name="InvalidOffset")
            following = self._namespace.exchange.follow(self._socket, channel, since, partial(self._done, event))
        except EventError as error:
            self._dispatch.raised(error, event.name, event.cid)
            return

        size = self._operation_begins()

        async def follow() -> None:
            try:
                await following
            except (EventError, LinkError) as error:
                self._dispatch.raised(error, event.name, event.cid)
            finally:
                self._operation_ends(size)

        self._namespace.run(follow, (), "a subscription with offsets")

    def _subscribe(self, channel: str, _data: Any) -> asyncio.Future[bytes]:
        return self._namespace.exchange.add(self._socket, channel)

    def _publish(self, channel: str, data: Any) -> asyncio.Future[bytes]:
        return self._namespace.exchange.publish_for_client(channel, data)

    def _unsubscribe(self, event: wire.Event) -> None:
        if isinstance(event.data, str) and self._namespace.exchange.discard(self._socket, event.data):
            self._done(event)
        else:
            self._fail(event, "BrokerError", "the socket is not subscribed to that channel")

    # Authentication.

    def _authenticate(self, event: wire.Event) -> None:
        try:
            claims = self._tokens.verify(None if event.data is msgspec.UNSET else event.data)
        except AuthTokenError as error:
            self._not_authenticated(event, error)
            return
        if self._namespace.middleware.active("authenticate"):
            self._ask(self._authenticate_if_allowed(event, claims), "middleware of the stage 'authenticate'")
        else:
            self._authenticated(event, claims)

    async def _authenticate_if_allowed(self, event: wire.Event, claims: dict[str, Any]) -> None:
        try:
            allowed = await authentication.ask(self._namespace, self._socket, claims)
        except AuthTokenError as error:
            self._not_authenticated(event, error)
        else:
            self._authenticated(event, allowed)

    def _authenticated(self, event: wire.Event, claims: dict[str, Any]) -> None:
        if self._socket.is_in:
            self._socket.token_accepted(claims)
            self._answer(wire.encode_response(event.cid, wire.AuthReply(is_authenticated=True)))

    def _not_authenticated(self, event: wire.Event, error: AuthTokenError) -> None:
        """A bad token fails the call, and the client throws it away; another may be good later."""
        if error.is_bad_token:
            self._socket.deauthenticate()
            text = encode_auth_error(error, lambda told: wire.encode_error(event.cid, told))
        else:
            self._socket.token_removed()
            text = encode_auth_error(error, lambda told: wire.encode_response(event.cid, wire.AuthReply(False, told)))
        self._answer(text)

    # Answers.

    def _ask(self, question: Coroutine[Any, Any, None], what: str) -> None:
        self._queue.hold(question)
        self._namespace.run(self._hold_until, (question,), what)

    async def _hold_until(self, question: Coroutine[Any, Any, None]) -> None:
        try:
            await question
        finally:
            self._queue.release(question)

    def _done(self, event: wire.Event, data: Any = msgspec.UNSET) -> None:
        if event.cid is not None:
            self._answer(wire.encode_response(event.cid, data))

    def _fail(self, event: wire.Event, name: str, message: str) -> None:
        if event.cid is not None:
            self._answer(wire.encode_error(event.cid, wire.ErrorData(name, message)))
