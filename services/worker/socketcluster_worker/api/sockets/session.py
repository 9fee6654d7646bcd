"""Sessions: what belongs to one browser, over all its tabs and all workers."""

from __future__ import annotations

import asyncio
import secrets
import weakref
from contextvars import ContextVar
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from cachetools import FIFOCache

from socketcluster_proto.v1 import store_pb2 as pb
from socketcluster_store_client.client import StoreClient
from socketcluster_store_client.errors import SessionOverError
from socketcluster_store_client.partitioning import partition_of
from socketcluster_wire.close_codes import CloseCode
from socketcluster_worker.api.data.tree import SessionTree
from socketcluster_worker.api.data.values import TRUE, pack, unpack
from socketcluster_worker.api.data.watch import Watches
from socketcluster_worker.api.sockets.emission import Emission
from socketcluster_worker.api.sockets.events import check_emitted
from socketcluster_worker.tasks import Tasks

if TYPE_CHECKING:
    from socketcluster_worker.api.sockets.socket import Socket

RENEWALS = "\0renewal\0"
"""Begins the keys under which the store keeps who may fetch the cookie of a renewed session."""
FETCH_SECONDS = 60.0
"""For so long can a renewed session's cookie be fetched."""
MAX_TOKEN = 64
"""Characters of what it is fetched with."""
MAX_FORMER = 8
"""Ids that a session had, of which its browser may still show one when it fetches the cookie."""
MAX_OVER = 100_000
"""Ids of renewed and destroyed sessions that a worker remembers; the stores refuse the others, too."""
WORKER_ID_LENGTH = 8


class Renewals:
    """What the handling of one HTTP request has done to its session, for its response to tell.

    Another request of the session gets no new cookie: it may be another client's, who knows the old id.

    Args:
        session: the request's.
    """

    def __init__(self, session: Session) -> None:
        self._session = weakref.ref(session)  # what the request starts may live longer, and has this all the time
        self.session_id = session.id
        """The id that the request brought, or gave the session: with another one it is not the request's any more."""
        self.changed = False
        """Was the session renewed or destroyed?"""
        self.told = False
        """Has the response begun? Then it can tell nothing more."""

    def concern(self, session: Session) -> bool:
        """Can the response tell of what becomes of a session?"""
        own = self._session()
        return not self.told and own is not None and session.id == own.id


renewals: ContextVar[Renewals | None] = ContextVar("renewals", default=None)
"""Those of the HTTP request that is being handled, if one is."""


