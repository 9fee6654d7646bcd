"""What an answer costs does not grow with how many wait: counted, not timed."""

from __future__ import annotations

import asyncio
from typing import Any

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.links import WorkerLink, pack_event
from socketcluster_store_client.messages import Result, decode_results

MANY = 1000


class Results(list[Result]):
    """Results that count how many are copied into another list."""

    copied = 0

    def __add__(self, other: Any) -> Any:
        Results.copied += len(self) + len(other)
        return Results(super().__add__(other))


async def test_answers_between_events_are_put_together_once() -> None:
    link = WorkerLink("worker", "incarnation", 1 << 20)
    event = pack_event(store_pb2.Event(channel_message=store_pb2.ChannelMessage(channel="c")))
    for number in range(MANY):
        link.answer(Results([Result(number)]))
        link.tell(event)
    Results.copied = 0
    replies: list[bytes] = []

    async def write(reply: bytes) -> None:
        replies.append(reply)
        link.close(*closing)

    closing: Any = (None, "")
    writing = asyncio.create_task(link.write(write))
    await link.closing
    writing.cancel()
    await asyncio.wait({writing})
    reply = store_pb2.LinkReply.FromString(replies[0])
    assert [result.id for result in decode_results(reply.results)] == list(range(MANY))
    assert len(reply.events) == MANY
    assert Results.copied == 0
