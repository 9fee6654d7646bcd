"""What the message protocols of one worker share."""

from __future__ import annotations

from dataclasses import dataclass

from socketcluster_worker.api.sockets.ws_server import WSServer
from socketcluster_worker.ids import IdGenerator
from socketcluster_worker.tokens import Tokens


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds; see the options of the same names."""

    heartbeat_interval: float
    heartbeat_timeout: float
    handshake_timeout: float
    ack_timeout: float

    def handshake_limit(self, transport_name: str) -> float:
        """Return how long a new connection may take to its message protocol's handshake.

        By polling the answer that opens it has yet to go its way, and the next request to come by a TCP connection of
        its own: that may take as long again.
        """
        return self.handshake_timeout * (2 if transport_name == "polling" else 1)


@dataclass(frozen=True, slots=True)
class SocketClusterOptions:
    """See the options of the same names."""

    strict_handshake: bool
    batch_interval: float


@dataclass(frozen=True, slots=True)
class Context:
    """What a new connection's protocol needs."""

    server: WSServer
    ids: IdGenerator
    timing: Timing
    socketcluster: SocketClusterOptions
    tokens: Tokens
    max_message_bytes: int
    """The largest event, its attachments included."""
