"""Which JSON the packets of Socket.IO may hold: how deep, which numbers, which text."""

from __future__ import annotations

import json

import pytest
from support.clients.packets import receive, refuse

from socketcluster_wire import socketio
from socketcluster_wire.errors import MalformedPacketError
from socketcluster_wire.socketio import Decoder, Packet, PacketType

EVENT = PacketType.EVENT
PLACEHOLDER = '{"_placeholder":true,"num":%d}'


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"b":'])
@pytest.mark.parametrize("frame", ['2["a",%s', "31[%s", '0{"a":%s', '4{"a":%s', f'51-["a",{PLACEHOLDER % 0},%s'])
def test_nesting_too_deep_is_malformed(frame: str, opening: str) -> None:
    refuse(frame % (opening * 200_000))


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize(
    ("frame", "around"),
    [('2["a",%s]', 1), ('21["\\ud83d",%s]', 1), ("31[%s]", 1), ('0{"a":%s}', 1), ('4{"message":"m","data":%s}', 1)],
)
def test_nesting_has_a_limit_that_is_told_exactly(frame: str, around: int, opening: str, closing: str) -> None:
    for depth in (127, 128):
        inner = depth - around
        assert receive(frame % (opening * inner + "1" + closing * inner))
    for depth in (129, 200, 500):
        inner = depth - around
        text = frame % (opening * inner + "1" + closing * inner)
        assert refuse(text) == "JSON nested deeper than 128"
        assert socketio.short_event(text) is None


def test_many_brackets_side_by_side_or_in_a_text_are_no_nesting() -> None:
    many = [[{}, {"a": "[{" * 500}]] * 500
    assert receive("2" + json.dumps(["hi", many])).data == ["hi", many]


@pytest.mark.parametrize("depth", [100, 120, 500, 2000, 10_000])
def test_attachments_are_found_as_deep_as_json_is_read(depth: int) -> None:
    text = f'51-["a",{"[" * depth}{PLACEHOLDER % 0}{"]" * depth}]'
    decoder = Decoder()
    try:
        assert decoder.receive(text) is None
    except MalformedPacketError:
        assert depth > 126
        return
    packet = decoder.receive(b"x")
    assert packet is not None
    found = packet.data[1]
    for _ in range(depth):
        (found,) = found
    assert found == b"x"


@pytest.mark.parametrize("digits", [20, 400, 5000, 1_000_000])
def test_a_huge_integer_is_itself_or_malformed(digits: int) -> None:
    text = f'2["a",{"9" * digits}]'
    if digits > 4300:  # Python's own limit: reading it takes quadratic time
        refuse(text)
        return
    packet = receive(text)
    assert packet.data == ["a", 10**digits - 1]
    assert socketio.encode(packet) == (text.encode(), [])


def test_half_a_surrogate_pair_becomes_a_replacement_character() -> None:
    assert receive(r'2["\ud83d","\ud83d\ude00",{"\ude00":1}]') == Packet(EVENT, "/", ["\ufffd", "😀", {"\ufffd": 1}])


@pytest.mark.parametrize(
    "text", ['2["\ud83d"]', '2/a,["\ud83d"]', "0/\ud83d,", '0/a\ud83d,{"a":1}', '51-["\ud83d"]', "2\ud83d"]
)
def test_what_no_utf8_has_is_refused(text: str) -> None:
    refuse(text)
