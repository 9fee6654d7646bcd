"""What operations do to sessions as a whole, and who is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.commands import END_SESSION, PUT_RECORD, RENEW_SESSION, Command
from socketcluster_store.data.mutations import FALSE, TRUE
from socketcluster_store.errors import InvalidError
from socketcluster_store.links import WorkerLink, pack_event
from socketcluster_store.partition.sessions import Sessions
from socketcluster_store.partition.validation import Validation
from socketcluster_store_client.messages import Operation

RENEW = store_pb2.VERB_SESSION_RENEW
CHANGES_SESSION = frozenset((RENEW, store_pb2.VERB_SESSION_END))
"""The verbs after which nothing has the session's id any more."""

_encode = msgspec.msgpack.Encoder().encode
_decode_ids = msgspec.msgpack.Decoder(list[str]).decode


class SessionChanges:
    """The renewals and ends that the engine is at: their sessions are over already, and nobody was told yet."""

    def __init__(self) -> None:
        self.ends: dict[str, asyncio.Future[None]] = {}
        """By their sessions, what is done when all is told."""

    def begin(self, session_id: str) -> None:
        """Note that the engine is to renew or end a session; a batch may try an end that was refused twice."""
        if session_id not in self.ends:  # else somebody may wait for it
            self.ends[session_id] = asyncio.get_running_loop().create_future()

    def ahead(self, operations: Iterable[Operation]) -> list[asyncio.Future[None]]:
        """Return those of the ``ends`` that operations have to wait for."""
        ends = self.ends
        return [
            ends[operation.session_id]
            for operation in operations
            if operation.session_id in ends and operation.verb != store_pb2.VERB_SESSION_DETACH
        ]

    def end(self, messages: Iterable[tuple[int, Operation]]) -> None:
        """Note that what operations change is kept and told, or has failed; each comes with its place in its batch."""
        for _place, operation in messages:
            if operation.verb in CHANGES_SESSION and (end := self.ends.pop(operation.session_id, None)) is not None:
                end.set_result(None)


def change(operation: Operation, sessions: Sessions, validation: Validation, now: float) -> list[Command]:
    """Renew or end a session; return what keeps that, all in one batch, the first one with the operation's outcome.

    Raises:
        Refusal: no session is named, or its new id cannot be one.
    """
    session_id = operation.session_id
    owner = session_id.encode()
    if not owner:
        raise InvalidError("no session is named")
    if operation.verb != RENEW:
        return [Command(END_SESSION, owner), Command(PUT_RECORD, owner, (), sessions.end(session_id, now))]
    renewed_id = operation.name
    if renewed_id in ("", session_id) or renewed_id in sessions or renewed_id in sessions.over:
        raise InvalidError("the new id of a session is empty, its own, or another one's")
    validation.session_id(renewed_id.encode(), msgspec.structs.replace(operation, session_id=renewed_id))
    records = sessions.renew(session_id, renewed_id, now)
    moving = Command(RENEW_SESSION, owner, (), renewed_id.encode())
    return [moving, *(Command(PUT_RECORD, changed.encode(), (), record) for changed, record in records)]


def hold(link: WorkerLink, operation: Operation, sessions: Sessions, now: float) -> tuple[bytes, bytes | None]:
    """Let a link hold a session or let go of it; return the outcome, and the record if it changed.

    Raises:
        InvalidError: no session is named.
    """
    session_id = operation.session_id
    if not session_id:
        raise InvalidError("no session is named")
    if operation.verb == store_pb2.VERB_SESSION_DETACH:
        return b"", sessions.detach(session_id, link, now)
    existed = sessions.existed(session_id)
    return TRUE if existed else FALSE, sessions.attach(session_id, link)


def unwritten(sessions: Sessions, at_most: int) -> tuple[list[str], list[Command]]:
    """Return the sessions of which something is unwritten, and the commands that write it."""
    commands: list[Command] = []
    records = sessions.take_unwritten(at_most)
    for session_id, record in records:
        if session_id in sessions.unended:
            commands.append(Command(END_SESSION, session_id.encode()))
        commands.append(Command(PUT_RECORD, session_id.encode(), (), record))
    return [session_id for session_id, _record in records], commands


def written(session_ids: Iterable[str], sessions: Sessions) -> list[store_pb2.Event]:
    """Return what every worker is told of sessions when what was unwritten is kept: their ends, that were refused."""
    late = [each for each in session_ids if each in sessions.unended and sessions.kept(each)]
    return [
        store_pb2.Event(session_destroyed=store_pb2.SessionDestroyed(session_id=session_id, on_purpose=True))
        for session_id in late
    ]


def changed(operation: Operation, sessions: Sessions) -> list[store_pb2.Event]:
    """Return what every worker is told after ``change``, which is kept: nothing of an end that was told already."""
    session_id = operation.session_id
    is_news = sessions.kept(session_id)
    if operation.verb == RENEW:
        return [
            store_pb2.Event(session_renewed=store_pb2.SessionRenewed(session_id=session_id, renewed_id=operation.name))
        ]
    ended = store_pb2.SessionDestroyed(session_id=session_id, on_purpose=True)
    return [store_pb2.Event(session_destroyed=ended)] if is_news else []


def ended(session_ids: Iterable[str]) -> list[store_pb2.Event]:
    """Return what every worker is told of sessions whose time has come."""
    return [
        store_pb2.Event(session_destroyed=store_pb2.SessionDestroyed(session_id=session_id))
        for session_id in session_ids
    ]


def emit(link: WorkerLink, operation: Operation, sessions: Sessions) -> None:
    """Send an event to the other workers that have a session attached."""
    message = store_pb2.SessionMessage(
        session_id=operation.session_id,
        name=operation.name,
        value=operation.value,
        origin=link.process,
        id=operation.id,
    )
    packed = pack_event(store_pb2.Event(session_message=message))
    for holder in sessions.holders(operation.session_id):
        if holder.worker_id != link.worker_id and isinstance(holder, WorkerLink):
            holder.tell(packed)


def gone(operation: Operation, sessions: Sessions) -> bytes:
    """Return which of the sessions that a worker asks for do not exist."""
    try:
        asked = _decode_ids(operation.value)
    except msgspec.DecodeError as error:
        raise InvalidError(f"a check has a list of session ids: {error}") from None
    return _encode([session_id for session_id in asked if session_id not in sessions])
