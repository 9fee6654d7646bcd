"""Which emits to sessions a worker has heard of: one may come again after a takeover, or late from a former owner."""

from __future__ import annotations

from collections import OrderedDict

from socketcluster_proto.v1 import store_pb2

MAX_HEARD = 100_000
"""Emits that are remembered: of all workers, the last ones heard."""


class HeardEmits:
    """The last emits that were heard."""

    def __init__(self) -> None:
        self._heard: OrderedDict[tuple[str, int], None] = OrderedDict()  # by incarnation and id, in order

    def __len__(self) -> int:
        return len(self._heard)

    def is_new(self, emit: store_pb2.SessionMessage) -> bool:
        """Was an emit not heard of before? It is from now on."""
        key = emit.origin, emit.id
        if key in self._heard:
            return False
        self._heard[key] = None
        if len(self._heard) > MAX_HEARD:
            self._heard.popitem(last=False)
        return True
