"""From a connection to a socket, whatever the protocol: the middleware's judgement, the refusal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from socketcluster_worker.api.sockets.action import Action
from socketcluster_worker.api.sockets.namespace import Namespace
from socketcluster_worker.api.sockets.socket import Socket
from socketcluster_worker.errors import AuthTokenError, EventError
from socketcluster_worker.protocols import authentication

JUDGEMENT = "middleware of the stage 'handshake'"


@dataclass(frozen=True, slots=True)
class Credentials:
    """The auth token that a client brings, where its protocol has them."""

    claims: dict[str, Any] | None = None
    """What it says, if it is accepted."""
    error: AuthTokenError | None = None
    """Why it is not."""


class Judgement:
    """Whether a client is let into a namespace, as the middleware decides.

    Args:
        namespace: whose middleware is asked.
        socket: what the client is to become.
        let_in: called if it is let in and has not gone meanwhile, or its end waits for what it sent before.
        refuse: called with why it is refused. What a middleware raises that is no ``EventError`` is reported, and
            told as an ``InternalServerError``.

    Attributes:
        pending: is the middleware being asked?
    """

    __slots__ = ("_let_in", "_namespace", "_refuse", "_socket", "pending")

    def __init__(
        self,
        namespace: Namespace,
        socket: Socket,
        let_in: Callable[[Credentials], None],
        refuse: Callable[[EventError], None],
    ) -> None:
        self._namespace = namespace
        self._socket = socket
        self._let_in = let_in
        self._refuse = refuse
        self.pending = False

    def begin(
        self, credentials: Credentials | None = None, *, before: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Ask; where there is nobody to ask, the client is let in at once.

        Args:
            credentials: what the client brings; put to the stage ``authenticate`` once ``handshake`` lets it in.
            before: what is done first, such as to find out who the client is.
        """
        credentials = credentials or Credentials()
        middleware = self._namespace.middleware
        asks = middleware.active("handshake") or (credentials.claims is not None and middleware.active("authenticate"))
        if asks or before is not None:
            self.pending = True
            self._namespace.run_for(self._socket, self._ask, (credentials, before), JUDGEMENT)
        else:
            self._pass(credentials)

    async def _ask(self, credentials: Credentials, before: Callable[[], Awaitable[None]] | None) -> None:
        if before is not None:
            await before()
        try:
            await self._namespace.middleware.run(Action("handshake", self._socket, data=credentials.claims))
            refusal = None
        except EventError as error:
            refusal = error
        except Exception as error:
            self._namespace.handler_failed(error, JUDGEMENT)
            refusal = EventError("the middleware failed", name="InternalServerError")
        if refusal is not None:
            self.pending = False
            self._refuse(refusal)
            refusal = None  # its traceback holds this frame
            return
        if credentials.claims is not None:
            try:
                credentials = Credentials(await authentication.ask(self._namespace, self._socket, credentials.claims))
            except AuthTokenError as error:
                credentials = Credentials(error=error)
        self.pending = False
        self._pass(credentials)

    def _pass(self, credentials: Credentials) -> None:
        if self._socket.connected or self._socket.end_now is not None:
            self._let_in(credentials)
