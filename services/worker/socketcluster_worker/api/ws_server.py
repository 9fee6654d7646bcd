"""``worker.ws_server``: the connected clients."""

from __future__ import annotations

from collections.abc import Callable, ValuesView
from typing import Any

from socketcluster_worker.api.events import Emitter
from socketcluster_worker.api.exchange import Exchange
from socketcluster_worker.api.session import Sessions
from socketcluster_worker.api.socket import Socket
from socketcluster_worker.tasks import Tasks


class WSServer(Emitter):
    """The connected clients of this worker, and through the store those of the whole cluster.

    Its events:

    - ``connection(socket)``: a client has connected and finished its handshake;
    - ``disconnect(socket, code, reason)``: it is gone;
    - ``session_destroy(session_id)``: a session has ended, ``session_timeout`` after its last socket anywhere;
    - ``error(error, where)``: a handler raised; it has been logged.

    Attributes:
        exchange: the channels.
        sessions: ``get(id)``: any session.
    """

    EVENTS = frozenset({"connection", "disconnect", "session_destroy", "error"})

    def __init__(self, sessions: Sessions, exchange: Exchange, tasks: Tasks) -> None:
        super().__init__()
        self.sessions = sessions
        self.exchange = exchange
        self._tasks = tasks
        self._sockets: dict[str, Socket] = {}

    @property
    def sockets(self) -> ValuesView[Socket]:
        """The clients that are connected to this worker."""
        return self._sockets.values()

    def connected(self, socket: Socket) -> None:
        """Note a new client; for the protocols."""
        self._sockets[socket.id] = socket
        self.sessions.add(socket)
        self.run_all("connection", (socket,))

    def disconnected(self, socket: Socket, code: int, reason: str) -> None:
        """Note that a client is gone; for the protocols."""
        if self._sockets.pop(socket.id, None) is None:
            return
        self.exchange.discard_all(socket)
        self.sessions.discard(socket)
        for handler in socket.handlers("disconnect"):
            self._tasks.run(handler, ((code, reason),), "a handler of a socket's 'disconnect'")
        self.run_all("disconnect", (socket, code, reason))

    def session_destroyed(self, session_id: str) -> None:
        """Tell that a session has ended; for the store's link."""
        self.run_all("session_destroy", (session_id,))

    def run_all(self, event: str, args: tuple[Any, ...]) -> None:
        """Call every handler of one of the server's events."""
        for handler in self.handlers(event):
            self._tasks.run(handler, (args,), f"a handler of {event!r}")

    def run(self, function: Callable[..., Any], args: tuple[Any, ...], what: str) -> None:
        """Call a plain or async function in the background; for the protocols."""
        self._tasks.run(function, args, what)

    def handler_failed(self, error: BaseException, where: str) -> None:
        """Report what a handler raised; for the protocols."""
        self._tasks.report(error, where)
