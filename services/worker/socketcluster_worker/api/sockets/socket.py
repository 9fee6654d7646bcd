"""The sockets that a controller talks to."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, overload

from socketcluster_wire.close_codes import CloseCode
from socketcluster_worker.api.channels.channel_message import ChannelMessage
from socketcluster_worker.api.sockets.broadcast import Broadcast
from socketcluster_worker.api.sockets.emission import Emission, Forms
from socketcluster_worker.api.sockets.events import Emitter, F, Serial, check_emitted
from socketcluster_worker.api.sockets.peer import Counts, Entering, Gone, Peer
from socketcluster_worker.connection import Handshake, Line, SlowConsumer
from socketcluster_worker.errors import (
    NotLetInError,
    NotSerializableError,
    SocketClosedError,
    UnsupportedError,
)
from socketcluster_worker.reserved_events import RESERVED_EVENTS
from socketcluster_worker.tokens import Tokens

if TYPE_CHECKING:
    from socketcluster_worker.api.sockets.namespace import Namespace
    from socketcluster_worker.api.sockets.session import Session


Ended = TypeVar("Ended", bound=Callable[[int, str], Any] | Callable[[int], Any] | Callable[[], Any])
"""``disconnect(code, reason)``."""
WithClaims = TypeVar("WithClaims", bound=Callable[[dict[str, Any]], Any] | Callable[[], Any])
"""``authenticate(claims)``, ``deauthenticate(claims)``."""


class Socket(Emitter):
    """One connected client: a tab of a browser, say.

    Besides the events that the client sends, a socket emits ``disconnect(code, reason)`` and, where its protocol has
    auth tokens (``has_tokens``), ``authenticate(claims)`` and ``deauthenticate(claims)``, the claims it had. Other
    clients may send events of these two names: whoever trusts claims hears ``ws_server``'s events, which no client can
    send. Handlers of ``*`` get every event that the client sends, with its name first.

    Attributes:
        id: unique in the cluster.
        session: what the socket shares with the other tabs of its browser.
        namespace: the namespace it connected to.
        handshake: the HTTP request with which it came.
        recovered: does it go on where an earlier connection ended?
    """

    EVENTS: ClassVar = {"disconnect": 2}
    # What few sockets ever have takes no memory in the others.
    recovered = False
    connected = True
    end_now: Callable[[], None] | None = None
    """Has the application told of the end at once that waits for what its client had sent before. Set by its
    protocol meanwhile."""
    is_in = False
    """Was it let in, and its end not told? Only then do events reach it. Kept by the namespace."""
    is_recoverable = False
    """Is what the client misses while it is away kept for it? Set by its protocol."""
    state_changed: Callable[[], None] | None = None
    """Who is told that what a client recovers has changed; set by its protocol."""
    recoveries = 0
    """How often the client has recovered."""
    turn = 0
    """Number of the last broadcast to it that is on its way through the store; 0: none is."""
    counted_by: Counts | None = None
    """Counts what the client's coming, going and tokens have begun and is not done yet. Set by its protocol."""
    token_expires: float | None = None
    """When the auth token stops to be good, in seconds since 1970; the protocol looks before each event."""
    entering: Entering | None = None
    """Set by its protocol while middleware judges the handshake, before the answer that the client waits for."""
    settles: Callable[[], asyncio.Future[None] | None] | None = None
    """Gives what is done once the client has taken in the handshake's answer, which says if it is authenticated;
    ``None`` once it has. Set by its protocol."""
    line: Line
    """The straight way to the client for what is framed already; there is one if there is a ``frame_kind``."""
    frame_kind: str | None = None
    """Which of the frames of one message goes there."""
    _auth_token: dict[str, Any] | None = None
    _behind: deque[tuple[int, Callable[[], None]]] | None = None  # what waits for the turn
    _early: list[tuple[str, tuple[Any, ...]]] | None = None  # emitted before it was let in
    _data: dict[str, Any] | None = None  # these three are made when they are first asked for
    _joined: set[str] | None = None
    _channels: set[str] | None = None

    def __init__(
        self,
        socket_id: str,
        session: Session,
        namespace: Namespace,
        handshake: Handshake,
        peer: Peer,
        *,
        ack_timeout: float,
        tokens: Tokens | None = None,
    ) -> None:
        super().__init__()
        self.id = socket_id
        self.session = session
        self.namespace = namespace
        self.handshake = handshake
        self._peer = peer
        self._ack_timeout = ack_timeout
        self._tokens = tokens

    @property
    def data(self) -> dict[str, Any]:
        """Whatever the application wants to keep with the socket, on this worker."""
        if self._data is None:
            self._data = {}
        return self._data

    @data.setter
    def data(self, data: dict[str, Any]) -> None:
        self._data = data

    @property
    def joined(self) -> set[str]:
        """The rooms that were joined; kept by the namespace."""
        if self._joined is None:
            self._joined = set()
        return self._joined

    @property
    def channels(self) -> set[str]:
        """The channels that the client is subscribed to; kept by the exchange."""
        if self._channels is None:
            self._channels = set()
        return self._channels

    @channels.setter
    def channels(self, channels: set[str]) -> None:
        self._channels = channels

    @property
    def protocol(self) -> str:
        """The message protocol that the client speaks: ``socketcluster``, ``socket.io`` or ``engine.io``."""
        return self._peer.protocol

    @property
    def has_tokens(self) -> bool:
        """Has the client's protocol auth tokens?"""
        return self._tokens is not None

    # From this client.

    @overload
    def on(self, event: Literal["disconnect"], *, serial: bool = ...) -> Callable[[Ended], Ended]: ...
    @overload
    def on(self, event: Literal["disconnect"], handler: Ended, *, serial: bool = ...) -> Ended: ...
    @overload
    def on(
        self, event: Literal["authenticate", "deauthenticate"], *, serial: bool = ...
    ) -> Callable[[WithClaims], WithClaims]: ...
    @overload
    def on(
        self, event: Literal["authenticate", "deauthenticate"], handler: WithClaims, *, serial: bool = ...
    ) -> WithClaims: ...
    @overload
    def on(self, event: str, *, serial: bool = False) -> Callable[[F], F]: ...
    @overload
    def on(self, event: str, handler: F, *, serial: bool = False) -> F: ...
    def on(self, event: str, handler: F | None = None, *, serial: bool = False) -> F | Callable[[F], F]:
        """Call ``handler`` whenever the client sends ``event``; without a handler, a decorator.

        Args:
            event: its name; ``*`` is every event.
            handler: plain or async; what it returns is the answer to a call.
            serial: does each call of it wait until the one before has ended? The option of that name has all events of
                a client wait for each other.

        At most 1000 handlers of one client run at a time, calls that wait for their turn among them; then its events
        wait, and soon nothing more is read from it.
        """
        if not serial:
            return super().on(event) if handler is None else super().on(event, handler)

        def decorate(function: F) -> F:
            super(Socket, self).on(event, Serial(function))
            return function

        return decorate if handler is None else decorate(handler)

    # To this client.

    def emit(self, event: str, *args: Any) -> None:
        """Send an event to the client; nothing happens if it is gone.

        What a middleware of the stage ``handshake`` emits is sent once the client is let in.

        Raises:
            NotSerializableError: an argument has no JSON form.
            ReservedEventError: the event's name is one of a protocol's own: ``connect``, ``disconnect``, ``#publish``,
                say.
        """
        if event in RESERVED_EVENTS:
            check_emitted(event)
        if not self.connected:
            return
        if not self.is_in:
            self._early = self._early or []
            self._early.append((event, args))
        elif self.is_recoverable:
            self.namespace.to(self.id).emit(event, *args)
        else:
            self._peer.emit(event, args)

    def send(self, *args: Any) -> None:
        """Send the event ``message``; to a plain Engine.IO client this is a message."""
        self.emit("message", *args)

    @property
    def volatile(self) -> Volatile:
        """Send what follows only if nothing is still waiting for the client: ``socket.volatile.emit(...)``."""
        return Volatile(self)

    async def call(self, event: str, *args: Any, timeout: float | None = None) -> Any:
        """Send an event and return the client's answer.

        Args:
            event: its name.
            args: its arguments.
            timeout: seconds to wait; ``None`` means the option ``ack_timeout``.

        Raises:
            CallTimeoutError: no answer came in time.
            RemoteError: the client answered with an error.
            SocketClosedError: the client is gone, or went before it answered.
            NotLetInError: middleware of the stage ``handshake`` calls it.
            ReservedEventError: the event's name is one of a protocol's own, or of the client's: ``error``, say, is one
                of the browser client's. ``emit`` leaves it out there, and logs that.
        """
        check_emitted(event)
        if self.connected and not self.is_in:
            raise NotLetInError("the client is not let in yet: call it in a handler of 'connection'")
        if not self.connected:
            raise SocketClosedError("the client is gone")
        return await self._peer.call(event, args, self._ack_timeout if timeout is None else timeout)

    def disconnect(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """End the connection; ``code`` says why (RFC 6455, section 7.4), 4500 to 4999 are the application's."""
        if self.connected:
            self._peer.close(code, reason)
        elif self.end_now is not None:
            self.end_now()

    # Authentication.

    @property
    def auth_token(self) -> dict[str, Any] | None:
        """The claims of the client's auth token; ``None`` if it has none, or the time of it is over."""
        return None if self._is_token_over() else self._auth_token

    async def set_auth_token(self, claims: Mapping[str, Any], *, expires_in: float | None = None) -> None:
        """Sign a token and give it to the client, which brings it along whenever it connects.

        The socket is authenticated at once; handlers of ``authenticate`` are called. In middleware of the stage
        ``handshake`` the client is given the token behind the answer, and its confirmation is not awaited.

        Args:
            claims: what the token says, readable by the client; with an ``exp`` of their own (seconds since 1970), that
                is when it expires.
            expires_in: seconds until it expires; ``None`` means the option ``auth_default_expiry``.

        Raises:
            UnsupportedError: the client's protocol has no auth tokens, or there is no key to sign with.
            NotSerializableError: the claims have no JSON form.
            SocketClosedError: the client is gone.
            CallTimeoutError, RemoteError: the client did not confirm that it has the token.
        """
        if self._tokens is None:
            raise UnsupportedError(f"a client that speaks {self.protocol} keeps no auth token")
        if not self.connected:
            raise SocketClosedError("the client is gone")
        token, signed = self._tokens.sign(claims, expires_in)
        if self.entering is not None:
            self.entering.decided, self.entering.token = True, token
            self.token_accepted(signed, tell=False)
            return
        self.token_accepted(signed)
        if (settled := self.settle()) is not None:
            await asyncio.shield(settled)
        if not self.connected:
            raise SocketClosedError("the client is gone")
        await self._peer.set_token(token, self._ack_timeout)

    def deauthenticate(self) -> None:
        """Make the client throw its auth token away; handlers of ``deauthenticate`` are called if it had one.

        Where the protocol has no auth tokens, nothing happens.
        """
        if self._tokens is None:
            return
        if self.entering is not None:
            self.entering.decided, self.entering.token = True, None
            self._auth_token = self.token_expires = None
            return
        self.token_removed()
        if (settled := self.settle()) is not None:
            settled.add_done_callback(lambda _: self._tell_removed())
        else:
            self._tell_removed()

    def _tell_removed(self) -> None:
        if self.connected:
            self._peer.remove_token()

    def kick_out(self, channels: str | Iterable[str] | None = None, message: str = "") -> bool:
        """End the client's subscriptions to one channel or several, ``None``: to all, and tell it why.

        Returns:
            Whether there was any.
        """
        names = sorted(self.channels) if channels is None else [channels] if isinstance(channels, str) else channels
        kicked = [channel for channel in names if self.namespace.exchange.discard(self, channel)]
        if self.connected:
            for channel in kicked:
                self._peer.kick_out(channel, message)
        return bool(kicked)

    # To others.

    def to(self, *rooms: str | Iterable[str]) -> Broadcast:
        """Choose the members of rooms, this socket left out."""
        return self.broadcast.to(*rooms)

    @property
    def broadcast(self) -> Broadcast:
        """Choose everybody in the namespace but this socket."""
        return Broadcast(self.namespace).except_(self.id)

    # Rooms.

    @property
    def rooms(self) -> frozenset[str]:
        """The rooms that the socket is in; its own id is always one."""
        return frozenset((self.id, *(self._joined or ())))

    def join(self, *rooms: str) -> None:
        """Become a member of rooms."""
        if self.connected:
            for room in rooms:
                self.joined.add(room)
                self.namespace.join(self, room)  # or once it is let in
            if self.state_changed is not None:
                self.state_changed()

    def leave(self, room: str) -> None:
        """Be a member of a room no longer."""
        if self._joined is not None and room in self._joined:
            self._joined.discard(room)
            self.namespace.leave(self, room)
            if self.state_changed is not None:
                self.state_changed()

    # For the rest of the worker.

    def let_in(self) -> None:
        """Become a member of what was joined before, and send what was emitted; for the namespace."""
        self.is_in = True
        for room in self._joined or ():
            self.namespace.join(self, room)
        early, self._early = self._early, None
        for event, args in early or ():
            try:
                self.emit(event, *args)
            except NotSerializableError as error:
                self.namespace.handler_failed(error, f"an emit of {event!r} in middleware of the stage 'handshake'")

    def leave_all(self) -> None:
        """Be a member of no room, and subscribed to no channel; for the namespace."""
        for room in self._joined or ():
            self.namespace.leave(self, room)
        if self._channels:
            self.namespace.exchange.discard_all(self)

    def let_go(self) -> None:
        """Hold nothing any more of what served the client, which is freed then; for its protocol, at the very end."""
        self._peer = Gone(self._peer.protocol)
        self.settles = self.state_changed = self.counted_by = None
        if self.frame_kind is not None:
            self.frame_kind = None
            del self.line
        self.by_event.clear()  # an application's handlers hold the socket, mostly

    def begun(self, doing: asyncio.Future[Any]) -> None:
        """Have something counted that was begun for the client, until it is done; for the namespace and the session."""
        if self.counted_by is not None:
            self.counted_by.count(doing)

    def settle(self) -> asyncio.Future[None] | None:
        """Return what is done once the client has taken in the handshake's answer; ``None`` once it has."""
        return None if self.settles is None else self.settles()

    def in_turn(self, send: Callable[[], None]) -> None:
        """Call ``send`` once the broadcasts to the client are delivered that were made before: at once, mostly."""
        if self.turn:
            self._behind = self._behind or deque()
            self._behind.append((self.turn, send))
        else:
            send()

    def take_turn(self, heard: int) -> None:
        """Send what has waited for broadcasts up to a number; for the namespace."""
        while self._behind and self._behind[0][0] <= heard:
            try:
                self._behind.popleft()[1]()
            except Exception as error:  # what waits behind it is sent
                self.namespace.handler_failed(error, "sending what waited for a broadcast")
        if self.turn <= heard:
            self.turn = 0

    @property
    def writable(self) -> bool:
        """Is nothing waiting to be sent to the client?"""
        return self.connected and self._peer.writable

    def emit_shared(self, emission: Emission, *, volatile: bool = False) -> None:
        """Send an event that goes to other sockets too."""
        if self.connected and (not volatile or self._peer.writable):
            self._peer.emit_shared(emission)

    def sent_straight(self, forms: Forms, kind: str, shared: tuple[Line, bytes] | None) -> bool:
        """Note the straight way to the client, and what others of its kind get there; return whether it took it.

        For the protocols.
        """
        if shared is None:
            return False
        self.line, frame = shared
        self.frame_kind, forms.frames[kind] = kind, frame
        return self.line.send_frame(frame)

    def deliver(self, message: ChannelMessage, policy: SlowConsumer | None) -> None:
        """Send a message of a channel that the client is subscribed to."""
        if self.connected:
            self._peer.deliver(message, policy)

    def token_accepted(self, claims: dict[str, Any], *, tell: bool = True) -> None:
        """Note an auth token's claims; without ``tell`` the handlers are called later, by ``tell_authenticated``."""
        self._auth_token = claims
        expires = claims.get("exp")
        self.token_expires = expires if isinstance(expires, int | float) else None
        if tell:
            self.tell_authenticated()

    def tell_authenticated(self) -> None:
        """Call the handlers of ``authenticate``."""
        if self._auth_token is not None and self.is_in:
            self._run_all("authenticate", self._auth_token)

    def token_removed(self) -> None:
        """Note that the client has no auth token."""
        old, self._auth_token, self.token_expires = self._auth_token, None, None
        if old is not None:
            self._run_all("deauthenticate", old)

    def check_token(self) -> None:
        """Deauthenticate the client if the time of its token is over."""
        if self._is_token_over():
            self.deauthenticate()

    def _is_token_over(self) -> bool:
        return self.token_expires is not None and self._tokens is not None and self._tokens.now() >= self.token_expires

    def _run_all(self, event: str, claims: dict[str, Any]) -> None:
        for handler in self.handlers(event):
            self.namespace.run_for(self, handler.call, ((claims,),), f"a handler of a socket's {event!r}")
        self.namespace.run_all(event, (self, claims), self)

    def __repr__(self) -> str:
        return f"<Socket {self.id} {self.protocol}{'' if self.connected else ' closed'}>"


class Volatile:
    """Emits to a socket unless something is still waiting for its client."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket

    def emit(self, event: str, *args: Any) -> None:
        """Send an event, or leave it out."""
        check_emitted(event)
        if self._socket.writable:
            self._socket.emit(event, *args)
