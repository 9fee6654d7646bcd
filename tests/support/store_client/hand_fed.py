"""A store client whose links carry nothing but what the test gives them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from socketcluster_proto.v1 import store_pb2
from socketcluster_store_client.channel_feed import Gap
from socketcluster_store_client.client import StoreClient
from socketcluster_store_client.link import StoreLink
from socketcluster_store_client.messages import Error, Operation, Result, encode_results
from socketcluster_store_client.streams.dialing import GrpcDialer

SECRET = "a secret of the tests"
encode = msgspec.msgpack.encode


class FedLink(StoreLink):
    """A link whose stream is the test's."""

    restarting = False
    """Is the test to end its stream?"""

    def restart(self) -> None:
        self.restarting = True


class HandFed:
    """The client, and what it told its owner."""

    def __init__(self, timeout: float = 10.0) -> None:
        self.messages: list[tuple[Any, int, int]] = []
        self.gaps: list[Gap] = []
        self.destroyed: list[str] = []
        self.over: Callable[[str], None] = lambda _session_id: None
        """What is told of sessions that are over."""
        self.client = StoreClient(
            ["somewhere:1"],
            worker_id="worker01",
            app_name="socketcluster",
            secret=SECRET,
            timeout=timeout,
            on_session_message=lambda *_: None,
            on_session_destroyed=self.destroyed.append,
            on_session_over=lambda session_id: self.over(session_id),
            on_channel_message=lambda _channel, value, offset, epoch: self.messages.append(
                (msgspec.msgpack.decode(value), offset, epoch)
            ),
            on_channel_gap=self.gaps.append,
        )

    def link(self) -> FedLink:
        """Return a link of the client's, which is told of nothing yet."""
        return FedLink("somewhere:1", store_pb2.LinkOpen(), self.client, GrpcDialer(SECRET, None))

    def announce(self, link: StoreLink, partition: int, epoch: int) -> None:
        """Have the store behind a link own one partition, or none (0)."""
        partitions = [store_pb2.Ownership(partition=partition, epoch=epoch)] if epoch else []
        announcement = store_pb2.Announcement(store_id="hand-fed", partitions=partitions)
        self.client.on_reply(link, store_pb2.LinkReply(announcement=announcement))

    def answer(self, link: StoreLink, *results: Result) -> None:
        """Have a store answer."""
        self.client.on_reply(link, store_pb2.LinkReply(results=encode_results(list(results))))

    def tell(self, link: StoreLink, channel: str, value: Any, offset: int, epoch: int) -> None:
        """Have a store tell of a message."""
        message = store_pb2.ChannelMessage(channel=channel, value=encode(value), offset=offset, epoch=epoch)
        self.client.on_reply(link, store_pb2.LinkReply(events=[store_pb2.Event(channel_message=message)]))

    def results(self, operations: Sequence[Operation], answer: Callable[[Operation], Any]) -> list[Result]:
        """Return the results of operations; a refusal is an ``Error``."""
        answers = [(operation.id, answer(operation)) for operation in operations]
        return [
            Result(operation_id, b"", made) if isinstance(made, Error) else Result(operation_id, encode(made))
            for operation_id, made in answers
        ]

    async def serve(self, link: StoreLink, answer: Callable[[Operation], Any]) -> list[Operation]:
        """Answer what waits on a link, and what follows from that."""
        served: list[Operation] = []
        for _ in range(5):
            operations = sent(link)
            served += operations
            self.answer(link, *self.results(operations, answer))
            await asyncio.sleep(0)
        return served


def sent(link: StoreLink) -> list[Operation]:
    """Have a link send what waits."""
    return link._gather()
