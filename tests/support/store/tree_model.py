"""A plain-Python model of a partition's trees: what every operation returns, refuses and leaves behind."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import msgspec

Chain = tuple[str, ...]
encode = msgspec.msgpack.encode

WRONG_TYPE = "WrongTypeError"
INVALID = "InvalidError"
TOO_DEEP = "ChainTooDeepError"
TOO_LARGE = "TooLargeError"
SESSION_TOO_LARGE = "SessionTooLargeError"


class Refused(Exception):  # noqa: N818  # its argument names the error
    """The model's operation is refused."""


class Missing:
    """What stands where nothing stands."""


MISSING = Missing()


def index_of(key: str) -> int | None:
    """Return the index that a key is."""
    return int(key) if key in {str(n) for n in range(100)} else None


def look(node: Any, chain: Chain) -> Any:
    """Return what stands at a chain, or ``MISSING``."""
    for key in chain:
        index = index_of(key)
        if isinstance(node, dict) and key in node:
            node = node[key]
        elif isinstance(node, list) and index is not None and index < len(node):
            node = node[index]
        else:
            return MISSING
    return node


def place(root: dict[str, Any], chain: Chain, value: Any) -> None:
    """Put a value at a chain."""
    node: Any = root
    for depth, key in enumerate(chain):
        last = depth == len(chain) - 1
        below = look(node, (key,))
        new = value if last else ({} if below is MISSING or below is None else below)
        if isinstance(node, dict):
            node[key] = new
        elif isinstance(node, list):
            index = index_of(key)
            if index is None:
                raise Refused(WRONG_TYPE)
            if index > len(node):
                raise Refused(INVALID)
            node[index : index + 1] = [new]
        else:
            raise Refused(WRONG_TYPE)
        node = new


def drop(root: dict[str, Any], chain: Chain) -> None:
    """Remove what stands at a chain."""
    parent = look(root, chain[:-1])
    del parent[chain[-1] if isinstance(parent, dict) else int(chain[-1])]


def empty(value: Any) -> bool:
    """Say whether something counts as nothing."""
    return value is MISSING or value is None