class Session(SessionTree):
    """One session: its data in the store, and all its sockets.

    Attributes:
        id: at least 128 random bits in URL-safe characters; a secret of its browser.
    """

    def __init__(self, session_id: str, sessions: Sessions) -> None:
        super().__init__(sessions.client, sessions.watches, session_id)
        self.id = session_id
        self._sessions = sessions
        self.is_over = False
        """Was it destroyed?"""
        self.renewing = 0
        """How many renewals wait for the store here?"""
        self.has_cookie = False
        """Has its browser shown this worker the session's cookie?"""
        self._former_ids: tuple[str, ...] = ()
        self._same: weakref.WeakSet[Session] | None = None  # other objects that this one took the place of
        self._successor: Session | None = None  # what took the place of this one, and lives as long
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
        self._sessions.emit_elsewhere(self, event, packed)

    async def renew(self) -> str | None:
        """Give the session another id; do so whenever its rights change: at a login, say.

        Its data and sockets stay. The old id is worthless at once, on every worker: whoever has it, because he planted
        or read it before, gets a session without anything. Watches of the session's data end.

        Returns:
            While a request of the session is handled, before its response begins, ``None``: that has the new cookie.
            Otherwise a token, for the client that has logged in and for nobody else: its page posts it to
            ``/socketcluster/session``, once, within 60 s, and gets the cookie. Without that the browser has a new
            session when it comes back.

        Raises:
            SessionOverError: it was destroyed, or renewed elsewhere while the HTTP request was handled: that may be
                another client's, who knows the id that it brought. StoreUnavailableError: no store answered in time;
                it may be renewed.

        Complexity: the size of the session's data, in one step of the store.
        """
        request = renewals.get()
        if request is not None and not request.concern(self):
            request = None
        while True:
            former = self.id
            if request is not None and former != request.session_id:
                raise SessionOverError("the session was renewed while the request was handled", operation="renew")
            renewed_id = _another_id(former)
            self.renewing += 1
            try:
                await self._sessions.client.call(pb.VERB_SESSION_RENEW, session_id=former, name=renewed_id)
            except SessionOverError:
                if self.id == former:
                    self._sessions.ended(former)
                    raise
            else:
                break
            finally:
                self.renewing -= 1
        self._sessions.client.session_renewed(former, renewed_id)
        if request is None or request.told:
            return await self._sessions.offer([*self._former_ids, former], renewed_id)
        request.session_id = renewed_id
        request.changed = True
        return None

    async def destroy(self) -> None:
        """End the session at once, as at a logout: its data are gone, and its sockets on every worker are closed.

        They are closed with code 4101; every worker gets ``session_destroy``. The response of the HTTP request that is
        being handled has the browser forget the cookie, which is worthless everywhere. Nothing can be put into the
        session any more (``SessionOverError``).

        Raises:
            StoreUnavailableError: no store answered in time; it may be destroyed.
        """
        while not self.is_over:
            session_id = self.id
            try:
                await self._sessions.client.call(pb.VERB_SESSION_END, session_id=session_id)
            except SessionOverError:
                if self.id != session_id:
                    continue
            self._sessions.ended(self.id)
            self.is_over = True
        request = renewals.get()
        if request is not None and request.concern(self):
            request.changed = True

    async def _ask(self, verb: pb.Verb.ValueType, **arguments: Any) -> bytes:
        """Send an operation; a session whose end was not heard of here has ended then, and its cookie is worthless."""
        try:
            return await super()._ask(verb, **arguments)
        except SessionOverError:
            self._sessions.ended(self.id)
            raise

    def _deliver(self, event: str, args: tuple[Any, ...]) -> None:
        """Send an event to the session's sockets on this worker."""
        emission = Emission(event, args, overtakes=True)
        for socket in tuple(self._sockets):
            try:
                socket.emit_shared(emission)
            except Exception as error:  # the other tabs get it
                self._sessions.tasks.unreachable(socket.protocol, event, error)

    def _called(self, session_id: str) -> None:
        """Have another id."""
        self._former_ids = (*self._former_ids, self.id)[-MAX_FORMER:]
        self.id = self._session_id = session_id
        for each in self._same or ():
            each._called(session_id)

    def _give_way(self, successor: Session) -> None:
        """Be another object's session from now on, for whoever holds this one."""
        successor._sockets.update(self._sockets)
        successor.has_cookie = successor.has_cookie or self.has_cookie
        if successor._same is None:
            successor._same = weakref.WeakSet()
        successor._same.add(self)
        self._sockets = successor._sockets
        self._successor = successor

    def _over(self) -> None:
        """Note that it was destroyed."""
        self.is_over = True
        for each in self._same or ():
            each._over()

    def __repr__(self) -> str:
        return f"<Session {self.id[:12]}… {len(self._sockets)} sockets here>"


