"""What workers tell each other of the broadcasts of a namespace, through the stores."""

from __future__ import annotations

from typing import Any

import msgspec

from socketcluster_store_client import packing
from socketcluster_worker.api.data.values import pack, unpack
from socketcluster_worker.api.sockets.emission import Emission
from socketcluster_worker.errors import NotSerializableError


class BroadcastMessage(msgspec.Struct, array_like=True, frozen=True):
    """A broadcast on its way."""

    origin: str
    """The worker's process that made it."""
    rooms: list[str]
    """Empty: everybody."""
    excepted: list[str]
    is_volatile: bool
    event: str | None
    """``None``: the socket whose id is the room was recovered elsewhere."""
    args: msgspec.Raw
    """MessagePack; JSON in it, where the arguments have such a form."""
    number: int
    """Of its process's broadcasts in the namespace."""
    numbers: dict[str, int] | None = None
    """Of a broadcast that goes by the store as some workers are not linked: which number it has for each of these."""
    namespace: str | None = None
    """Of such a one: all go by one channel, since their numbers are in one order."""


def write(told: BroadcastMessage) -> bytes:
    """Return it as it is published.

    Raises:
        NotSerializableError: a name in it is not Unicode.
    """
    try:
        return packing.pack(told)
    except (TypeError, ValueError) as error:
        raise NotSerializableError(str(error)) from None


read = packing.decoder(BroadcastMessage).decode
"""Reads what ``write`` wrote."""


def pack_args(args: tuple[Any, ...], json: bytes | None) -> msgspec.Raw:
    """Return arguments for ``BroadcastMessage``, by their JSON if they have one.

    Raises:
        NotSerializableError: one has no such form.
    """
    return msgspec.Raw(pack(args) if json is None else packing.pack_json(json))


def emission_of(event: str, args: bytes, offset: str | None = None) -> Emission:
    """Return what clients are sent, of arguments as ``BroadcastMessage`` has them."""
    json = packing.json_of(args)
    return Emission(event, tuple(unpack(args)) if json is None else None, offset, json=json)
