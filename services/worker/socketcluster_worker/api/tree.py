"""The nData vocabulary: values on key chains, kept by the store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from socketcluster_proto.v1 import store_pb2 as pb
from socketcluster_runtime.store_client import StoreClient
from socketcluster_worker.errors import NotSerializableError

Keys: TypeAlias = str | int | Sequence[str | int]
"""A key, or a chain of keys from the outermost to the innermost; an integer is an index into a list."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


def pack(value: Any) -> bytes:
    """Return a value as MessagePack.

    Raises:
        NotSerializableError: it has no such form.
    """
    try:
        return _encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise NotSerializableError(str(error)) from None


def unpack(data: bytes) -> Any:
    """Return the value of MessagePack data."""
    return _decode(data)


class Tree:
    """A tree of JSON-like values (bytes too), each addressed by a key or a chain of keys.

    Every operation is awaitable and raises a subclass of ``socketcluster_runtime.errors.LinkError``:
    ``StoreUnavailableError`` after ``store_timeout``, ``WrongTypeError`` if a key chain leads through a scalar,
    ``TooLargeError``, ``InvalidOperationError``.
    """

    def __init__(self, client: StoreClient, session_id: str = "") -> None:
        self._client = client
        self._session_id = session_id

    async def get(self, keys: Keys) -> Any:
        """Return the value at a key chain, ``None`` if there is none."""
        return _decode(await self._call(pb.VERB_GET, keys))

    async def set(self, keys: Keys, value: Any) -> None:
        """Put a value at a key chain; maps that are missing on the way are made."""
        await self._call(pb.VERB_SET, keys, pack(value))

    async def remove(self, keys: Keys) -> bool:
        """Remove the value at a key chain; return whether there was one."""
        return bool(_decode(await self._call(pb.VERB_REMOVE, keys)))

    async def exists(self, keys: Keys) -> bool:
        """Return whether there is a value at a key chain."""
        return bool(_decode(await self._call(pb.VERB_EXISTS, keys)))

    def _call(self, verb: pb.Verb.ValueType, keys: Keys, value: bytes = b"") -> asyncio.Future[bytes]:
        chain = [str(keys)] if isinstance(keys, str | int) else [str(key) for key in keys]
        return self._client.call(verb, session_id=self._session_id, keys=chain, value=value)


class SessionTree(Tree):
    """The tree of one session."""

    async def get_all(self) -> dict[str, Any]:
        """Return the whole tree; keys that begin with a NUL are the worker's own, and left out."""
        found: dict[str, Any] = _decode(await self._call(pb.VERB_GET_ALL, ()))
        return {key: value for key, value in found.items() if not key.startswith("\0")}

    async def remove_all(self) -> None:
        """Empty the tree."""
        await self._call(pb.VERB_REMOVE_ALL, ())