class Model:
    """The trees of sessions, their expiries and limits; times are the caller's."""

    def __init__(self, max_value: int, max_session: int) -> None:
        self.max_value = max_value
        self.max_session = max_session
        self.trees: dict[str, dict[str, Any]] = {}
        self.expiries: dict[tuple[str, Chain], float] = {}
        self.now = 1000.0

    def tree(self, session: str) -> dict[str, Any]:
        """Return what a user sees of a whole tree."""
        mine = self.trees.get(session, {})
        return {key: mine[key] for key in sorted(mine, key=str.encode) if not key.startswith("\0")}

    def size(self, session: str) -> int:
        """Return what is accounted for a session."""
        values = sum(
            2 + len(session) + len(k.encode()) + len(encode(v)) for k, v in self.trees.get(session, {}).items()
        )
        return values + sum(self.record(session, chain) for owner, chain in self.expiries if owner == session)

    @staticmethod
    def record(session: str, chain: Chain) -> int:
        """Return what an expiry is accounted for."""
        return 2 + len(session) + 16 + 8 + len(encode(chain))

    def do(self, verb: str, session: str, chain: Chain, *args: Any) -> Any:
        """Carry an operation out, or raise ``Refused`` with everything as it was."""
        before = copy.deepcopy(self.trees), dict(self.expiries)
        try:
            if len(chain) > 32:
                raise Refused(TOO_DEEP)
            if verb == "set" and len(encode(args[0])) > self.max_value:
                raise Refused(TOO_LARGE)
            operation: Callable[..., Any] = getattr(self, verb)
            size = self.size(session)
            large = {key: len(encode(value)) for key, value in self.trees.get(session, {}).items()}
            result = operation(session, chain, *args)
            for key, value in self.trees.get(session, {}).items():
                if len(encode(value)) > max(self.max_value, large.get(key, 0)):
                    raise Refused(TOO_LARGE)
            if self.size(session) > max(self.max_session, size):
                raise Refused(SESSION_TOO_LARGE)
        except Refused:
            self.trees, self.expiries = before
            raise
        return copy.deepcopy(result)

    def several(self, steps: list[tuple[Any, ...]], session: str) -> list[Any]:
        """Carry operations out together."""
        before = copy.deepcopy(self.trees), dict(self.expiries)
        try:
            return [self.do(verb, session, *rest) for verb, *rest in steps]
        except Refused:
            self.trees, self.expiries = before
            raise

    # The operations

    def get(self, session: str, chain: Chain) -> Any:
        found = look(self.trees.get(session, {}), chain)
        return None if found is MISSING else found

    def exists(self, session: str, chain: Chain) -> bool:
        return look(self.trees.get(session, {}), chain) is not MISSING

    def set(self, session: str, chain: Chain, value: Any) -> None:
        place(self.trees.setdefault(session, {}), chain, copy.deepcopy(value))

    def add(self, session: str, chain: Chain, value: Any) -> int:
        tree = self.trees.setdefault(session, {})
        found, value = look(tree, chain), copy.deepcopy(value)
        if isinstance(found, dict):
            index = 1 + max([n for n in map(index_of, found) if n is not None], default=-1)
            found[str(index)] = value
            return index
        items = found if isinstance(found, list) else [] if empty(found) else [found]
        place(tree, chain, [*items, value])
        return len(items)

    def concat(self, session: str, chain: Chain, value: Any) -> int:
        tree = self.trees.setdefault(session, {})
        found, value = look(tree, chain), copy.deepcopy(value)
        if not isinstance(value, list | dict):
            raise Refused(WRONG_TYPE)
        if empty(found):
            new = value
        elif isinstance(value, dict):
            if not isinstance(found, dict):
                raise Refused(WRONG_TYPE)
            new = found | value
        elif isinstance(found, dict):
            raise Refused(WRONG_TYPE)
        else:
            new = [*(found if isinstance(found, list) else [found]), *value]
        place(tree, chain, new)
        return len(new)

    def remove(self, session: str, chain: Chain, get_value: bool = False) -> Any:
        tree = self.trees.setdefault(session, {})
        found = look(tree, chain)
        if found is MISSING:
            return None if get_value else False
        drop(tree, chain)
        self.unexpire_below(session, chain)
        return found if get_value else True

    def pop(self, session: str, chain: Chain) -> Any:
        tree = self.trees.setdefault(session, {})
        found = look(tree, chain)
        if empty(found) or found in ([], {}):
            return None
        if isinstance(found, list):
            key = str(len(found) - 1)
        elif isinstance(found, dict):
            keys = [key for key in found if index_of(key) is not None]
            if not keys:
                return None
            key = max(keys, key=int)
        else:
            raise Refused(WRONG_TYPE)
        return self.remove(session, (*chain, key), True)

    def get_range(self, session: str, chain: Chain, start: int | None, stop: int | None) -> list[Any]:
        found = look(self.trees.get(session, {}), chain)
        if empty(found):
            return []
        if not isinstance(found, list):
            raise Refused(WRONG_TYPE)
        return found[start:stop]

    def remove_range(self, session: str, chain: Chain, start: int | None, stop: int | None) -> list[Any]:
        removed = self.get_range(session, chain, start, stop)
        if removed:
            del look(self.trees[session], chain)[start:stop]
        return removed

    def count(self, session: str, chain: Chain) -> int:
        found = look(self.trees.get(session, {}), chain) if chain else self.tree(session)
        if empty(found):
            return 0
        if not isinstance(found, list | dict):
            raise Refused(WRONG_TYPE)
        return len(found)

    def get_all(self, session: str, chain: Chain) -> dict[str, Any]:
        found = look(self.trees.get(session, {}), chain) if chain else self.tree(session)
        if empty(found):
            return {}
        if not isinstance(found, dict):
            raise Refused(WRONG_TYPE)
        return found

    def remove_all(self, session: str, chain: Chain) -> None:
        if not chain:
            self.trees[session] = {k: v for k, v in self.trees.get(session, {}).items() if k.startswith("\0")}
            self.unexpire_below(session, ())
        elif found := self.get_all(session, chain):
            found.clear()
            self.unexpire_below(session, chain, itself=False)

    def expire(self, session: str, chain: Chain, seconds: float) -> bool:
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= 3_153_600_000:
            raise Refused(INVALID)
        if not self.exists(session, chain):
            return False
        self.expiries[session, chain] = self.now + seconds
        return True

    def unexpire(self, session: str, chain: Chain) -> bool:
        return self.expiries.pop((session, chain), None) is not None

    def get_expiry(self, session: str, chain: Chain) -> float | None:
        deadline = self.expiries.get((session, chain))
        return None if deadline is None else max(0.0, deadline - self.now)

    # What is not an operation

    def unexpire_below(self, session: str, chain: Chain, *, itself: bool = True) -> None:
        for owner, other in list(self.expiries):
            if owner == session and other[: len(chain)] == chain and (itself or other != chain):
                del self.expiries[owner, other]

    def expire_due(self) -> None:
        for (session, chain), deadline in sorted(self.expiries.items(), key=lambda item: (item[1], item[0])):
            if deadline <= self.now and self.expiries.get((session, chain), math.inf) <= self.now:
                del self.expiries[session, chain]
                if self.exists(session, chain):
                    self.remove(session, chain)

    def end(self, session: str) -> None:
        self.trees.pop(session, None)
        self.unexpire_below(session, ())
