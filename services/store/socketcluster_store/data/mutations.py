"""What the verbs that need the value below them do to it. Pure functions on a holder, see ``key_chains``.

Each returns what its caller is told, and what a watcher is: the operation's name and what it was given, in a form that
does to a copy of the value what was done here; ``None`` if nothing changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.data.key_chains import (
    NOTHING,
    Addressed,
    child,
    cut,
    is_index,
    name_of,
    parsed,
    put,
    walk,
    wrong_type,
)
from socketcluster_store.errors import InvalidError, WrongTypeError

_encode = msgspec.msgpack.Encoder().encode

NIL = b"\xc0"
FALSE = b"\xc2"
TRUE = b"\xc3"


class Mutation(NamedTuple):
    """What became of a verb."""

    result: bytes
    """MessagePack for the caller."""
    operation: str = ""
    """What is told to watchers; empty: nothing changed."""
    value: bytes = b""
    """MessagePack that the operation was given."""
    removed: tuple[str, ...] | None = None
    """The key chain at which nothing stands any more."""


def remove(holder: dict[str, Any], command: Addressed, value: bytes) -> Mutation:
    """Remove the value at the key chain; with ``value`` true, return it instead of whether there was one."""
    wanted = value == TRUE
    found = cut(holder, command.keys)
    if found is NOTHING:
        return Mutation(NIL if wanted else FALSE)
    return Mutation(_encode(found) if wanted else TRUE, "remove", NIL, tuple(command.keys))


def expire(holder: dict[str, Any], command: Addressed, value: bytes) -> Mutation:
    """Remove the value at the key chain, because its time has come."""
    done = remove(holder, command, value)
    return done._replace(operation="expire") if done.operation else done


def remove_all(holder: dict[str, Any], command: Addressed, _value: bytes) -> Mutation:
    """Empty the map at the key chain."""
    found = walk(holder, command.keys)
    if found is NOTHING or found is None:
        return Mutation(b"")
    if not isinstance(found, dict):
        raise wrong_type(command, found, "map")
    if not found:
        return Mutation(b"")
    found.clear()
    return Mutation(b"", "remove_all", NIL)


def add(holder: dict[str, Any], command: Addressed, value: bytes) -> Mutation:
    """Append to the list at the key chain; return the item's index.

    Without anything there a list is made; a scalar becomes the first item of one; in a map the item goes under the
    decimal key after the highest one.
    """
    item = parsed(value, command)
    found = walk(holder, command.keys)
    if isinstance(found, list):
        found.append(item)
        index = len(found) - 1
    elif isinstance(found, dict):
        index = 1 + max((int(key) for key in found if is_index(key)), default=-1)
        found[str(index)] = item
    else:
        made = [item] if found is NOTHING or found is None else [found, item]
        put(holder, command, made)
        index = len(made) - 1
    return Mutation(_encode(index), "add", value)


def concat(holder: dict[str, Any], command: Addressed, value: bytes) -> Mutation:
    """Append the items of a list, or put in the entries of a map; return how many there are then.

    A scalar becomes the first item of a list before a list is appended to it.
    """
    more = parsed(value, command)
    if not isinstance(more, list | dict):
        raise WrongTypeError(f"{name_of(command)}: the value is neither a list nor a map")
    found = walk(holder, command.keys)
    if found is NOTHING or found is None:
        put(holder, command, more)
        return Mutation(_encode(len(more)), "concat", value)
    if isinstance(more, dict):
        if not isinstance(found, dict):
            raise wrong_type(command, found, "map")
        found.update(more)
        total = len(found)
    elif isinstance(found, dict):
        raise wrong_type(command, found, "list")
    elif isinstance(found, list):
        found.extend(more)
        total = len(found)
    else:
        put(holder, command, [found, *more])
        total = len(more) + 1
    return Mutation(_encode(total), "concat", value)


def pop(holder: dict[str, Any], command: Addressed, _value: bytes) -> Mutation:
    """Remove and return the last item of a list, or the entry under the highest decimal key of a map."""
    found = walk(holder, command.keys)
    if found is NOTHING or found is None:
        return Mutation(NIL)
    if isinstance(found, list):
        last = str(len(found) - 1)
    elif isinstance(found, dict):
        last = max((key for key in found if is_index(key)), key=int, default="")
    else:
        raise wrong_type(command, found, "list")
    if child(found, last) is NOTHING:
        return Mutation(NIL)
    chain = (*command.keys, last)
    return Mutation(_encode(cut(holder, chain)), "pop", NIL, chain)


def get_range(holder: dict[str, Any], command: Addressed, value: bytes) -> bytes:
    """Return the items of a list from the first index up to, not including, the second; of nothing, none."""
    part = _slice(command, value)
    return _encode(_list(holder, command)[part])


def remove_range(holder: dict[str, Any], command: Addressed, value: bytes) -> Mutation:
    """Remove and return the items of a list from the first index up to, not including, the second."""
    part = _slice(command, value)
    found = _list(holder, command)
    removed = found[part]
    if not removed:
        return Mutation(_encode([]))
    start, stop, _step = part.indices(len(found))
    del found[part]
    return Mutation(_encode(removed), "remove_range", _encode([start, stop]))


def count(holder: dict[str, Any], command: Addressed) -> bytes:
    """Return the number of items or entries; of nothing, 0."""
    found = walk(holder, command.keys)
    if found is NOTHING or found is None:
        return _encode(0)
    if not isinstance(found, list | dict):
        raise wrong_type(command, found, "list or map")
    return _encode(len(found))


def _list(holder: dict[str, Any], command: Addressed) -> list[Any]:
    found = walk(holder, command.keys)
    if found is NOTHING or found is None:
        return []
    if not isinstance(found, list):
        raise wrong_type(command, found, "list")
    return found


def _slice(command: Addressed, value: bytes) -> slice:
    bounds = parsed(value, command)
    if not isinstance(bounds, list) or len(bounds) != 2 or not all(b is None or type(b) is int for b in bounds):
        raise InvalidError(f"{name_of(command)}: a range is given by two indices, each of which may be nil")
    return slice(*bounds)


MUTATIONS: dict[int, Callable[[dict[str, Any], Addressed, bytes], Mutation]] = {
    store_pb2.VERB_ADD: add,
    store_pb2.VERB_CONCAT: concat,
    store_pb2.VERB_REMOVE_RANGE: remove_range,
    store_pb2.VERB_POP: pop,
}
"""The verbs that change what stands at a key chain, except SET, REMOVE and REMOVE_ALL."""
