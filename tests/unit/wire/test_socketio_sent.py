"""What is written by Socket.IO's revision 5: every packet comes back, and its bytes travel as attachments."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from socketcluster_wire import socketio
from socketcluster_wire.socketio import MAX_ACK_ID, Decoder, Packet, PacketType

PLACEHOLDER = '{"_placeholder":true,"num":%d}'

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)
with_binary = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.binary(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)
namespaces = st.just("/") | st.text(st.characters(exclude_characters=",?", exclude_categories=["Cs"])).map("/".__add__)
ack_ids = st.integers(0, MAX_ACK_ID)
names = (st.text() | st.integers()).filter(lambda name: name not in socketio.RESERVED_EVENTS)
connects = st.none() | st.dictionaries(st.text(), json_values)
packets = st.one_of(
    st.builds(
        lambda namespace, name, args, ack_id: socketio.event(namespace, [name, *args], ack_id),
        namespaces,
        names,
        st.lists(with_binary),
        st.none() | ack_ids,
    ),
    st.builds(socketio.ack, namespaces, ack_ids, st.lists(with_binary)),
    st.builds(lambda namespace, data: Packet(PacketType.CONNECT, namespace, data), namespaces, connects),
    st.builds(socketio.connect, namespaces, st.text(), st.none() | st.text()),
    st.builds(socketio.connect_error, namespaces, st.text(), json_values),
    st.builds(socketio.disconnect, namespaces),
)


@given(packets)
@example(socketio.event("/", ["a", {"b": [b"1", {"c": b"2"}]}, b"3"], 0))
def test_every_packet_comes_back(packet: Packet) -> None:
    before = copy.deepcopy(packet)
    text, attachments = socketio.encode(packet)
    assert packet == before  # what is sent to several clients is left as it is
    decoder = Decoder(max_attachments=100)
    messages: list[str | bytes] = [text.decode(), *attachments]
    got = [decoder.receive(message) for message in messages]
    assert got == [None] * len(attachments) + [packet]


def test_attachments_are_numbered_in_their_order() -> None:
    text, attachments = socketio.encode(socketio.event("/", ["a", {"b": [b"0", [b"1"]], "c": b"2"}, b"3"]))
    expected = f'54-["a",{{"b":[{PLACEHOLDER % 0},[{PLACEHOLDER % 1}]],"c":{PLACEHOLDER % 2}}},{PLACEHOLDER % 3}]'
    assert text.decode() == expected
    assert attachments == [b"0", b"1", b"2", b"3"]


@pytest.mark.parametrize("binary", [b"abc", bytearray(b"abc"), memoryview(b"abc"), memoryview(b"a-b-c")[::2]])
def test_every_kind_of_bytes_becomes_an_attachment(binary: bytes | bytearray | memoryview) -> None:
    for args in (["a", binary], ["a", [binary]], ["a", (binary,)], ["a", {"b": binary}], ("a", ({"b": (binary,)},))):
        text, attachments = socketio.encode(socketio.event("/", args))
        assert text.startswith(b'51-["a",')
        assert text.count(b'{"_placeholder":true,"num":0}') == 1
        assert attachments == [b"abc"]
        assert type(attachments[0]) is bytes


def test_an_attachment_is_a_copy_of_what_may_change() -> None:
    buffer = bytearray(b"abc")
    _, attachments = socketio.encode(socketio.ack("/", 1, [buffer]))
    buffer[0] = 0
    assert attachments == [b"abc"]


@dataclass
class Picture:
    name: str
    data: bytes


class Sound(msgspec.Struct):
    data: bytearray


def test_bytes_in_objects_become_attachments_too() -> None:
    text, attachments = socketio.encode(socketio.event("/", ["a", Picture("p", b"1"), {3: Sound(bytearray(b"2"))}]))
    expected = f'52-["a",{{"name":"p","data":{PLACEHOLDER % 0}}},{{"3":{{"data":{PLACEHOLDER % 1}}}}}]'
    assert text.decode() == expected
    assert attachments == [b"1", b"2"]


def test_objects_without_bytes_are_written_as_json() -> None:
    packet = socketio.event("/a", ["a", PacketType.ACK, frozenset({1}), {1: (2, None)}, math.inf], 7)
    assert socketio.encode(packet) == (b'2/a,7["a",3,[1],{"1":[2,null]},null]', [])


def holding_itself() -> list[Any]:
    args: list[Any] = ["a"]
    args.append(args)
    return args


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (["a", object()], TypeError),
        (["a", {(1, 2): 3}], TypeError),
        (["a", b"", object()], TypeError),
        (["a", "\ud800"], UnicodeEncodeError),
        (["a", b"", "\ud800"], UnicodeEncodeError),
        (holding_itself(), RecursionError),
        ([*holding_itself(), b""], RecursionError),
    ],
)
def test_what_cannot_be_written_is_told(args: list[Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        socketio.encode(socketio.event("/", args))


@pytest.mark.parametrize("namespace", ["/", "/chat"])
@pytest.mark.parametrize("offset", [None, "7-8"])
@pytest.mark.parametrize("args", [[], ["é"], [1, {"a": [None]}]])
def test_an_event_of_known_json_is_written_as_any(namespace: str, offset: str | None, args: list[Any]) -> None:
    text, attachments = socketio.encode(socketio.event(namespace, ["news", *args, *([offset] if offset else [])]))
    assert attachments == []
    assert socketio.encode_json_event(namespace, "news", msgspec.json.encode(args), offset) == text


@pytest.mark.parametrize("namespace", ["/", "/chat"])
@pytest.mark.parametrize("args", [[], ["é"], [1, {"a": [None]}]])
def test_an_acknowledgement_of_a_known_namespace_is_written_as_any(namespace: str, args: list[Any]) -> None:
    text, attachments = socketio.encode(Packet(PacketType.ACK, namespace, args, 7))
    assert attachments == []
    assert socketio.encode_ack(socketio.ack_prefix(namespace), 7, args) == text


def test_an_acknowledgement_with_bytes_is_left_to_the_general_way() -> None:
    assert socketio.encode_ack(socketio.ack_prefix("/"), 7, [{"a": b"x"}]) is None
