"""Connection state recovery: what is kept of a Socket.IO client, for it to take up where it was.

https://socket.io/docs/v4/connection-state-recovery. A client is given a private id (``pid``) and with each event its
offset; coming back with both, on whatever worker, it gets its id, rooms, data and session again, and what it missed.
The state lies in the store, in the session's own tree, and ends with the session.
"""

from __future__ import annotations

import secrets
from typing import Any

from socketcluster_runtime import logging
from socketcluster_runtime.errors import LinkError
from socketcluster_worker.api.history import Entry, Position, read_position, write_position
from socketcluster_worker.api.namespace import Namespace
from socketcluster_worker.api.session import Session
from socketcluster_worker.api.socket import Socket
from socketcluster_worker.errors import NotSerializableError

log = logging.get_logger(__name__)

KEY = "\0recovery"
"""The key of a session's tree under which its clients' states lie."""
SEPARATOR = "~"
"""Stands between the session's id and the token in a ``pid``; neither contains it."""


class Ticket:
    """What a client recovers with.

    Args:
        session: where the state is kept.
        token: names it; a secret of the client.
    """

    def __init__(self, session: Session, token: str) -> None:
        self.session = session
        self._token = token
        self._start: Position | None = None

    @classmethod
    def new(cls, session: Session) -> Ticket:
        """Make the ticket of a new client."""
        return cls(session, secrets.token_urlsafe(18))

    @classmethod
    def read(cls, pid: object, namespace: Namespace) -> Ticket | None:
        """Return the ticket that a client shows, ``None`` if it shows none."""
        if not isinstance(pid, str) or len(pid) > 200:
            return None
        session_id, separator, token = pid.partition(SEPARATOR)
        return cls(namespace.sessions.get(session_id), token) if separator and token else None

    @property
    def pid(self) -> str:
        """What the client keeps to itself."""
        return self.session.id + SEPARATOR + self._token

    def begin(self, namespace: Namespace) -> None:
        """Note from where on a client that never gets anything misses what comes."""
        self._start = namespace.history.latest if namespace.history is not None else None

    async def save(self, socket: Socket) -> None:
        """Keep a socket's state as it is now."""
        state = {
            "id": socket.id,
            "namespace": socket.namespace.name,
            "rooms": list(socket.joined),
            "data": socket.data,
            "offset": write_position(self._start) if self._start is not None else None,
        }
        try:
            await self.session.set([KEY, self._token], state)
        except (LinkError, NotSerializableError) as error:
            log.warning("a client's state was not kept, so it cannot recover", error=str(error))

    async def forget(self) -> None:
        """Drop the state: the client was sent away, or went for good."""
        try:
            await self.session.remove([KEY, self._token])
        except LinkError as error:
            log.warning("a client's state was not dropped", error=str(error))

    async def load(self, namespace: Namespace) -> dict[str, Any] | None:
        """Return the state, ``None`` if there is none."""
        try:
            state = await self.session.get([KEY, self._token])
        except LinkError as error:
            log.warning("a client's state could not be read", error=str(error))
            return None
        if not isinstance(state, dict) or state.get("namespace") != namespace.name:
            return None
        self._start = read_position(state.get("offset"))
        return state

    def missed(self, namespace: Namespace, offset: object) -> list[Entry] | None:
        """Return what came after the client's last event, ``None`` if that is not known any more."""
        position = read_position(offset) or self._start
        if namespace.history is None or position is None:
            return None
        return namespace.history.since(position)
