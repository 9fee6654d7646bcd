"""The nData vocabulary: values on key chains, kept by the store."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from typing import Any, Literal, overload

import msgspec

from socketcluster_proto.v1 import store_pb2 as pb
from socketcluster_store_client.client import StoreClient
from socketcluster_store_client.errors import InvalidOperationError, SessionOverError, UpdateConflictError
from socketcluster_store_client.partitioning import PARTITION_COUNT
from socketcluster_worker.api.data.transaction import Transaction
from socketcluster_worker.api.data.values import FALSE, TRUE, Keys, chain_of, pack, unpack
from socketcluster_worker.api.data.watch import MAX_WAITING, Watch, Watches

UPDATE_ATTEMPTS = 100
"""How often ``update`` calls its function before it gives up."""

_decode_update = msgspec.msgpack.Decoder(tuple[bool, msgspec.Raw]).decode


class Tree:
    """A tree of values: JSON's and bytes, each addressed by a key or a chain of keys, as ``["user", "tags", 0]``.

    *Chains.* Maps are walked by key, lists by index from 0; a chain that leads nowhere, or through a scalar, has
    nothing at its end. What puts a value somewhere makes the maps that are missing on the way, and takes ``None`` for
    nothing.

    *Cost.* A store keeps one record for each top-level key. An operation on a single key reads or writes that record;
    one on a longer chain decodes and encodes it too: it costs time in proportion to the size of the top-level value,
    whatever part of it is meant.

    *Errors.* Every operation is awaitable, and raises a subclass of ``LinkError`` (``socketcluster_store_client``);
    its ``operation`` and ``keys`` say what was refused:

    - ``StoreUnavailableError`` (a ``TimeoutError``): no store answered within ``store_timeout`` seconds; the
      operation may have been applied. ``PartitionUnavailableError``, at once: the partition cannot be opened.
    - ``ChainTooDeepError``: the key chain has more than 32 keys.
    - ``WrongTypeError``: a value of another type stands at the key chain, or a scalar in its way.
    - ``TooLargeError``: a top-level value would exceed ``max_value_bytes`` (1 MiB), or a key 256 bytes.
    - ``SessionTooLargeError``: a session would exceed ``max_session_bytes`` (8 MiB).
    - ``InvalidOperationError``: an argument makes no sense, such as an index beyond the end of a list.

    ``NotSerializableError`` is raised for a value that is neither JSON nor bytes. A refused operation changes nothing.
    """

    def __init__(self, client: StoreClient, watches: Watches, session_id: str = "") -> None:
        self._client = client
        self._watches = watches
        self._session_id = session_id

    async def get(self, keys: Keys) -> Any:
        """Return the value at a key chain, ``None`` if there is none.

        Complexity: one record read.
        """
        return unpack(await self._call(pb.VERB_GET, keys))

    async def set(self, keys: Keys, value: Any) -> None:
        """Put a value at a key chain, in the place of what stands there.

        At the index after a list's last one the value is appended. An expiry of the key chain stays.

        Raises:
            WrongTypeError: a scalar stands in the way, or a list where the key is no index.
            InvalidOperationError: the index is beyond the end of its list.
            TooLargeError: the top-level value would be too large.
            SessionTooLargeError: the session would.

        Complexity: one record written; read before, if the chain has several keys.
        """
        await self._call(pb.VERB_SET, keys, pack(value))

    async def add(self, keys: Keys, value: Any) -> int:
        """Append an item to the list at a key chain; return its index.

        Of nothing a list is made, and of a scalar a list with that as its first item. In a map, the item goes under the
        decimal key after the highest one.

        Raises:
            WrongTypeError: a scalar stands in the way.
            TooLargeError: the top-level value would be too large.
            SessionTooLargeError: the session would.

        Complexity: the top-level value's size.
        """
        return int(unpack(await self._call(pb.VERB_ADD, keys, pack(value))))

    async def concat(self, keys: Keys, value: list[Any] | dict[str, Any]) -> int:
        """Append a list's items to a list, or put a map's entries into a map; return how many there are then.

        Nothing there counts as empty, and a scalar as a list of one, if a list is appended.

        Raises:
            WrongTypeError: the value is neither list nor map, or not what stands at the key chain.
            TooLargeError: the top-level value would be too large.
            SessionTooLargeError: the session would.

        Complexity: the top-level value's size.
        """
        return int(unpack(await self._call(pb.VERB_CONCAT, keys, pack(value))))

    @overload
    async def remove(self, keys: Keys, *, get_value: Literal[False] = False) -> bool: ...

    @overload
    async def remove(self, keys: Keys, *, get_value: Literal[True]) -> Any: ...

    async def remove(self, keys: Keys, *, get_value: bool = False) -> Any:
        """Remove the value at a key chain, with all expiries there and below; return whether there was one.

        With ``get_value``, return the value itself, ``None`` if there was none. Items after a removed one move up.

        Complexity: one record removed, or with several keys the top-level value's size.
        """
        return unpack(await self._call(pb.VERB_REMOVE, keys, TRUE if get_value else FALSE))

    async def remove_range(self, keys: Keys, start: int | None = None, stop: int | None = None) -> list[Any]:
        """Remove a list's items ``[start:stop]``, as a slice names them, and return them; of nothing, none.

        Raises:
            WrongTypeError: what stands there is no list.

        Complexity: the top-level value's size.
        """
        found: list[Any] = unpack(await self._call(pb.VERB_REMOVE_RANGE, keys, pack((start, stop))))
        return found

    async def pop(self, keys: Keys) -> Any:
        """Remove and return the last item of a list, or the entry under the highest decimal key of a map.

        ``None`` if there is none.

        Raises:
            WrongTypeError: what stands there is neither list nor map.

        Complexity: the top-level value's size.
        """
        return unpack(await self._call(pb.VERB_POP, keys))

    async def get_range(self, keys: Keys, start: int | None = None, stop: int | None = None) -> list[Any]:
        """Return a list's items ``[start:stop]``, as a slice names them; of nothing, none.

        Raises:
            WrongTypeError: what stands there is no list.

        Complexity: the top-level value's size.
        """
        found: list[Any] = unpack(await self._call(pb.VERB_GET_RANGE, keys, pack((start, stop))))
        return found

    async def get_all(self, keys: Keys = ()) -> dict[str, Any]:
        """Return the map at a key chain, or without one the whole tree; of nothing, an empty map.

        Raises:
            WrongTypeError: what stands there is no map.
            TooLargeError: the answer would exceed 32 MiB.

        Complexity: the size of the answer.
        """
        found: dict[str, Any] = unpack(await self._call(pb.VERB_GET_ALL, keys))
        return found

    async def remove_all(self, keys: Keys = ()) -> None:
        """Empty the map at a key chain, or without one the whole tree, with all expiries below.

        Raises:
            WrongTypeError: what stands there is no map.

        Complexity: the number of top-level keys, or the top-level value's size.
        """
        await self._call(pb.VERB_REMOVE_ALL, keys)

    async def count(self, keys: Keys = ()) -> int:
        """Return the number of items of a list or entries of a map, without a chain of top-level keys; of nothing, 0.

        Raises:
            WrongTypeError: what stands there is neither list nor map.

        Complexity: the top-level value's size, or the size of the tree.
        """
        return int(unpack(await self._call(pb.VERB_COUNT, keys)))

    async def exists(self, keys: Keys) -> bool:
        """Return whether there is a value at a key chain; ``None`` is one.

        Complexity: one record read.
        """
        return bool(unpack(await self._call(pb.VERB_EXISTS, keys)))

    async def has_key(self, keys: Keys) -> bool:
        """Return whether there is a value at a key chain: nData's older name of ``exists``."""
        return await self.exists(keys)

    async def expire(self, keys: Keys, seconds: float) -> bool:
        """Have the value at a key chain removed in ``seconds``; return whether there is one, else nothing is done.

        The time belongs to the key chain: it stays when another value is put there, and a later ``expire`` replaces
        it. It goes with ``unexpire``, and when the value or a map around it is removed. It is kept through restarts,
        and exact to 0.2 s.

        Raises:
            InvalidOperationError: ``seconds`` is negative, or longer than a hundred years.
            SessionTooLargeError: the session would be too large.

        Complexity: one record written; in the store's memory the logarithm of the partition's expiring key chains. A
        key chain that waits costs nothing.
        """
        return bool(unpack(await self._call(pb.VERB_EXPIRE, keys, pack(seconds))))

    async def unexpire(self, keys: Keys) -> bool:
        """Let the value at a key chain stay; return whether it was to expire.

        Complexity: one record removed.
        """
        return bool(unpack(await self._call(pb.VERB_UNEXPIRE, keys)))

    async def get_expiry(self, keys: Keys) -> float | None:
        """Return in how many seconds the value at a key chain expires, ``None`` if it does not.

        Complexity: a look-up in the store's memory.
        """
        seconds: float | None = unpack(await self._call(pb.VERB_GET_EXPIRY, keys))
        return seconds

    async def update(self, keys: Keys, function: Callable[[Any], Any], *, attempts: int = UPDATE_ATTEMPTS) -> Any:
        """Put ``function(value)`` in the place of the value at a key chain; return it.

        Nobody's change in between is lost: if the value is another one by then, ``function`` is called again with
        that. So it may be called several times, and should do nothing else. It gets ``None`` if there is no value,
        and may be async. What it raises leaves the value as it is.

        Args:
            keys: the key chain.
            function: returns the new value.
            attempts: how often it may be called.

        Raises:
            UpdateConflictError: the value was another one each time; nothing was written.
            WrongTypeError, TooLargeError, SessionTooLargeError: as ``set`` does.

        Complexity: one ``get``, and a ``set`` for each attempt.
        """
        chain = chain_of(keys)
        seen = await self._call(pb.VERB_GET, chain)
        for _ in range(attempts):
            value = function(unpack(seen))
            if inspect.isawaitable(value):
                value = await value
            digest = blake2b(seen, digest_size=16).digest()
            done, found = _decode_update(await self._call(pb.VERB_UPDATE, chain, pack((digest, value))))
            if done:
                return value
            seen = bytes(found)
        text = f"UPDATE {chain}: others changed the value each of {attempts} times"
        raise UpdateConflictError(text, operation="update", keys=chain)

    def transaction(self) -> Transaction:
        """Return a transaction: ``async with`` it, call its operations, and find what they returned in its ``results``.

        Complexity: that of its operations, in one round trip.
        """
        return Transaction(self._ask, self._session_id)

    def watch(self, keys: Keys = (), *, max_waiting: int = MAX_WAITING) -> Watch:
        """Return an async iterator of the changes at a key chain and below, whichever worker makes them.

        ::

            async with session.watch("cart") as changes:
                cart = await session.get("cart")
                async for change in changes:
                    ...

        Without a key chain, a session's whole tree is watched; the application's is watched by top-level key. Values
        are those that the operations were given, see ``Change``.

        Args:
            keys: the key chain.
            max_waiting: changes that may wait to be taken; with more, or 16 MiB of values, the watch ends by a
                ``WatchOverflowError``.

        Raises:
            InvalidOperationError: the whole of the application's tree is meant.

        Complexity: a change of what is watched costs a record written and an event a watching worker; of what is not, a
        look-up.
        """
        chain = chain_of(keys)
        if not chain and not self._session_id:
            text = "WATCH []: the application's tree is watched by key, it lies in all partitions"
            raise InvalidOperationError(text, operation="watch")
        return Watch(self._watches, (self._session_id, tuple(chain)), max_waiting)

    def _call(self, verb: pb.Verb.ValueType, keys: Keys, value: bytes = b"") -> Awaitable[bytes]:
        return self._ask(verb, keys=chain_of(keys), value=value)

    def _ask(self, verb: pb.Verb.ValueType, **arguments: Any) -> Awaitable[bytes]:
        return self._client.call(verb, session_id=self._session_id, **arguments)


