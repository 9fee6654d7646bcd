"""``worker.ws_server``: the connected clients."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import ClassVar, TypeAlias, TypeVar

from socketcluster_worker.api.channels.exchange import Exchange
from socketcluster_worker.api.channels.publish_out import PublishOut
from socketcluster_worker.api.handlers.client_handlers import PREFIX, Handlers
from socketcluster_worker.api.handlers.signatures import ServerEvents
from socketcluster_worker.api.sockets.namespace import Namespace
from socketcluster_worker.api.sockets.session import Sessions
from socketcluster_worker.connection import Handshake
from socketcluster_worker.mesh.mesh import Mesh
from socketcluster_worker.tasks import Tasks

Choose: TypeAlias = Callable[[Handshake, Sequence[str]], str | None]
"""Returns one of the subprotocols that a client offers, or ``None``."""
C = TypeVar("C", bound=Choose)


class WSServer(Namespace):
    """The connected clients of this worker, and through the store those of the whole cluster.

    It is the namespace ``/``: all clients but those that speak Socket.IO and ask for another. Its events:

    - ``connection(socket)``: a client has connected and finished its handshake;
    - ``disconnect(socket, code, reason)``: it is gone;
    - ``authenticate(socket, claims)``, ``deauthenticate(socket, claims)``: a client has an auth token now, or has none
      any more; no client can send these, as those whose protocol has no tokens can a socket's events of these names;
    - ``session_destroy(session_id)``: a session has ended: it was destroyed, or its last socket anywhere is gone since
      ``session_timeout``;
    - ``session_renew(session_id, renewed_id)``: a session has another id, on whatever worker it was renewed;
    - ``error(error, where)``: a handler raised; it has been logged.

    Attributes:
        exchange: the channels.
        sessions: ``get(id)``: any session.
    """

    EVENTS: ClassVar = Namespace.EVENTS | {
        "authenticate": 2,
        "deauthenticate": 2,
        "session_destroy": 1,
        "session_renew": 2,
        "error": 2,
    }
    on: ServerEvents  # these, and those of a namespace
    once: ServerEvents

    def __init__(
        self,
        worker_id: str,
        sessions: Sessions,
        exchange: Exchange,
        mesh: Mesh,
        tasks: Tasks,
        *,
        recovery_window: float = 0,
        serial: bool = False,
    ) -> None:
        super().__init__(
            "/", worker_id, sessions, exchange, mesh, tasks, recovery_window=recovery_window, serial=serial
        )
        self._namespaces: dict[str, Namespace] = {"/": self}
        self._choose_subprotocol: Choose | None = None
        exchange.filter_by(PublishOut(self.middleware, tasks, exchange.policy_of))

    def of(self, name: str) -> Namespace:
        """Return the namespace of that name, made if there is none; only namespaces that were made can be joined.

        Raises:
            ValueError: the name does not begin with a slash.
        """
        if not name.startswith("/"):
            raise ValueError(f"a namespace's name begins with a slash: {name!r}")
        found = self._namespaces.get(name)
        if found is None:
            found = Namespace(
                name,
                self._worker_id,
                self.sessions,
                self.exchange,
                self._mesh,
                self.tasks,
                recovery_window=self._recovery_window,
                serial=self.serial,
            )
            self._namespaces[name] = found
        return found

    def register(self, handlers: Handlers) -> None:
        """Add the methods ``on_<event>`` of an object to its namespace, which is made if there is none.

        Raises:
            ValueError, TypeError: as those of ``of``, ``on`` and ``handler``.
            TypeError: that is no object of a class of ``Handlers``, or no method of it is a handler.
        """
        if not isinstance(handlers, Handlers):
            raise TypeError(f"register() takes an object of a class that derives from Handlers, not {handlers!r}")
        methods = list(handlers.by_event())
        if not methods:
            raise TypeError(f"{type(handlers).__name__} has no method whose name begins with {PREFIX!r}")
        namespace = self.of(handlers.namespace)
        for event, method in methods:
            if event in namespace.EVENTS:
                namespace.add_handler(event, method)
            else:
                namespace.handler(event)(method)

    def choose_subprotocol(self, function: C) -> C:
        """Have ``function(handshake, offered)``, a plain one, choose each WebSocket's subprotocol, of those offered.

        Without it that is the first one, as a browser fails a connection for which none is chosen. ``None`` chooses
        none. If the function raises, or returns what was not offered, the WebSocket is answered with status 500. A
        decorator.

        Raises:
            TypeError: that is no plain function.
        """
        if not callable(function) or inspect.iscoroutinefunction(function):
            raise TypeError(f"who chooses is a plain function, not {function!r}")
        self._choose_subprotocol = function
        return function

    def subprotocol(self, handshake: Handshake, offered: Sequence[str]) -> str | None:
        """Return the subprotocol of a WebSocket; for the transport.

        Raises:
            Exception: whatever the application's function did, or ``ValueError``; it has been logged.
        """
        if self._choose_subprotocol is None:
            return offered[0]
        try:
            chosen = self._choose_subprotocol(handshake, tuple(offered))
            if chosen is not None and chosen not in offered:
                raise ValueError(f"{chosen!r} is none of the subprotocols that the client offers")
        except Exception as error:
            self.handler_failed(error, "choosing a subprotocol")
            raise
        return chosen

    def find(self, name: str) -> Namespace | None:
        """Return the namespace of that name if it was made; for the protocols."""
        return self._namespaces.get(name)

    def everybody(self) -> list[Namespace]:
        """Return all namespaces; for the worker."""
        return list(self._namespaces.values())

    def session_renewed(self, session_id: str, renewed_id: str) -> None:
        """Give a session the id that it has now, and tell so; for the store's link."""
        if self.sessions.renewed(session_id, renewed_id):
            self.run_all("session_renew", (session_id, renewed_id))

    def session_destroyed(self, session_id: str) -> None:
        """Tell that a session has ended; for the store's link."""
        self.run_all("session_destroy", (session_id,))
