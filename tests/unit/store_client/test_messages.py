"""Operations as MessagePack."""

from __future__ import annotations

import enum

import pytest
from support.store_client.links import HandLink, make_client

from socketcluster_proto.v1 import store_pb2
from socketcluster_store_client.messages import Operation, decode_operations, encode_operations
from socketcluster_store_client.partitioning import partition_of


class Text(str):
    """As template engines and numeric libraries have them."""

    __slots__ = ()

    def __str__(self) -> str:
        return "something else"


class Data(bytes):
    __slots__ = ()


class Name(enum.StrEnum):
    NEWS = "news"


async def test_texts_of_a_class_of_their_own_can_be_sent() -> None:
    """One that could not would break the link for all others, again and again until it is overdue."""
    client = make_client()
    link = HandLink(client)
    client.call(store_pb2.VERB_CHANNEL_PUBLISH, name=Text("news"), value=Data(b"\xc3"), message_id=Text("id"))
    client.subscribe(Name.NEWS)
    client.subscribe(Text("news"))
    client.attach(Text("news"))
    client.call(store_pb2.VERB_GET, session_id=Text("news"), keys=(Text("key"), Name.NEWS))
    for epoch in (3, 4):  # what is told again, too
        link.announce(partition_of("news"), epoch)
        operations = link.write()
        assert {each.name or each.session_id for each in operations} == {"news"}
        assert {(each.value, each.message_id) for each in operations} == {(b"", ""), (b"\xc3", "id")}
        assert operations[-1].keys == ("key", "news")


def test_nothing_else_can_be_sent() -> None:
    with pytest.raises(TypeError, match="an operation has no object"):
        encode_operations([Operation(1, name=object())])  # type: ignore[arg-type]
    assert decode_operations(encode_operations([Operation(1)])) == [Operation(1)]
