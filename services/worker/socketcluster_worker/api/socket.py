"""The sockets that a controller talks to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

from socketcluster_wire.close_codes import CloseCode
from socketcluster_worker.api.broadcast import Broadcast, Emission
from socketcluster_worker.api.events import Emitter
from socketcluster_worker.connection import Handshake, Outgoing
from socketcluster_worker.errors import CallTimeoutError, SocketClosedError

if TYPE_CHECKING:
    from socketcluster_worker.api.namespace import Namespace
    from socketcluster_worker.api.session import Session


class Peer(Protocol):
    """The message protocol of one connection, as a socket uses it."""

    protocol: str

    @property
    def writable(self) -> bool:
        """Is nothing waiting to be sent to the client?"""

    def emit(self, event: str, args: tuple[Any, ...]) -> None:
        """Send an event."""

    def emit_shared(self, emission: Emission) -> None:
        """Send an event that goes to other sockets too."""

    def call(self, event: str, args: tuple[Any, ...]) -> tuple[int, asyncio.Future[Any]]:
        """Send an event that wants an answer; return the call's id and the answer to come."""

    def forget(self, call_id: int) -> None:
        """Stop waiting for the answer to a call."""

    def deliver(self, publication: Outgoing) -> None:
        """Send a message of a channel."""

    def close(self, code: int, reason: str) -> None:
        """End the connection."""


class Socket(Emitter):
    """One connected client: a tab of a browser, say.

    Besides the events that the client sends, a socket emits ``disconnect(code, reason)``; handlers of ``*`` get every
    event that the client sends, with its name first.

    Attributes:
        id: unique in the cluster.
        session: what the socket shares with the other tabs of its browser.
        namespace: the namespace it connected to.
        handshake: the HTTP request with which it came.
        recovered: does it go on where an earlier connection ended?
        data: whatever the application wants to keep with the socket, on this worker.
    """

    def __init__(
        self,
        socket_id: str,
        session: Session,
        namespace: Namespace,
        handshake: Handshake,
        peer: Peer,
        *,
        ack_timeout: float,
    ) -> None:
        super().__init__()
        self.id = socket_id
        self.session = session
        self.namespace = namespace
        self.handshake = handshake
        self.recovered = False
        self.connected = True
        self.data: dict[str, Any] = {}
        self.joined: set[str] = set()
        """The rooms that were joined; kept by the namespace."""
        self.channels: set[str] = set()
        """The channels that the client is subscribed to; kept by the exchange."""
        self._peer = peer
        self._ack_timeout = ack_timeout

    @property
    def protocol(self) -> str:
        """The message protocol that the client speaks: ``socketcluster``, ``socket.io`` or ``engine.io``."""
        return self._peer.protocol

    # To this client.

    def emit(self, event: str, *args: Any) -> None:
        """Send an event to the client; nothing happens if it is gone.

        Raises:
            NotSerializableError: an argument has no JSON form.
        """
        if self.connected:
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
        """
        if not self.connected:
            raise SocketClosedError("the client is gone")
        call_id, answer = self._peer.call(event, args)
        limit = self._ack_timeout if timeout is None else timeout
        try:
            return await asyncio.wait_for(answer, limit)
        except TimeoutError:
            raise CallTimeoutError(f"no answer to {event!r} within {limit} s") from None
        finally:
            self._peer.forget(call_id)

    def disconnect(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """End the connection; ``code`` says why (RFC 6455, section 7.4), 4500 to 4999 are the application's."""
        if self.connected:
            self._peer.close(code, reason)

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
        return frozenset(self.joined | {self.id})

    def join(self, *rooms: str) -> None:
        """Become a member of rooms."""
        if self.connected:
            for room in rooms:
                self.joined.add(room)
                self.namespace.join(self, room)

    def leave(self, room: str) -> None:
        """Be a member of a room no longer."""
        if room in self.joined:
            self.joined.discard(room)
            self.namespace.leave(self, room)

    # For the rest of the worker.

    @property
    def writable(self) -> bool:
        """Is nothing waiting to be sent to the client?"""
        return self.connected and self._peer.writable

    def emit_shared(self, emission: Emission, *, volatile: bool = False) -> None:
        """Send an event that goes to other sockets too."""
        if self.connected and (not volatile or self._peer.writable):
            self._peer.emit_shared(emission)

    def deliver(self, publication: Outgoing) -> None:
        """Send a message of a channel that the client is subscribed to."""
        if self.connected:
            self._peer.deliver(publication)

    def __repr__(self) -> str:
        return f"<Socket {self.id} {self.protocol}{'' if self.connected else ' closed'}>"


class Volatile:
    """Emits to a socket unless something is still waiting for its client."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket

    def emit(self, event: str, *args: Any) -> None:
        """Send an event, or leave it out."""
        if self._socket.writable:
            self._socket.emit(event, *args)
