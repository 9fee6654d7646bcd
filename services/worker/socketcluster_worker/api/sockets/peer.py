"""What a socket and the message protocol of its client need of each other."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Protocol

from socketcluster_worker.api.channels.channel_message import ChannelMessage
from socketcluster_worker.api.sockets.emission import Emission
from socketcluster_worker.connection import SlowConsumer
from socketcluster_worker.errors import SocketClosedError


class Counts(Protocol):
    """Who counts what is under way for a client."""

    def count(self, doing: asyncio.Future[Any]) -> None:
        """Count something until it is done."""


@dataclass(slots=True)
class Entering:
    """What middleware decides on a client's auth token while the handshake is judged."""

    decided: bool = False
    """Does what it did to the socket go before the token that the client brought?"""
    token: str | None = None
    """Signed, to be given to the client behind the handshake's answer."""


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

    async def call(self, event: str, args: tuple[Any, ...], timeout: float) -> Any:
        """Send an event, and return the client's answer.

        Raises:
            CallTimeoutError: none came within ``timeout`` seconds.
            RemoteError: it is an error.
            SocketClosedError: the client went before it answered.
            NotSerializableError: an argument has no form in this protocol, or the protocol has no answers.
        """

    def close(self, code: int, reason: str) -> None:
        """End the connection."""

    # Channels; where the protocol has none, nothing happens.

    def deliver(self, message: ChannelMessage, policy: SlowConsumer | None) -> None:
        """Send a message of a channel; the policy says what becomes of it if the client reads too slowly."""

    def kick_out(self, channel: str, message: str) -> None:
        """Tell the client that its subscription to a channel was ended, and why."""

    # Auth tokens; a socket whose protocol has none asks for nothing of this.

    async def set_token(self, token: str, timeout: float) -> None:
        """Give the client a token to keep, and wait until it confirms that it has it; raises what ``call`` does."""

    def remove_token(self) -> None:
        """Have the client throw its token away."""


class Gone:
    """The peer of a socket whose client is gone: it keeps nothing of the connection alive.

    Args:
        protocol: that the client spoke.
    """

    __slots__ = ("protocol",)
    writable = False

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol

    def emit(self, event: str, args: tuple[Any, ...]) -> None:
        """Do nothing."""

    def emit_shared(self, emission: Emission) -> None:
        """Do nothing."""

    async def call(self, event: str, args: tuple[Any, ...], timeout: float) -> Any:
        """Raise ``SocketClosedError``."""
        raise SocketClosedError("the client is gone")

    def close(self, code: int, reason: str) -> None:
        """Do nothing."""

    def deliver(self, message: ChannelMessage, policy: SlowConsumer | None) -> None:
        """Do nothing."""

    def kick_out(self, channel: str, message: str) -> None:
        """Do nothing."""

    async def set_token(self, token: str, timeout: float) -> None:
        """Raise ``SocketClosedError``."""
        raise SocketClosedError("the client is gone")

    def remove_token(self) -> None:
        """Do nothing."""
