"""The SocketCluster protocol as the browser client speaks it, over Engine.IO."""

from __future__ import annotations

from typing import Any

from socketcluster_worker.api.sockets.emission import Emission
from socketcluster_worker.connection import Connection, Handshake
from socketcluster_worker.errors import ReservedEventError
from socketcluster_worker.protocols.context import Context
from socketcluster_worker.protocols.socketcluster.encoding import encode
from socketcluster_worker.protocols.socketcluster.peer import SocketClusterPeer

OWN_EVENTS = frozenset(
    ("connect", "disconnect", "reconnecting", "error", "upgrade", "kickOut", "gap", "authTokenChange")
)
"""What the client tells its page itself: an event of such a name from the server would be an error there."""


class BrowserPeer(SocketClusterPeer):
    """One browser client, whose transport keeps the connection alive.

    An event whose name is one of the client's own is kept from it. That raises nothing: to other clients such a name
    is as good as any, and one controller serves them all.
    """

    FRAMES = "socketcluster by engine.io"

    def __init__(self, connection: Connection, context: Context, handshake: Handshake, session_id: str) -> None:
        super().__init__(connection, context, handshake, session_id, pings=False)

    def emit(self, event: str, args: tuple[Any, ...]) -> None:
        """Send an event."""
        if event in OWN_EVENTS:
            self._server.tasks.kept_back(event)
        else:
            self._connection.send_text(encode(event, args))

    def emit_shared(self, emission: Emission) -> None:
        """Send an event that goes to other sockets too."""
        if emission.event in OWN_EVENTS:
            self._server.tasks.kept_back(emission.event)
        else:
            super().emit_shared(emission)

    async def call(self, event: str, args: tuple[Any, ...], timeout: float) -> Any:
        """Send an event, and return the client's answer.

        Raises:
            ReservedEventError: the event's name is one of the client's own.
        """
        if event in OWN_EVENTS:
            raise ReservedEventError(f"{event!r} is an event of the browser client's own: choose another name")
        return await super().call(event, args, timeout)
