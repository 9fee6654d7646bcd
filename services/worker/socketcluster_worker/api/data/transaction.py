"""Transactions: several operations that are applied together, or not at all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from socketcluster_proto.v1 import store_pb2 as pb
from socketcluster_store_client import packing
from socketcluster_store_client.errors import CrossPartitionError, InvalidOperationError
from socketcluster_store_client.operations import operation_name
from socketcluster_store_client.partitioning import partition_of
from socketcluster_worker.api.data.values import FALSE, TRUE, Keys, chain_of, pack

MAX_STEPS = 1000
"""Operations of a transaction; the store refuses more."""

_decode_results = packing.decoder(list[Any]).decode


class Transaction:
    """Operations on one tree that a store applies as one::

        async with session.transaction() as transaction:
            transaction.set("paid", True)
            transaction.add("log", "paid")
        index = transaction.results[1]

    They are sent when the block is left, and not at all if it is left by an exception. Each sees those before it. If
    one is refused none holds, and leaving the block raises its error, which names the operation by its position from
    0. The vocabulary is the one of the tree; nothing is returned before the end.

    On the application's tree, all top-level keys must lie in one of its 64 partitions, because only what one store
    owns can be changed as one: use one top-level key for what belongs together. Another one raises
    ``CrossPartitionError`` at once.

    Attributes:
        results: after the block, what each operation returned, in their order.
    """

    def __init__(self, ask: Callable[..., Awaitable[bytes]], session_id: str) -> None:
        self.results: list[Any] = []
        self._ask = ask  # which follows a session that is renewed meanwhile
        self._session_id = session_id
        self._steps: list[tuple[int, list[str], bytes]] = []
        self._first: str | None = None
        self._sent = False

    async def __aenter__(self) -> Self:
        """Begin to gather operations."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Have them applied, unless the block was left by an exception."""
        if kind is None:
            await self._commit()

    def get(self, keys: Keys) -> None:
        """See ``Tree.get``."""
        self._step(pb.VERB_GET, keys)

    def set(self, keys: Keys, value: Any) -> None:
        """See ``Tree.set``."""
        self._step(pb.VERB_SET, keys, pack(value))

    def add(self, keys: Keys, value: Any) -> None:
        """See ``Tree.add``."""
        self._step(pb.VERB_ADD, keys, pack(value))

    def concat(self, keys: Keys, value: Any) -> None:
        """See ``Tree.concat``."""
        self._step(pb.VERB_CONCAT, keys, pack(value))

    def remove(self, keys: Keys, *, get_value: bool = False) -> None:
        """See ``Tree.remove``."""
        self._step(pb.VERB_REMOVE, keys, TRUE if get_value else FALSE)

    def remove_range(self, keys: Keys, start: int | None = None, stop: int | None = None) -> None:
        """See ``Tree.remove_range``."""
        self._step(pb.VERB_REMOVE_RANGE, keys, pack((start, stop)))

    def remove_all(self, keys: Keys = ()) -> None:
        """See ``Tree.remove_all``."""
        self._step(pb.VERB_REMOVE_ALL, keys)

    def pop(self, keys: Keys) -> None:
        """See ``Tree.pop``."""
        self._step(pb.VERB_POP, keys)

    def get_range(self, keys: Keys, start: int | None = None, stop: int | None = None) -> None:
        """See ``Tree.get_range``."""
        self._step(pb.VERB_GET_RANGE, keys, pack((start, stop)))

    def get_all(self, keys: Keys = ()) -> None:
        """See ``Tree.get_all``."""
        self._step(pb.VERB_GET_ALL, keys)

    def count(self, keys: Keys = ()) -> None:
        """See ``Tree.count``."""
        self._step(pb.VERB_COUNT, keys)

    def exists(self, keys: Keys) -> None:
        """See ``Tree.exists``."""
        self._step(pb.VERB_EXISTS, keys)

    has_key = exists

    def expire(self, keys: Keys, seconds: float) -> None:
        """See ``Tree.expire``."""
        self._step(pb.VERB_EXPIRE, keys, pack(seconds))

    def unexpire(self, keys: Keys) -> None:
        """See ``Tree.unexpire``."""
        self._step(pb.VERB_UNEXPIRE, keys)

    def get_expiry(self, keys: Keys) -> None:
        """See ``Tree.get_expiry``."""
        self._step(pb.VERB_GET_EXPIRY, keys)

    def _step(self, verb: int, keys: Keys, value: bytes = b"") -> None:
        chain = chain_of(keys)
        name = operation_name(verb)
        if self._sent:
            raise InvalidOperationError(f"{name.upper()} {chain}: the transaction is over", operation=name, keys=chain)
        if not self._session_id:
            self._check_partition(name, chain)
        self._steps.append((verb, chain, value))

    def _check_partition(self, name: str, chain: list[str]) -> None:
        """See to it that the keys of the application's tree lie together."""
        where = f"{name.upper()} {chain}"
        if not chain:
            raise CrossPartitionError(f"{where}: the whole tree lies in all partitions", operation=name)
        if self._first is None:
            self._first = chain[0]
        mine, first = partition_of(chain[0]), partition_of(self._first)
        if mine != first:
            raise CrossPartitionError(
                f"{where}: the top-level key {chain[0]!r} lies in partition {mine}, but {self._first!r} in {first}; "
                "what is changed as one has one top-level key",
                operation=name,
                keys=chain,
            )

    async def _commit(self) -> None:
        self._sent = True
        if not self._steps:
            return
        partition = partition_of(self._session_id or self._first or "")
        answer = await self._ask(pb.VERB_TRANSACTION, value=pack(self._steps), partition=partition)
        self.results = _decode_results(answer)
