"""The commands that an engine carries out: their numbers, what each has, and which of them change something."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.errors import Refusal

PUT_RECORD = -1
"""Command: keep ``value`` as the record of the session."""
END_SESSION = -2
"""Command: remove the session's record and its whole tree."""
RENEW_SESSION = -6
"""Command: move the session's whole tree, with its expiries, to the id in ``value``."""
EXPIRE_DUE = -3
"""Command: remove the values at key chains whose time has come, a bounded number of them."""
CHANGES = -4
"""Command: return what the commands before it did to watched key chains, a list of ``watches.KeyChange``."""
WATCHED = -5
"""Command: return all watched key chains, a list of session id and key chain."""
CHANNEL_POSITION = -101
"""Command: return where a channel with a history is; see ``channel_log``."""
OPEN_CHANNELS = -103
"""Command: note that this process counts the channels' offsets from now on."""
CLOSE_CHANNELS = -104
"""Command: note that it does no more, and that a sync follows."""
RESERVE_EPOCHS = -105
"""Command: note that the epochs of channels below ``detail`` are this opening's."""
EXPIRE_CHANNELS = -102
"""Command: remove from histories what is too old, as much as one batch bears, and return when to do so next."""
TAKE_TIME_OVER = -301
"""Command: have the partition's clock go on from where the former owner's was, and note the time."""
NOTE_TIME = -302
"""Command: keep the partition's time for the next owner."""
REMEMBER = -201
"""Command, the last of its batch: remember which operations of a worker's process were applied; see ``applied_log``."""
FORGET = -202
"""Command: remember nothing of a worker's process any more."""

READS = frozenset(
    (
        store_pb2.VERB_GET,
        store_pb2.VERB_EXISTS,
        store_pb2.VERB_GET_ALL,
        store_pb2.VERB_GET_RANGE,
        store_pb2.VERB_COUNT,
        store_pb2.VERB_GET_EXPIRY,
        WATCHED,
        store_pb2.VERB_CHANNEL_HISTORY,
        CHANNEL_POSITION,
    )
)
"""The verbs that change nothing."""
BEGIN_SESSION = frozenset(
    (
        store_pb2.VERB_SET,
        store_pb2.VERB_ADD,
        store_pb2.VERB_CONCAT,
        store_pb2.VERB_UPDATE,
        store_pb2.VERB_TRANSACTION,
        store_pb2.VERB_RUN,
    )
)
"""The writes with which a session begins that does not exist."""
WRITES = BEGIN_SESSION | {
    store_pb2.VERB_REMOVE,
    store_pb2.VERB_REMOVE_ALL,
    store_pb2.VERB_REMOVE_RANGE,
    store_pb2.VERB_POP,
    store_pb2.VERB_EXPIRE,
    store_pb2.VERB_UNEXPIRE,
}
"""The writes to a tree."""


class Command(msgspec.Struct, frozen=True, gc=False):
    """One step of a batch."""

    verb: int
    """A data verb of the protocol, VERB_CHANNEL_PUBLISH, VERB_CHANNEL_HISTORY, or one of the numbers above."""
    session_id: bytes
    """Whose tree; empty: the application's own."""
    keys: Sequence[str] = ()
    """The key chain; of a command on a channel, its name."""
    value: bytes = b""
    """MessagePack; of ``PUT_RECORD``, any bytes."""
    name: str = ""
    """The procedure of ``VERB_RUN``."""
    detail: object = None
    """What ``channel_log`` says of its commands, and ``applied_log`` of ``REMEMBER`` and ``FORGET``."""


Outcome = bytes | Refusal
"""What became of a command: the MessagePack of its result, or why it was not carried out."""
