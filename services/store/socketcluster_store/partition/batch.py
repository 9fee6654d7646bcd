"""A batch: operations of one link that the engine carries out together, and how it is made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from zlib import crc32

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.commands import BEGIN_SESSION, CHANGES, PUT_RECORD, READS, WRITES, Command, Outcome
from socketcluster_store.data.mutations import FALSE, TRUE
from socketcluster_store.errors import EngineError, InvalidError, Refusal, SessionOverError
from socketcluster_store.links import WorkerLink
from socketcluster_store.partition import session_operations
from socketcluster_store.partition.channels import VERBS, Channels
from socketcluster_store.partition.deduplication import NOT_REMEMBERED, WorkerProcess
from socketcluster_store.partition.session_operations import CHANGES_SESSION, RENEW, SessionChanges
from socketcluster_store.partition.sessions import Sessions
from socketcluster_store.partition.validation import MAX_ID_BYTES, Validation
from socketcluster_store.partition.watchers import Key, Watchers
from socketcluster_store_client.messages import Operation
from socketcluster_store_client.partitioning import PARTITION_COUNT

Answers = Sequence[Outcome] | EngineError
"""What became of a batch's commands, or why nothing did."""

_SET = store_pb2.VERB_SET
_DETACH = store_pb2.VERB_SESSION_DETACH
_END = store_pb2.VERB_SESSION_END
_WATCHING = (store_pb2.VERB_WATCH, store_pb2.VERB_UNWATCH)
_TELL_CHANGES = Command(CHANGES, b"")


class Batch:
    """What is to be remembered of operations while the engine carries them out."""

    __slots__ = (
        "begun", "commands", "deadlines", "last", "link", "messages", "now", "operations", "outcomes", "places",
        "refused", "tells", "touched", "watches",
    )  # fmt: skip

    def __init__(self, link: WorkerLink, operations: Sequence[Operation], now: float) -> None:
        self.link = link
        self.operations = operations
        self.now = now
        self.outcomes: list[Outcome] = [b""] * len(operations)
        self.commands: list[Command] = []
        self.places: list[int] = []
        """Of each command, the index of its outcome, or -1."""
        self.messages: list[tuple[int, Operation]] = []
        """What is told to others once the commands are done: place and operation."""
        self.last: Operation | None = None
        """The last operation that changes something."""
        self.watches: list[tuple[int, Key]] = []
        """The watches that begin: place and key chain."""
        self.tells = False
        """Is what the commands change told to watchers?"""
        self.deadlines = False
        """May the time change at which a session, key chain or watch is due?"""
        self.refused = False
        """Was an operation refused that would have changed something?"""
        self.begun: list[str] = []
        """The sessions that begin."""
        self.touched: set[str] = set()
        """The sessions that a write has touched; once is enough."""

    def add(self, place: int, command: Command) -> None:
        """Have the engine carry a command out, whose outcome is that of an operation, or of none."""
        self.commands.append(command)
        self.places.append(place)
        self.deadlines = True

    def add_plain(self, place: int, command: Command) -> None:
        """Do the same with one that no deadline hangs on."""
        self.commands.append(command)
        self.places.append(place)

    def refuse(self, place: int, refusal: Refusal) -> None:
        """Note that an operation is not carried out, of which nothing is in the batch."""
        self.outcomes[place] = refusal
        operation = self.operations[place]
        if operation.verb not in NOT_REMEMBERED:
            self.refused = True
            if self.last is not None:  # up to which everything is remembered
                self.last = operation