class Sessions:
    """All sessions that this worker knows of."""

    def __init__(self, client: StoreClient, tasks: Tasks, watches: Watches) -> None:
        self.client = client
        self.watches = watches
        self.tasks = tasks
        self._over: FIFOCache[str, None] = FIFOCache(MAX_OVER)
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

    def is_over(self, session_id: str) -> bool:
        """Is it known here that a session of that id was renewed or destroyed?"""
        return session_id in self._over

    def renewed(self, session_id: str, renewed_id: str) -> bool:
        """Give a session the id that it has now; return false if that was done already."""
        is_news = self._note_over(session_id)
        session = self._known.pop(session_id, None)
        if session is None:
            return is_news
        session._called(renewed_id)
        current = self._known.setdefault(renewed_id, session)
        if current is not session:  # a request with the new cookie was faster than the news
            session._give_way(current)
        for socket in tuple(current._sockets):
            socket.session = current
            if socket.state_changed is not None:
                socket.state_changed()
        return is_news

    def ended(self, session_id: str) -> None:
        """End a session that was destroyed, or renewed unheard: its sockets are closed."""
        self._note_over(session_id)
        session = self._known.get(session_id)
        if session is not None:
            session._over()
            for socket in session.sockets:
                socket.disconnect(CloseCode.SESSION_OVER, "the session is over")

    def _note_over(self, session_id: str) -> bool:
        is_news = session_id not in self._over
        self._over[session_id] = None
        return is_news

    async def offer(self, former_ids: list[str], renewed_id: str) -> str:
        """Return the token for which ``fetch`` gives a renewed session."""
        token = secrets.token_urlsafe(24)
        key = _key(token)
        steps = [
            (pb.VERB_SET, (key,), pack((former_ids, renewed_id))),
            (pb.VERB_EXPIRE, (key,), pack(FETCH_SECONDS)),
        ]
        await self.client.call(pb.VERB_TRANSACTION, value=pack(steps), partition=partition_of(key))
        return token

    async def fetch(self, token: str, shown: str | None) -> str | None:
        """Return the id of the session for which a token is, once; ``None`` if there is none.

        Args:
            token: what ``renew`` gave.
            shown: the session whose cookie the browser shows: an id that the renewed one had before, or none.
        """
        if not 0 < len(token) <= MAX_TOKEN:
            return None
        kept = unpack(await self.client.call(pb.VERB_REMOVE, keys=(_key(token),), value=TRUE))
        if kept is None or not (shown is None or shown in kept[0]):
            return None
        return str(kept[1])

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
        session = socket.session = self.get(socket.session.id)
        if not session._sockets:
            attached = self.client.attach(session.id)
            attached.add_done_callback(partial(self._attached, session, session.id))
            socket.begun(attached)
        session._sockets[socket] = None

    def _attached(self, session: Session, session_id: str, attached: asyncio.Future[bytes]) -> None:
        if not attached.cancelled() and isinstance(attached.exception(), SessionOverError):
            if not session.renewing:  # else the answer to that says what it is
                self.ended(session_id)  # unless it was renewed since, and has another id
        else:
            self.tasks.watch(attached, "attaching a session", is_told_again=True)

    def discard(self, socket: Socket) -> None:
        """Note that a socket is gone; with the last one the store learns of it."""
        session = socket.session
        if socket in session._sockets:
            del session._sockets[socket]
            if not session._sockets:
                detached = self.client.detach(session.id)
                self.tasks.watch(detached, "detaching a session", is_told_again=True)
                socket.begun(detached)

    def emit_elsewhere(self, session: Session, event: str, packed: bytes) -> None:
        """Send an event to the session's sockets on the other workers."""
        session_id = session.id

        def done(sent: asyncio.Future[bytes]) -> None:
            if not sent.cancelled() and isinstance(sent.exception(), SessionOverError):
                if session.id != session_id:
                    self.emit_elsewhere(session, event, packed)
            else:
                self.tasks.watch(sent, f"emitting {event!r} to a session")

        self.client.call(pb.VERB_SESSION_EMIT, session_id=session_id, name=event, value=packed).add_done_callback(done)

    def deliver(self, session_id: str, event: str, packed: bytes) -> None:
        """Send what another worker emitted to the session's sockets here."""
        session = self._known.get(session_id)
        if session is not None:
            session._deliver(event, tuple(unpack(packed)))


def _another_id(session_id: str) -> str:
    """Return a new id, of the same worker and the same partition: so a store can move all data in one step."""
    partition = partition_of(session_id)
    while True:
        renewed_id = session_id[:WORKER_ID_LENGTH] + secrets.token_urlsafe(18)
        if partition_of(renewed_id) == partition:
            return renewed_id


def _key(token: str) -> str:
    return RENEWALS + blake2b(token.encode(), digest_size=16).hexdigest()
