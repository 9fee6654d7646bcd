"""``worker.ws_server``: the connected clients."""

from __future__ import annotations

from socketcluster_worker.api.exchange import Exchange
from socketcluster_worker.api.namespace import Namespace
from socketcluster_worker.api.outbox import Outbox
from socketcluster_worker.api.session import Sessions
from socketcluster_worker.tasks import Tasks


class WSServer(Namespace):
    """The connected clients of this worker, and through the store those of the whole cluster.

    It is the namespace ``/``: all clients but those that speak Socket.IO and ask for another. Its events:

    - ``connection(socket)``: a client has connected and finished its handshake;
    - ``disconnect(socket, code, reason)``: it is gone;
    - ``authenticate(socket, claims)``, ``deauthenticate(socket, claims)``: a client has an auth token now, or has none
      any more; no client can send these, as those whose protocol has no tokens can a socket's events of these names;
    - ``session_destroy(session_id)``: a session has ended, ``session_timeout`` after its last socket anywhere;
    - ``error(error, where)``: a handler raised; it has been logged.

    Attributes:
        exchange: the channels.
        sessions: ``get(id)``: any session.
    """

    EVENTS = Namespace.EVENTS | {"authenticate", "deauthenticate", "session_destroy", "error"}

    def __init__(
        self,
        worker_id: str,
        sessions: Sessions,
        exchange: Exchange,
        tasks: Tasks,
        *,
        recovery_window: float = 0,
        serial: bool = False,
    ) -> None:
        super().__init__("/", worker_id, sessions, exchange, tasks, recovery_window=recovery_window, serial=serial)
        self._namespaces: dict[str, Namespace] = {"/": self}
        exchange.outbox = Outbox(self.middleware, tasks, exchange.policy_of)

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
                self.tasks,
                recovery_window=self._recovery_window,
                serial=self.serial,
            )
            self._namespaces[name] = found
        return found

    def find(self, name: str) -> Namespace | None:
        """Return the namespace of that name if it was made; for the protocols."""
        return self._namespaces.get(name)

    def everybody(self) -> list[Namespace]:
        """Return all namespaces; for the worker."""
        return list(self._namespaces.values())

    def session_destroyed(self, session_id: str) -> None:
        """Tell that a session has ended; for the store's link."""
        self.run_all("session_destroy", (session_id,))
