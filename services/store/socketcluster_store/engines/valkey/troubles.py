"""What Valkey refuses or fails to do, told by condition: what it is, at which server, and what to do about it.

Everything that is asked of a server fails for one reason while that lasts, hundreds of times a second: the log has one
line when it begins, one a minute, and one when the server does again what it refused.
"""

from __future__ import annotations

from typing import NamedTuple

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)
from redis.exceptions import TimeoutError as LateError

from socketcluster_runtime.logs.conditions import Condition
from socketcluster_runtime.logs.logging import get_logger

log = get_logger(__name__)


class FewReplicasError(LateError):
    """Fewer replicas than are waited for have said that they have a write."""


class Cause(NamedTuple):
    """Why a server does not do what it is asked for."""

    event: str
    """What the log calls it."""
    over: str
    what_to_do: str
    by_writes: bool = False
    """Is it over only when a write succeeds? Reads, and signs of life, do meanwhile."""


UNREACHABLE = Cause(
    "Valkey does not answer",
    "Valkey answers again",
    "see whether it runs, and whether it can be reached from here; its partitions are given up until it answers, and"
    " what is asked of them waits for store_timeout",
)
MEMORY = Cause(
    "Valkey has no memory left",
    "Valkey has memory again",
    "raise its maxmemory, or remove data; until then everything that writes fails",
    by_writes=True,
)
DISK = Cause(
    "Valkey cannot write to its disk",
    "Valkey writes to its disk again",
    "its own log says why: make room on its disk, or mend it; until then everything that writes fails",
    by_writes=True,
)
READ_ONLY = Cause(
    "Valkey is a replica, which only reads",
    "Valkey takes writes again",
    "have valkey_url name the primary, or promote this one (REPLICAOF NO ONE)",
    by_writes=True,
)
FEW_REPLICAS = Cause(
    "Valkey has too few replicas for a write",
    "Valkey has enough replicas again",
    "see whether its replicas run and keep up: its min-replicas-to-write, or valkey_wait_replicas here, asks for them",
    by_writes=True,
)
LOADING = Cause(
    "Valkey is loading its data",
    "Valkey has loaded its data",
    "wait: it serves when it is done",
)
CLUSTER = Cause(
    "the Cluster of Valkey is down",
    "the Cluster of Valkey serves again",
    "see CLUSTER INFO of its servers: slots that no server has, or a primary that no replica has replaced yet",
)
ACCESS = Cause(
    "Valkey refuses this user",
    "Valkey accepts this user again",
    "see user and password in valkey_url, and what the user may do (ACL GETUSER)",
)
REFUSED = Cause(
    "Valkey refuses what it is asked for",
    "Valkey does again what it is asked for",
    "see the reason, and its own log",
    by_writes=True,
)
_TYPES: tuple[tuple[tuple[type[BaseException], ...], Cause], ...] = (
    ((FewReplicasError,), FEW_REPLICAS),
    ((OutOfMemoryError,), MEMORY),
    ((ReadOnlyError,), READ_ONLY),
    ((BusyLoadingError,), LOADING),
    ((ClusterDownError, MasterDownError), CLUSTER),
    ((AuthenticationError, AuthorizationError, NoPermissionError), ACCESS),
)
_WORDS = {
    "OOM": MEMORY,
    "MISCONF": DISK,
    "READONLY": READ_ONLY,
    "NOREPLICAS": FEW_REPLICAS,
    "LOADING": LOADING,
    "CLUSTERDOWN": CLUSTER,
    "MASTERDOWN": CLUSTER,
    "NOAUTH": ACCESS,
    "NOPERM": ACCESS,
}
"""What the error of a script begins with, that of the command which failed in it."""


def cause_of(error: BaseException) -> Cause:
    """Return why a call failed."""
    for types, cause in _TYPES:
        if isinstance(error, types):
            return cause
    if isinstance(error, ResponseError):
        return _WORDS.get(str(error).partition(" ")[0].rstrip(":"), REFUSED)
    return UNREACHABLE


class Troubles:
    """What is the matter with which server, as the log has been told."""

    def __init__(self) -> None:
        self._active: dict[str, dict[Cause, Condition]] = {}

    def met(self, where: str, error: BaseException) -> None:
        """Note that a call to a server failed."""
        cause = cause_of(error)
        conditions = self._active.setdefault(where, {})
        if cause not in conditions:
            conditions[cause] = Condition(log, cause.event, over=cause.over, level="error")
        conditions[cause].add(valkey=where, reason=str(error) or "no answer came", what_to_do=cause.what_to_do)

    def answered(self, where: str, *, wrote: bool) -> None:
        """Note that a server did what it was asked for."""
        if self._active and (conditions := self._active.get(where)):
            for cause in [cause for cause in conditions if wrote or not cause.by_writes]:
                conditions.pop(cause).end(valkey=where)

    def close(self) -> None:
        """Say nothing more."""
        for conditions in self._active.values():
            for condition in conditions.values():
                condition.close()
        self._active.clear()
