"""Watching key chains: what the stores tell of their changes, handed to whoever iterates."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Any, NamedTuple, Self
from weakref import WeakSet

from socketcluster_proto.v1 import store_pb2 as pb
from socketcluster_store_client.client import StoreClient
from socketcluster_store_client.errors import LinkError, WatchOverflowError
from socketcluster_worker.api.data.values import pack, unpack
from socketcluster_worker.tasks import Tasks

MAX_WAITING = 1000
"""Changes that wait for a watcher, unless it asks for another number."""
MAX_WAITING_BYTES = 16 * 1024 * 1024
"""Bytes of values in them."""
MISSED = "missed"
END = "end"


Key = tuple[str, tuple[str, ...]]


class Change(NamedTuple):
    """One change at a watched key chain, or below it."""

    keys: tuple[str, ...]
    """Where. A change above the watched key chain is told as what it did to that: ``set`` or ``remove``."""
    operation: str
    """``set``, ``add``, ``concat``, ``remove``, ``remove_range``, ``remove_all`` or ``pop``: what was done;
    ``expire``: the value was removed because its time had come; ``end``: the session has ended, and the iteration
    does; ``missed``: changes were not told, so the value is to be read again."""
    value: Any
    """What the operation was given: the new value, the item, the list or map, start and stop; of ``missed``, how many
    changes, or ``None`` if that is not known."""


class Watch:
    """An async iterator of the changes of a key chain; ``async with`` it, so that the store hears when it ends.

    Changes come in the order in which the store applied them, from every worker, this one included. It outlives the
    store: after a takeover of the partition it goes on, without a gap or with a change ``missed`` that says how many
    there were.
    """

    def __init__(self, watches: Watches, key: Key, max_waiting: int) -> None:
        self._watches = watches
        self._key = key
        self._max_waiting = max_waiting
        self._waiting: deque[tuple[tuple[str, ...], str, bytes]] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._begun = False
        self._over = False
        self._error: LinkError | None = None

    async def __aenter__(self) -> Self:
        """Begin: changes after this are told."""
        await self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""
        self.close()

    def close(self) -> None:
        """End the watch; an iteration ends after the changes that wait."""
        self._finish()
        self._watches.discard(self, self._key)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change:
        """Return the next change.

        Raises:
            WatchOverflowError: more changes came than may wait; those that did were returned.
            LinkError: the watch could not begin.
        """
        await self._begin()
        while not self._waiting:
            if self._error is not None:
                raise self._error
            if self._over:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        keys, operation, value = self._waiting.popleft()
        self._bytes -= len(value)
        return Change(keys, operation, unpack(value))

    async def _begin(self) -> None:
        if not self._begun and not self._over:
            self._begun = True
            await self._watches.add(self, self._key)

    def _put(self, keys: tuple[str, ...], operation: str, value: bytes) -> None:
        """Take a change, unless the watch is over."""
        if self._over:
            return
        self._waiting.append((keys, operation, value))
        self._bytes += len(value)
        if len(self._waiting) > self._max_waiting or self._bytes > MAX_WAITING_BYTES:
            self._waiting.pop()
            chain = list(self._key[1])
            self._error = WatchOverflowError(
                f"WATCH {chain}: {len(self._waiting)} changes wait and nobody takes them", operation="watch", keys=chain
            )
            self.close()
        elif operation == END:
            self._finish()
        self._wake.set()

    def _finish(self) -> None:
        self._over = True
        self._wake.set()


class _Group:
    """The watches of one key chain, and how far they have been told."""

    def __init__(self, tag: bytes) -> None:
        self.tag = tag  # tells the beginning of this group's watch from an earlier one's
        self.watches: WeakSet[Watch] = WeakSet()
        self.generation: int | None = None
        self.count = 0

    def put(self, keys: tuple[str, ...], operation: str, value: bytes) -> None:
        for watch in list(self.watches):
            watch._put(keys, operation, value)

    def missed(self, keys: tuple[str, ...], number: int | None) -> None:
        self.put(keys, MISSED, pack(number))


class Watches:
    """All watches of this worker; each key chain is watched once, whoever iterates."""

    def __init__(self, client: StoreClient, tasks: Tasks) -> None:
        self._client = client
        self._tasks = tasks
        self._groups: dict[Key, _Group] = {}
        self._last_tag = 0

    async def add(self, watch: Watch, key: Key) -> None:
        """Begin a watch."""
        group = self._groups.get(key)
        if group is None:
            self._last_tag += 1
            group = self._groups[key] = _Group(self._last_tag.to_bytes(8, "big"))
        group.watches.add(watch)
        try:
            await self._client.watch(*key, group.tag)
        except BaseException:
            watch.close()
            raise

    def discard(self, watch: Watch, key: Key) -> None:
        """End a watch; with the last one of a key chain the store learns of it."""
        group = self._groups.get(key)
        if group is not None and watch in group.watches:
            group.watches.discard(watch)
            self._sweep(key, group)

    def deliver(self, told: pb.DataChange) -> None:
        """Hand on what a store says of a watched key chain."""
        key = told.session_id, tuple(told.watched)
        group = self._groups.get(key)
        if group is None:
            return
        known = group.generation == told.generation
        if told.operation:
            if not known or told.count <= group.count:
                return  # of a watch that has not begun, or told already
            missed = told.count - group.count - 1
        elif told.value != group.tag:
            return
        else:
            missed = told.count - group.count if known else 0
            if not known and group.generation is not None:
                group.missed(key[1], None)
        if missed > 0:
            group.missed(key[1], missed)
        group.generation, group.count = told.generation, told.count
        if told.operation:
            group.put(tuple(told.keys), told.operation, told.value)
        if told.operation == END:
            group.watches.clear()
        self._sweep(key, group)

    def _sweep(self, key: Key, group: _Group) -> None:
        if not group.watches and self._groups.get(key) is group:
            del self._groups[key]
            self._tasks.watch(self._client.unwatch(*key), f"unwatching {list(key[1])}", is_told_again=True)
