"""Which emits a worker has heard: one that comes again is none, and what is remembered of them is bounded."""

from __future__ import annotations

import pytest
from support.store_client.links import HandLink, make_client

from socketcluster_proto.v1 import store_pb2
from socketcluster_store_client import held_sessions


async def test_what_is_remembered_is_bounded_and_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_sessions, "MAX_HEARD", 4)
    client = make_client()
    heard: list[str] = []
    client._on_session_message = lambda _session_id, name, _value: heard.append(name)
    link = HandLink(client)

    def emit(number: int) -> None:
        message = store_pb2.SessionMessage(session_id="s", name=str(number), origin="worker02/1", id=number)
        client.on_reply(link, store_pb2.LinkReply(events=[store_pb2.Event(session_message=message)]))

    for number in (3, 1, 2, *range(4, 11)):  # a former owner's come late
        emit(number)
    assert len(client._emits) == 4
    for number in range(7, 11):
        emit(number)
    assert heard == ["3", "1", "2", *map(str, range(4, 11))]
    await client.close()
