"""The sockets that a controller talks to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from socketcluster_wire.close_codes import CloseCode
from socketcluster_worker.api.events import Emitter
from socketcluster_worker.connection import Handshake, Outgoing
from socketcluster_worker.errors import CallTimeoutError, SocketClosedError

if TYPE_CHECKING:
    from socketcluster_worker.api.session import Session


class Peer(Protocol):
    """The message protocol of one connection, as a socket uses it."""

    protocol: str

    def emit(self, event: str, args: tuple[Any, ...]) -> None:
        """Send an event."""

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

    Besides the events that the client sends, a socket emits ``disconnect(code, reason)``.

    Attributes:
        id: unique in the cluster.
        session: what the socket shares with the other tabs of its browser.
        handshake: the HTTP request with which it came.
        recovered: does it go on where an earlier connection ended?
    """

    def __init__(
        self, socket_id: str, session: Session, handshake: Handshake, peer: Peer, *, ack_timeout: float
    ) -> None:
        super().__init__()
        self.id = socket_id
        self.session = session
        self.handshake = handshake
        self.recovered = False
        self.connected = True
        self._peer = peer
        self._ack_timeout = ack_timeout
        self.channels: set[str] = set()
        """The channels that the client is subscribed to; kept by the exchange."""

    @property
    def protocol(self) -> str:
        """The message protocol that the client speaks, such as ``"socketcluster"``."""
        return self._peer.protocol

    def emit(self, event: str, *args: Any) -> None:
        """Send an event to the client; nothing happens if it is gone.

        Raises:
            NotSerializableError: an argument has no JSON form.
        """
        if self.connected:
            self._peer.emit(event, args)

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
        """End the connection; ``code`` says why (RFC 6455, section 7.4), 4000 to 4999 are the application's."""
        if self.connected:
            self._peer.close(code, reason)

    def deliver(self, publication: Outgoing) -> None:
        """Send a message of a channel that the client is subscribed to; for the exchange."""
        if self.connected:
            self._peer.deliver(publication)

    def __repr__(self) -> str:
        return f"<Socket {self.id} {self.protocol}{'' if self.connected else ' closed'}>"
