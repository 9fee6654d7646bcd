"""Engine.IO's revision 4, as its protocol document and its JavaScript parser have it."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from socketcluster_wire import engineio
from socketcluster_wire.engineio import ErrorCode, Open, Packet, PacketType
from socketcluster_wire.errors import MalformedPacketError

kinds = st.sampled_from(PacketType)
# What is text between two separators; a message that is JSON holds none, because JSON escapes control characters.
texts = st.text().filter(lambda text: engineio.SEPARATOR not in text)
packets = st.one_of(
    st.builds(Packet, kinds, texts),
    st.builds(Packet, st.just(PacketType.MESSAGE), st.binary()),
)


def test_the_types_have_the_digits_of_the_protocol() -> None:
    assert [kind.name for kind in sorted(PacketType)] == ["OPEN", "CLOSE", "PING", "PONG", "MESSAGE", "UPGRADE", "NOOP"]
    assert [str(kind) for kind in sorted(PacketType)] == list("0123456")
    assert engineio.REVISION == "4"


@pytest.mark.parametrize(
    ("text", "packet"),
    [
        ("1", Packet(PacketType.CLOSE)),
        ("2", Packet(PacketType.PING)),
        ("2probe", Packet(PacketType.PING, "probe")),
        ("3", Packet(PacketType.PONG)),
        ("3probe", Packet(PacketType.PONG, "probe")),
        ("4", Packet(PacketType.MESSAGE)),
        ("4hello", Packet(PacketType.MESSAGE, "hello")),
        ("4€", Packet(PacketType.MESSAGE, "€")),
        ("44", Packet(PacketType.MESSAGE, "4")),
        ("4bAQIDBA==", Packet(PacketType.MESSAGE, "bAQIDBA==")),
        ("5", Packet(PacketType.UPGRADE)),
        ("6", Packet(PacketType.NOOP)),
        ("bAQIDBA==", Packet(PacketType.MESSAGE, b"\x01\x02\x03\x04")),  # forceBase64 sends it over WebSocket
        ("b", Packet(PacketType.MESSAGE, b"")),
    ],
)
def test_packets_of_the_protocol_are_read_and_written(text: str, packet: Packet) -> None:
    assert engineio.decode_packet(text) == packet
    assert engineio.encode_packet(packet) == text
    assert engineio.decode_payload(text.encode()) == [packet]


def test_the_payloads_of_the_protocol_are_read_and_written() -> None:
    both = [Packet(PacketType.MESSAGE, "hello"), Packet(PacketType.PING), Packet(PacketType.MESSAGE, "world")]
    assert engineio.encode_payload(both) == b"4hello\x1e2\x1e4world"
    assert engineio.decode_payload(b"4hello\x1e2\x1e4world") == both
    mixed = [Packet(PacketType.MESSAGE, "hello"), Packet(PacketType.MESSAGE, b"\x01\x02\x03\x04")]
    assert engineio.encode_payload(mixed) == b"4hello\x1ebAQIDBA=="
    assert engineio.decode_payload(b"4hello\x1ebAQIDBA==") == mixed


@given(packets)
def test_every_packet_comes_back(packet: Packet) -> None:
    assert engineio.decode_packet(engineio.encode_packet(packet)) == packet


@given(st.lists(packets, min_size=1))
def test_every_payload_comes_back(several: list[Packet]) -> None:
    assert engineio.decode_payload(engineio.encode_payload(several)) == several


def test_the_type_of_a_packet_that_was_read_is_one_of_the_enum() -> None:
    assert engineio.decode_packet("2probe").type is PacketType.PING


@pytest.mark.parametrize("text", ["", "7", "9x", "-1", " 4", "\x1e", "hello", "B", "\u0664", "\uff14", "\ud800", "\0"])
def test_an_unknown_type_is_refused(text: str) -> None:
    with pytest.raises(MalformedPacketError, match=r"unknown packet type '.*'$") as caught:
        engineio.decode_packet(text)
    str(caught.value).encode()  # it goes into a close frame


@pytest.mark.parametrize(
    "data", ["A", "AA", "AAA", "A===", "AA==AA==", "AA=", "AAA=\n", "A A=", "AA-_", "ÄÄÄÄ", "\ud800", "=AAA"]
)
def test_binary_data_is_base64(data: str) -> None:
    with pytest.raises(MalformedPacketError, match=r"^binary data is not base64$"):
        engineio.decode_packet("b" + data)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "unknown packet type ''"),
        (b"\x1e", "unknown packet type ''"),
        (b"4a\x1e", "unknown packet type ''"),
        (b"\x1e4a", "unknown packet type ''"),
        (b"4a\x1e\x1e4b", "unknown packet type ''"),
        (b"4a\x1e9", "unknown packet type '9'"),
        (b"4a\x1ebA", "binary data is not base64"),
        (b"4\xff", "the payload is not UTF-8"),
        (b"4a\x1e4\xe2\x82", "the payload is not UTF-8"),
        (b"5:4abcd", None),  # revision 3: an upgrade packet to revision 4, as to the reference parser
    ],
)
def test_a_payload_is_packets_and_separators(body: bytes, problem: str | None) -> None:
    if problem is None:
        assert engineio.decode_payload(body) == [Packet(PacketType.UPGRADE, ":4abcd")]
        return
    with pytest.raises(MalformedPacketError) as caught:
        engineio.decode_payload(body)
    assert str(caught.value) == problem


@given(st.text() | st.text(st.characters(categories=["Cs", "Lu", "Nd"])) | st.text().map("b".__add__))
@example("b\ud800")
def test_whatever_text_arrives_is_a_packet_or_malformed(text: str) -> None:
    try:
        packet = engineio.decode_packet(text)
    except MalformedPacketError:
        return
    if isinstance(packet.data, bytes):
        assert packet.type is PacketType.MESSAGE
        assert text.startswith("b")
    else:
        assert packet.type + packet.data == text


@given(st.binary() | st.lists(st.sampled_from([b"4a", b"b", b"AA==", b"\x1e", b"2probe", b"\xff", b"8"])).map(b"".join))
def test_whatever_body_arrives_is_packets_or_malformed(body: bytes) -> None:
    try:
        several = engineio.decode_payload(body)
    except MalformedPacketError:
        return
    assert len(several) == body.count(b"\x1e") + 1
    assert all(isinstance(packet.type, PacketType) for packet in several)


def test_the_opening_packet_carries_what_a_client_needs() -> None:
    opening = Open("an-id", ["websocket"], ping_interval=25000, ping_timeout=20000, max_payload=1000000).packet()
    assert opening.type is PacketType.OPEN
    assert json.loads(opening.data) == {
        "sid": "an-id",
        "upgrades": ["websocket"],
        "pingInterval": 25000,
        "pingTimeout": 20000,
        "maxPayload": 1000000,
    }
    text = engineio.encode_packet(opening)
    assert text.startswith('0{"')
    assert engineio.decode_packet(text) == opening


def test_the_errors_have_the_codes_of_the_reference_server() -> None:
    codes = {name: value for name, value in vars(ErrorCode).items() if name.isupper()}
    assert codes == {
        "UNKNOWN_TRANSPORT": (0, "Transport unknown"),
        "UNKNOWN_SID": (1, "Session ID unknown"),
        "BAD_HANDSHAKE_METHOD": (2, "Bad handshake method"),
        "BAD_REQUEST": (3, "Bad request"),
        "FORBIDDEN": (4, "Forbidden"),
        "UNSUPPORTED_VERSION": (5, "Unsupported protocol version"),
    }
