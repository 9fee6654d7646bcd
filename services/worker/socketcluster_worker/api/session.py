"""Sessions: what belongs to one browser, over all its tabs and all workers."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from socketcluster_proto.v1 import store_pb2 as pb
from socketcluster_runtime.store_client import StoreClient
from socketcluster_worker.api.broadcast import Emission
from socketcluster_worker.api.events import check_emitted
from socketcluster_worker.api.tree import SessionTree
from socketcluster_worker.api.values import pack, unpack
from socketcluster_worker.api.watch import Watches
from socketcluster_worker.tasks import Tasks

if TYPE_CHECKING:
    from socketcluster_worker.api.socket import Socket


class Session(SessionTree):
    """One session: its data in the store, and all its sockets.

    Attributes:
        id: at least 128 random bits in URL-safe characters; a secret of its browser.
    """

    def __init__(self, session_id: str, sessions: Sessions) -> None:
        super().__init__(sessions.client, sessions.watches, session_id)
        self.id = session_id
        self._sessions = sessions
        self.has_cookie = False
        """Has its browser shown this worker the session's cookie?"""
        self._sockets: dict[Socket, None] = {}

    @property
    def sockets(self) -> tuple[Socket, ...]:
        """The session's sockets on this worker."""
        return tuple(self._sockets)

    def emit(self, event: str, *args: Any) -> None:
        """Send an event to every socket of the session, on whatever worker; who cannot be sent it, is left out.

        Raises:
            NotSerializableError: an argument has no JSON form.
            ReservedEventError: the event's name is one of a protocol's own.
        """
        check_emitted(event)
        packed = pack(args)
        self._deliver(event, args)
        self._sessions.emit_elsewhere(self.id, event, packed)

    def _deliver(self, event: str, args: tuple[Any, ...]) -> None:
        """Send an event to the session's sockets on this worker."""
        emission = Emission(event, args, overtakes=True)
        for socket in tuple(self._sockets):
            try:
                socket.emit_shared(emission)
            except Exception as error:  # the other tabs get it
                self._sessions.tasks.unreachable(socket.protocol, event, error)

    def __repr__(self) -> str:
        return f"<Session {self.id[:12]}… {len(self._sockets)} sockets here>"


class Sessions:
    """All sessions that this worker knows of."""

    def __init__(self, client: StoreClient, tasks: Tasks, watches: Watches) -> None:
        self.client = client
        self.watches = watches
        self.tasks = tasks
        self._known: weakref.WeakValueDictionary[str, Session] = weakref.WeakValueDictionary()

    @property
    def known(self) -> int:
        """How many sessions somebody here holds: their sockets, or the controller."""
        return len(self._known)

    def get(self, session_id: str) -> Session:
        """Return the session of that id; the same object as long as anybody holds it.

        An id is not looked up anywhere: of a session that does not exist the data is empty and an emit reaches nobody.
        """
        session = self._known.get(session_id)
        if session is None:
            session = self._known[session_id] = Session(session_id, self)
        return session

    def shown(self, session_id: str) -> None:
        """Note that a request brought a session's cookie."""
        session = self._known.get(session_id)
        if session is not None and not session.has_cookie:
            session.has_cookie = True
            for socket in session._sockets:
                if socket.state_changed is not None:
                    socket.state_changed()

    def add(self, socket: Socket) -> None:
        """Note that a socket of a session is here; with the first one the store learns of it."""
        session = socket.session
        if not session._sockets:
            self.tasks.watch(self.client.attach(session.id), "attaching a session")
        session._sockets[socket] = None

    def discard(self, socket: Socket) -> None:
        """Note that a socket is gone; with the last one the store learns of it."""
        session = socket.session
        if socket in session._sockets:
            del session._sockets[socket]
            if not session._sockets:
                self.tasks.watch(self.client.detach(session.id), "detaching a session")

    def emit_elsewhere(self, session_id: str, event: str, packed: bytes) -> None:
        """Send an event to the session's sockets on the other workers."""
        sent = self.client.call(pb.VERB_SESSION_EMIT, session_id=session_id, name=event, value=packed)
        self.tasks.watch(sent, f"emitting {event!r} to a session")

    def deliver(self, session_id: str, event: str, packed: bytes) -> None:
        """Send what another worker emitted to the session's sockets here."""
        session = self._known.get(session_id)
        if session is not None:
            session._deliver(event, tuple(unpack(packed)))
