"""Where the workers of the cluster serve HTTP, as the stores tell it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable

from cachetools import TTLCache

from socketcluster_proto.v1 import store_pb2

KEPT = 10.0
"""Seconds for which a worker is remembered that no store names any more: a store that was restarted names those alone
that have linked to it again."""
MAX_LEFT = 10_000
"""Of such workers, how many at most."""


class WorkerDirectory:
    """The directories of all stores that this worker is linked to, as one."""

    def __init__(self) -> None:
        self.on_change: Callable[[], None] = lambda: None
        """Called when workers are others, or elsewhere."""
        self._told: dict[Hashable, dict[str, tuple[str, int]]] = {}  # by link, the one that spoke last at the end
        self._mesh: dict[Hashable, dict[str, tuple[str, int]]] = {}  # likewise
        self._left: TTLCache[str, tuple[str, int]] = TTLCache(
            MAX_LEFT, KEPT, timer=lambda: asyncio.get_running_loop().time()
        )

    def told(self, link: Hashable, directory: store_pb2.Directory) -> None:
        """Take what the store behind a link says."""
        before = self._told.pop(link, {})
        self._told[link] = {worker.worker_id: (worker.http_host, worker.http_port) for worker in directory.workers}
        self._mesh.pop(link, None)
        self._mesh[link] = {
            worker.worker_id: (worker.http_host, worker.mesh_port) for worker in directory.workers if worker.mesh_port
        }
        self._note_left(before)
        self.on_change()

    def broken(self, link: Hashable) -> None:
        """Forget, after a while, what was heard on a link."""
        self._mesh.pop(link, None)
        self._note_left(self._told.pop(link, {}))
        self.on_change()

    def find(self, worker_id: str) -> tuple[str, int] | None:
        """Return the host and port of a worker, who need not be there any more; ``None``: it is not known."""
        return self._named(worker_id) or self._left.get(worker_id)

    @property
    def mesh(self) -> dict[str, tuple[str, int]]:
        """Where the workers are to be linked to, by their ids."""
        found: dict[str, tuple[str, int]] = {}
        for workers in self._mesh.values():
            found |= workers
        return found

    def _named(self, worker_id: str) -> tuple[str, int] | None:
        for workers in reversed(self._told.values()):
            if (address := workers.get(worker_id)) is not None:
                return address
        return None

    def _note_left(self, before: dict[str, tuple[str, int]]) -> None:
        for worker_id, address in before.items():
            if self._named(worker_id) is None:
                self._left[worker_id] = address
