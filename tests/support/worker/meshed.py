"""Workers that only broadcast, linked to each other by real connections."""

from __future__ import annotations

from socketcluster_runtime.tls.rpc_tls import RpcTls
from socketcluster_worker.mesh.mesh import Mesh
from support.worker.running import until

KEY = b"k" * 32


class Worker:
    """A worker that only broadcasts."""

    def __init__(self, worker_id: str, tls: RpcTls | None = None) -> None:
        self.mesh = Mesh(worker_id, "app", KEY, tls)
        self.heard: list[bytes] = []
        self.published: list[tuple[bytes, dict[str, int]]] = []
        self.mesh.serve("/", self.heard.append, lambda packed, numbers: self.published.append((packed, numbers)))
        self.address = "127.0.0.1", 0

    def listen(self) -> None:
        """Listen."""
        self.address = "127.0.0.1", self.mesh.listen("127.0.0.1:0")
        self.mesh.listens("/")

    def broadcast(self, packed: bytes, *rooms: str) -> None:
        """Broadcast to rooms, or to everybody."""
        if workers := self.mesh.find("/", rooms or None):
            self.mesh.send(workers, "/", packed)

    def is_linked(self, other: Worker) -> bool:
        """Is it connected to another one, whose rooms it knows?"""
        found = self.mesh.neighbours.get(other.mesh.worker_id)
        return found is not None and found.stream is not None and not self.mesh._others.unknown & found.bit


class Cluster:
    """Workers, and what the stores know of them."""

    def __init__(self) -> None:
        self.workers: list[Worker] = []

    async def add(self, worker_id: str, tls: RpcTls | None = None) -> Worker:
        """Start a worker."""
        worker = Worker(worker_id, tls)
        worker.listen()
        self.workers.append(worker)
        return worker

    def tell(self, *workers: Worker) -> None:
        """Have these, or all, know of all."""
        for worker in workers or self.workers:
            worker.mesh.know({each.mesh.worker_id: each.address for each in self.workers})

    async def linked(self) -> None:
        """Wait until each is linked to all others."""
        await until(lambda: all(one.is_linked(each) for one in self.workers for each in self.workers if one != each))

    async def close(self) -> None:
        """End all."""
        for worker in self.workers:
            await worker.mesh.close()
