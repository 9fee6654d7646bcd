"""What a socket needs of its client's message protocol: all that the api knows of one."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from socketcluster_worker.api.channels.channel_message import ChannelMessage
from socketcluster_worker.api.sockets.emission import Emission
from socketcluster_worker.connection import SlowConsumer


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

    def close(self, code: int, reason: str) -> None:
        """End the connection."""

    # Channels; where the protocol has none, nothing happens.

    def deliver(self, message: ChannelMessage, policy: SlowConsumer | None) -> None:
        """Send a message of a channel; the policy says what becomes of it if the client reads too slowly."""

    def kick_out(self, channel: str, message: str) -> None:
        """Tell the client that its subscription to a channel was ended, and why."""

    # Auth tokens; a socket whose protocol has none asks for nothing of this.

    def set_token(self, token: str) -> tuple[int, asyncio.Future[Any]]:
        """Give the client a token to keep; return what ``call`` does: its answer confirms that it has the token."""

    def remove_token(self) -> None:
        """Have the client throw its token away."""
