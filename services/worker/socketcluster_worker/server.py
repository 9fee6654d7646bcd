"""Takes clients in, by handover or by connection, and serves them HTTP through uvicorn's parts."""

from __future__ import annotations

import asyncio
import socket
from email.utils import formatdate
from pathlib import Path

from uvicorn.config import Config
from uvicorn.lifespan.on import LifespanOn
from uvicorn.server import ServerState

from socketcluster_runtime.addresses import split_host_port
from socketcluster_runtime.errors import AddressInUseError, ControllerError, ServiceError
from socketcluster_runtime.logs import logging
from socketcluster_runtime.sockets.accepting import Acceptor
from socketcluster_runtime.sockets.capacity import Room
from socketcluster_runtime.trusted_proxies import TrustedProxies
from socketcluster_wire.handoff import Handoff
from socketcluster_worker.api.http_server import HTTPServer
from socketcluster_worker.endpoints.router import Router
from socketcluster_worker.tasks import BEGIN_AT_ONCE
from socketcluster_worker.transport.handoff import ClientSocket
from socketcluster_worker.transport.http.mounted_websocket import MountedWebSocket
from socketcluster_worker.transport.http.origin import Origin
from socketcluster_worker.transport.http.protocol import HTTPProtocol
from socketcluster_worker.transport.http.websocket_request import find
from socketcluster_worker.transport.proxy_protocol import Proxies, ProxyProtocol
from socketcluster_worker.transport.relayed import Relayed
from socketcluster_worker.transport.turned_away import TurnedAway

log = logging.get_logger(__name__)

BACKLOG = 1024
"""Connections that the kernel keeps for a worker that is busy."""
CANCEL_TIMEOUT = 1.0
"""Seconds that a request has to end once it is cancelled; the apps are stopped after their last response."""
KEEP_ALIVE = 75
"""Seconds that an idle HTTP connection stays open: longer than common proxies reuse one."""


