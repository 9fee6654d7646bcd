"""A store client whose links send when the test wants it, and hear what the test says."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from socketcluster_proto.v1 import store_pb2
from socketcluster_store_client.client import StoreClient
from socketcluster_store_client.link import StoreLink
from socketcluster_store_client.messages import Operation, Result, decode_operations, encode_operations, encode_results
from socketcluster_store_client.reach import StoreReach
from socketcluster_store_client.streams.dialing import GrpcDialer

SECRET = "a secret of the tests"


def make_client(
    timeout: float = 10.0,
    on_session_destroyed: Callable[[str], None] = lambda _id: None,
    on_session_over: Callable[[str], None] = lambda _id: None,
    beside: StoreReach | None = None,
) -> StoreClient:
    """Return a client that links to no store by itself."""
    return StoreClient(
        ["somewhere:1"],
        worker_id="worker01",
        app_name="socketcluster",
        secret=SECRET,
        timeout=timeout,
        beside=beside,
        on_session_message=lambda *_: None,
        on_session_destroyed=on_session_destroyed,
        on_session_over=on_session_over,
        on_channel_message=lambda *_: None,
    )


class HandLink(StoreLink):
    """A link whose stream is the test's."""

    def __init__(self, client: StoreClient, name: str = "a:1") -> None:
        super().__init__(name, client._opening, client, GrpcDialer(SECRET, None))
        self._client = client

    def write(self, count: int = 1_000_000) -> list[Operation]:
        """Send at most so many of the operations that wait; return what the store reads."""
        taken = [self._outbox.popitem(last=False)[1] for _ in range(min(count, len(self._outbox)))]
        return decode_operations(encode_operations(taken))

    def announce(self, partition: int, epoch: int | None) -> None:
        """Have the store own that partition alone; ``None``: it owns none."""
        owned = [] if epoch is None else [store_pb2.Ownership(partition=partition, epoch=epoch)]
        announcement = store_pb2.Announcement(store_id=self.address, partitions=owned)
        self._client.on_reply(self, store_pb2.LinkReply(announcement=announcement))

    def answer(self, results: Iterable[Result]) -> None:
        """Have the store send results."""
        self._client.on_reply(self, store_pb2.LinkReply(results=encode_results(list(results))))

    def reply(self, reply: Any) -> None:
        """Have the store send the bytes of a reply."""
        self._client.on_reply(self, store_pb2.LinkReply.FromString(reply))

    restarting = False
    """Is the test to end its stream?"""

    def restart(self) -> None:
        self.restarting = True

    def break_(self) -> None:
        """Have the stream break, with what waits for it."""
        self.restarting = False
        self._outbox.clear()
        self._client.on_broken(self)