class BatchBuilder:
    """Makes batches, by a table that says of each verb what it adds to one.

    Args:
        number: the partition.
        clock: tells its time.
        sessions: what operations do to them is done at once.
        channels: likewise.
        watchers: likewise.
        changes: learns which sessions a batch renews or ends.
        validation: what operations must be like.
    """

    def __init__(
        self,
        number: int,
        clock: Callable[[], float],
        *,
        sessions: Sessions,
        channels: Channels[WorkerLink],
        watchers: Watchers,
        changes: SessionChanges,
        validation: Validation,
    ) -> None:
        self._number = number
        self._clock = clock
        self._sessions = sessions
        self._channels = channels
        self._watchers = watchers
        self._changes = changes
        self._validation = validation
        # each adds an operation, or refuses it before it has added anything
        self._verbs: dict[int, Callable[[Batch, int, Operation], None]] = {
            **dict.fromkeys([verb for verb in READS if verb > 0], self._read),  # the others are no worker's
            store_pb2.VERB_GET: self._get,
            **dict.fromkeys(WRITES, self._write),
            **dict.fromkeys(VERBS, self._channel),
            store_pb2.VERB_CHANNEL_PUBLISH: self._publish,
            store_pb2.VERB_WATCH: self._watch,
            store_pb2.VERB_UNWATCH: self._unwatch,
            store_pb2.VERB_SESSION_ATTACH: self._hold,
            store_pb2.VERB_SESSION_DETACH: self._hold,
            **dict.fromkeys(CHANGES_SESSION, self._change_session),
            store_pb2.VERB_SESSION_CHECK: self._check_sessions,
            store_pb2.VERB_SESSION_EMIT: self._emit,
        }

    def build(self, link: WorkerLink, operations: Sequence[Operation], process: WorkerProcess) -> Batch:
        """Return what the engine is to do for operations, and note what they do to sessions and watchers."""
        batch = Batch(link, operations, self._clock())
        verbs = self._verbs
        over = self._sessions.over
        for place, operation in enumerate(operations):
            try:
                if operation.session_id in over:
                    self._check_over(operation)
                add = verbs.get(operation.verb)
                if add is None:
                    raise InvalidError(f"no verb has the number {operation.verb}")
                add(batch, place, operation)
            except Refusal as refusal:
                batch.refuse(place, refusal)
        last = batch.last
        if last is not None:
            batch.add_plain(-1, process.command(last, operations, batch.outcomes, batch.places, batch.now))
        if self._watchers and (last is not None or any(command.verb in _WATCHING for command in batch.commands)):
            batch.tells = True
            batch.commands.append(_TELL_CHANGES)
        return batch

    def undo(self, batch: Batch) -> None:
        """Undo the renewals and watches of a batch that the engine refused, and note ends and records as unwritten.

        Who holds a session stays as the workers said: what is refused here they say again.
        """
        sessions = self._sessions
        for _place, operation in reversed(batch.messages):
            if operation.verb == RENEW:
                sessions.renewal_failed(operation.session_id, operation.name, batch.now)
            elif operation.verb == _END:
                sessions.end_failed(operation.session_id)
        unwritten = [command.session_id.decode() for command in batch.commands if command.verb == PUT_RECORD]
        sessions.refused(unwritten, batch.begun)
        for _place, key in batch.watches:
            self._watchers.refused(batch.link, key)

    def _check_over(self, operation: Operation) -> None:
        """Refuse an operation on an id that is over, but for what may come late."""
        verb = operation.verb
        if verb != _DETACH and not (verb == _END and operation.session_id in self._sessions.unended):
            raise SessionOverError("the session was renewed or ended: nothing has its id")

    def _owner(self, operation: Operation) -> bytes:
        """Return whose tree it is."""
        owner = operation.session_id.encode()
        if not owner or len(owner) > MAX_ID_BYTES or crc32(owner) % PARTITION_COUNT != self._number:
            self._validation.session_id(owner, operation)
        return owner

    # What each verb adds

    def _get(self, batch: Batch, place: int, operation: Operation) -> None:
        batch.add_plain(place, Command(operation.verb, self._owner(operation), operation.keys))

    def _read(self, batch: Batch, place: int, operation: Operation) -> None:
        batch.add(place, Command(operation.verb, self._owner(operation), operation.keys, operation.value))

    def _write(self, batch: Batch, place: int, operation: Operation) -> None:
        owner = self._owner(operation)
        verb = operation.verb
        session_id = operation.session_id
        sessions = self._sessions
        add = batch.add_plain if verb == _SET else batch.add
        add(place, Command(verb, owner, operation.keys, operation.value, operation.name))
        batch.last = operation
        if owner and session_id not in batch.touched and (verb in BEGIN_SESSION or session_id in sessions):
            batch.touched.add(session_id)
            if session_id not in sessions:
                batch.begun.append(session_id)
            record = sessions.touch(session_id, batch.now)
            if record is not None:
                batch.add(-1, Command(PUT_RECORD, owner, (), record))

    def _hold(self, batch: Batch, place: int, operation: Operation) -> None:
        owner = self._owner(operation)
        outcome, record = session_operations.hold(batch.link, operation, self._sessions, batch.now)
        batch.outcomes[place] = outcome
        batch.touched.discard(operation.session_id)
        if outcome == FALSE:
            batch.begun.append(operation.session_id)
        if record is not None:
            batch.add(-1, Command(PUT_RECORD, owner, (), record))

    def _change_session(self, batch: Batch, place: int, operation: Operation) -> None:
        self._owner(operation)
        batch.last = operation  # though it be refused
        changing, *records = session_operations.change(operation, self._sessions, self._validation, batch.now)
        self._changes.begin(operation.session_id)
        batch.add(place, changing)
        for record in records:
            batch.add(-1, record)
        batch.messages.append((place, operation))

    def _check_sessions(self, batch: Batch, place: int, operation: Operation) -> None:
        self._owner(operation)
        batch.outcomes[place] = session_operations.gone(operation, self._sessions)

    def _emit(self, batch: Batch, place: int, operation: Operation) -> None:
        self._validation.emit(operation)
        batch.messages.append((place, operation))

    def _channel(self, batch: Batch, place: int, operation: Operation) -> None:
        self._validation.channel(operation)
        command = self._channels.prepare(batch.link, operation, batch.now)
        batch.messages.append((place, operation))
        if command is not None:
            batch.add(place, command)

    def _publish(self, batch: Batch, place: int, operation: Operation) -> None:
        self._channel(batch, place, operation)
        batch.last = operation

    def _watch(self, batch: Batch, place: int, operation: Operation) -> None:
        key = self._owner(operation), tuple(operation.keys)
        batch.watches.append((place, key))
        self._watchers.add(batch.link, key)
        batch.add(place, Command(operation.verb, *key, operation.value))

    def _unwatch(self, batch: Batch, place: int, operation: Operation) -> None:
        key = self._owner(operation), tuple(operation.keys)
        keep = self._watchers.others(batch.link, key)
        batch.add(place, Command(operation.verb, *key, TRUE if keep else b""))
