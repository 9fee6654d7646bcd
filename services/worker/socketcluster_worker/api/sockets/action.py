"""What middleware is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from socketcluster_worker.api.sockets.socket import Socket


@dataclass(slots=True)
class Action:
    """What a client is about to do, or is about to be sent; a middleware may change it."""

    stage: str
    """One of ``middleware.STAGES``."""
    socket: Socket
    """Whose action it is; at the stage ``publish_out``, who is to get the message."""
    event: str = ""
    """The event's name, at the stage ``event``."""
    args: tuple[Any, ...] = ()
    """The event's arguments."""
    channel: str = ""
    """The channel, at the stages ``subscribe``, ``publish_in`` and ``publish_out``."""
    data: Any = None
    """What is published; at ``subscribe`` the subscription's data; at ``authenticate`` the token's claims."""

    @property
    def connected(self) -> bool:
        """Is the client still there?"""
        return self.socket.connected