class SessionTree(Tree):
    """The tree of one session."""

    async def run(self, name: str, *args: Any) -> Any:
        """Call a procedure of the store controller with this session's tree; return what it returns.

        The store runs it as one: nothing happens in between, and what it raises undoes all that it did.

        Args:
            name: the procedure's.
            *args: what it gets after the tree.

        Raises:
            UnknownProcedureError: the store controller has none of that name. ProcedureError: it raised; its ``name``
                is the exception's class. WrongTypeError, TooLargeError, SessionTooLargeError, InvalidOperationError:
                an operation of the procedure was refused, or there were too many writes.

        Complexity: the procedure's own; the store does nothing else meanwhile.
        """
        return unpack(await self._ask(pb.VERB_RUN, name=name, value=pack(args)))

    async def _call(self, verb: pb.Verb.ValueType, keys: Keys, value: bytes = b"") -> bytes:
        return await self._ask(verb, keys=chain_of(keys), value=value)

    async def _ask(self, verb: pb.Verb.ValueType, **arguments: Any) -> bytes:
        """Send an operation; once more if the session was renewed before a store had it."""
        while True:
            session_id = self._session_id
            try:
                return await self._client.call(verb, session_id=session_id, **arguments)
            except SessionOverError:
                if self._session_id == session_id:
                    raise


