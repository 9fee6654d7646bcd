"""What is to be done: the options of the command, judged, in a form that generators read."""

from __future__ import annotations

import ipaddress
from enum import StrEnum
from urllib.parse import urlsplit

import msgspec


class Protocol(StrEnum):
    """What clients speak, always over a WebSocket."""

    SOCKETIO = "socketio"
    SOCKETCLUSTER = "socketcluster"
    ENGINEIO = "engineio"
    WEBSOCKET = "websocket"


class Mode(StrEnum):
    """What clients do once they are connected."""

    ACK = "ack"
    BROADCAST = "broadcast"
    IDLE = "idle"
    STORM = "storm"


PATHS = {
    Protocol.SOCKETIO: "/socket.io/",
    Protocol.SOCKETCLUSTER: "/socketcluster/",
    Protocol.ENGINEIO: "/engine.io/",
    Protocol.WEBSOCKET: "/",
}
_SCHEMES = {"http": False, "ws": False, "https": True, "wss": True}
_QUERY = "EIO=4&transport=websocket"
PORTS_OF_AN_ADDRESS = 20_000
"""Connections from one source address to one port: Linux has some 28,000 ports for them, and others use some."""


class PlanError(Exception):
    """The options make no sense; its text says which, and what would."""


class Target(msgspec.Struct, frozen=True):
    """The one place that is connected to."""

    secure: bool
    host: str
    port: int
    path: str
    """With the query."""

    @property
    def authority(self) -> str:
        """The header Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """What a page of that server would send as Origin."""
        return f"{'https' if self.secure else 'http'}://{self.authority}"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What one run does; times in seconds, rates a second."""

    url: str
    protocol: Protocol = Protocol.SOCKETIO
    mode: Mode = Mode.ACK
    connections: int = 100
    connect_rate: float = 0.0
    """New connections a second; 0: as fast as they are taken."""
    rate: float = 0.0
    """Messages a second of all connections together; 0: each sends when it has its answer."""
    duration: float = 10.0
    timeout: float = 10.0
    """How long an answer, a delivery or a connection may take."""
    size: int = 64
    """Bytes of a message's text."""
    event: str = ""
    channel: str = "bench"
    processes: int = 1
    insecure: bool = False
    ca: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    auth: str = ""
    """JSON: what Socket.IO's CONNECT or SocketCluster's handshake carries as auth."""

    @property
    def target(self) -> Target:
        """Where it connects.

        Raises:
            PlanError: the URL names no such place.
        """
        parts = urlsplit(self.url if "://" in self.url else f"http://{self.url}")
        if parts.scheme not in _SCHEMES:
            raise PlanError(f"{self.url}: the URL begins with http://, https://, ws:// or wss://")
        try:
            port = parts.port
        except ValueError as error:
            raise PlanError(f"{self.url}: {error}") from None
        if not parts.hostname:
            raise PlanError(f"{self.url}: the URL names no host")
        secure = _SCHEMES[parts.scheme]
        path = parts.path if parts.path not in ("", "/") else PATHS[self.protocol]
        queries = [parts.query] if parts.query else []
        if self.protocol in (Protocol.SOCKETIO, Protocol.ENGINEIO):
            queries.append(_QUERY)
        query = "?" + "&".join(queries) if queries else ""
        return Target(secure, parts.hostname, port or (443 if secure else 80), path + query)

    @property
    def publishes(self) -> bool:
        """Is an acknowledged message a publication, which SocketCluster's servers answer without any handler?"""
        return self.protocol is Protocol.SOCKETCLUSTER and not self.event

    @property
    def event_name(self) -> str:
        """What clients send in the mode ``ack``, and what the names of the other events begin with."""
        return self.event or "bench"

    def share(self, index: int) -> int:
        """Return how many connections the process with this number makes."""
        return self.connections // self.processes + (index < self.connections % self.processes)

    def first(self, index: int) -> int:
        """Return the number of that process's first connection, among all."""
        return sum(self.share(before) for before in range(index))


def source_address(host: str, number: int) -> str | None:
    """Return where the connection with this number comes from; ``None``: the system chooses.

    One address has ports for some ten thousand connections to a server. Of a loopback network there are 16 million.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if not (address.version == 4 and address.is_loopback):
        return None
    block = number // PORTS_OF_AN_ADDRESS
    return None if not block else str(ipaddress.ip_address("127.1.0.0") + block)