class ClientServer:
    """The clients' connections of one worker.

    Args:
        router: the ASGI app, and where WebSockets go.
        http_server: whose mounted apps are started and stopped with the worker (ASGI's lifespan).
        key: what balancers and other workers sign PROXY headers with.
        trusted: those in front that sign nothing.
        room: for clients.
    """

    def __init__(
        self, router: Router, http_server: HTTPServer, key: bytes, trusted: TrustedProxies, room: Room
    ) -> None:
        self._router = router
        self._http_server = http_server
        self._trusted = trusted
        self._proxies = Proxies(key, trusted.by_connection)
        self.relayed = Relayed()
        """Those whose bytes a balancer copies."""
        self._state = ServerState()
        self._lifespans: list[LifespanOn] = []
        self._socket: socket.socket | None = None
        self._room = room
        self._turned_away = TurnedAway()
        self._acceptors: list[Acceptor] = []
        self._unix_path: Path | None = None
        self._adopting: set[asyncio.Task[None]] = set()
        self._clock: asyncio.TimerHandle | None = None
        self._config = Config(
            router,
            interface="asgi3",
            http=HTTPProtocol,
            ws=MountedWebSocket,
            lifespan="off",
            proxy_headers=False,
            server_header=False,
            access_log=False,
            log_config=None,
            timeout_keep_alive=KEEP_ALIVE,
        )

    async def start(self) -> None:
        """Start the mounted apps.

        Raises:
            ControllerError: one of them refused to start.
        """
        self._config.load()
        for path, app in self._http_server.apps:
            lifespan = LifespanOn(Config(app, lifespan="auto", log_config=None))
            await lifespan.startup()
            if lifespan.should_exit:
                raise ControllerError(f"the app that the controller mounted at {path} failed to start")
            self._lifespans.append(lifespan)
            self._http_server.started(app, lifespan.state)
        self._tick()

    def bind(self, address: str) -> tuple[str, int]:
        """Take ``host:port`` (0: any free port), where nobody is let in before ``listen``; return host and port.

        Raises:
            AddressInUseError: the port is taken.
            SettingsError: that is no ``host:port``.
        """
        host, port = split_host_port(address, any_port=True)
        try:
            family, kind, protocol, _, name = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            self._socket = socket.socket(family, kind, protocol)
            if port:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what is accepted inherits both
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._socket.bind(name)
        except OSError as error:
            self.unbind()
            raise AddressInUseError(f"cannot listen on {address}: {error.strerror}") from None
        return host, self._socket.getsockname()[1]

    def unbind(self) -> None:
        """Give the port back, if nothing else has."""
        if self._socket is not None:
            self._socket.close()

    def listen(self) -> None:
        """Serve connections to the port that was bound.

        Raises:
            AddressInUseError: somebody else took the port meanwhile.
        """
        assert self._socket is not None  # noqa: S101  # bound before
        try:
            self._accept_at(self._socket)
        except OSError as error:
            raise AddressInUseError(f"cannot listen: {error.strerror}") from None

    def listen_at(self, path: Path) -> None:
        """Serve balancers on this host at a Unix socket, too: it costs both sides less than TCP.

        Raises:
            ServiceError: nothing can be made there.
        """
        try:
            self._accept_at(_unix_socket(path))
        except OSError as error:
            raise ServiceError(f"cannot listen for balancers at {path}: {error}") from None
        self._unix_path = path

    def take_over(self, client: ClientSocket, handoff: Handoff) -> None:
        """Serve a client whose socket a balancer handed over."""
        address = handoff.client or client.peer
        if address is None:
            log.debug("a client was gone before it was served")
            client.close()
            return
        origin = Origin(handoff.client, secure=handoff.tls, placed=True)
        self._adopt(client, self._protocol_for(origin, handoff.head, address))

    def end_idle(self) -> None:
        """Have HTTP connections end with the answer that they wait for, or at once: the next request goes elsewhere."""
        for connection in tuple(self._state.connections):
            connection.shutdown()

    async def close(self, timeout: float) -> None:
        """Take no more connections, let requests finish for at most ``timeout`` seconds, and stop the apps."""
        for acceptor in self._acceptors:
            acceptor.close()
        self._turned_away.close()
        if self._unix_path is not None:
            self._unix_path.unlink(missing_ok=True)
        self.end_idle()
        if self._state.tasks:
            _, late = await asyncio.wait(tuple(self._state.tasks), timeout=timeout)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=CANCEL_TIMEOUT)
        for lifespan in reversed(self._lifespans):
            await lifespan.shutdown()
        self.relayed.close()
        self._proxies.close()
        self._trusted.close()
        if self._clock is not None:
            self._clock.cancel()

    def _accept_at(self, sock: socket.socket) -> None:
        sock.listen(BACKLOG)
        acceptor = Acceptor(sock, self._accepted, self._room, refuse=self._turned_away.refuse)
        acceptor.start()
        self._acceptors.append(acceptor)

    def _accepted(self, client: socket.socket, _address: object) -> None:
        self._adopt(client, ProxyProtocol(self._make, self._proxies, self.relayed))

    def _adopt(self, client: socket.socket, protocol: asyncio.Protocol) -> None:
        loop = asyncio.get_running_loop()
        if BEGIN_AT_ONCE:
            task = asyncio.Task(_adopt(client, protocol), loop=loop, eager_start=True)  # type: ignore[call-arg]
        else:
            task = loop.create_task(_adopt(client, protocol))
        self._adopting.add(task)
        task.add_done_callback(self._adopting.discard)

    def _make(self, origin: Origin, received: bytes) -> asyncio.Protocol:
        if origin.client is None:
            return self._make_http(origin, received)
        return self._protocol_for(origin, received, origin.client)

    def _protocol_for(self, origin: Origin, received: bytes, address: tuple[str, int]) -> asyncio.Protocol:
        """Return what serves a connection: most are to become WebSockets of ours."""
        request = find(received, origin, address, self._router, self._trusted)
        return request or self._make_http(origin, received)

    def _make_http(self, origin: Origin, received: bytes) -> HTTPProtocol:
        return HTTPProtocol(self._config, self._state, self._router, self._trusted, origin, received)

    def _tick(self) -> None:
        """Renew the Date header."""
        self._state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
        self._clock = asyncio.get_running_loop().call_later(1.0, self._tick)


async def _adopt(client: socket.socket, protocol: asyncio.Protocol) -> None:
    try:
        await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, client)
    except OSError as error:  # it went away meanwhile
        log.debug("a client was gone before it was served", error=str(error))
        client.close()


def _unix_socket(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)  # nobody else of that name can be alive
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(path))
        path.chmod(0o600)
    except OSError:
        sock.close()
        raise
    return sock