class AppTree(Tree):
    """The tree of the whole application, ``worker.store``: each top-level key lies in one of 64 partitions.

    ``get_all``, ``remove_all`` and ``count`` without a key chain ask every partition, each by itself: what changes
    meanwhile may be seen in one and not in another.
    """

    async def get_all(self, keys: Keys = ()) -> dict[str, Any]:
        """Return the map at a key chain, or without one the whole tree, see ``Tree.get_all``."""
        if chain_of(keys):
            return await super().get_all(keys)
        parts = await self._everywhere(pb.VERB_GET_ALL)
        return {key: value for part in parts for key, value in unpack(part).items()}

    async def remove_all(self, keys: Keys = ()) -> None:
        """Empty the map at a key chain, or without one the whole tree, see ``Tree.remove_all``."""
        if chain_of(keys):
            await super().remove_all(keys)
        else:
            await self._everywhere(pb.VERB_REMOVE_ALL)

    async def count(self, keys: Keys = ()) -> int:
        """Return the number of items, entries or top-level keys, see ``Tree.count``."""
        if chain_of(keys):
            return await super().count(keys)
        return sum(map(unpack, await self._everywhere(pb.VERB_COUNT)))

    async def run(self, name: str, *args: Any, key: str | None = None) -> Any:
        """Call a procedure with the tree of one partition; return what it returns, see ``SessionTree.run``.

        Args:
            name: the procedure's.
            *args: what it gets after the tree.
            key: a top-level key of the partition, whose keys are all that the procedure can reach; by default its name.
        """
        keys = (name if key is None else key,)
        return unpack(await self._client.call(pb.VERB_RUN, name=name, keys=keys, value=pack(args)))

    async def _everywhere(self, verb: pb.Verb.ValueType) -> list[bytes]:
        return await asyncio.gather(*(self._client.call(verb, partition=number) for number in range(PARTITION_COUNT)))
