"""RFC 6455, sections 5 to 8, as far as they concern what a server reads.

The peer is the client side of the ``websockets`` library.
"""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeAlias

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode

from socketcluster_wire.close_codes import CloseCode
from socketcluster_wire.websocket import (
    CloseReceived,
    Event,
    FrameReader,
    Ping,
    Pong,
    Violation,
)

LIMIT = 1 << 20
MASK = b"\x37\xfa\x21\x3d"  # of the RFC's examples
Sent: TypeAlias = tuple[bytes, list[Event]]
"""What a client sends, and the events that it makes."""


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    return Frame(Opcode(opcode), payload, fin).serialize(mask=True)


def text(message: str) -> bytes:
    return frame(Opcode.TEXT, message.encode())


def close(code: int, reason: str = "") -> bytes:
    return frame(Opcode.CLOSE, Close(code, reason).serialize())


def zero_masked(first: int, length: bytes, payload: bytes = b"") -> bytes:
    """A frame that no client of the library's would send; ``length`` is everything from the second byte to the mask."""
    return bytes((first,)) + length + bytes(4) + payload


def read(*chunks: bytes, limit: int = LIMIT) -> list[Event]:
    reader = FrameReader(limit)
    return [event for chunk in chunks for event in reader.receive(chunk)]


def bytewise(data: bytes, limit: int = LIMIT) -> list[Event]:
    return read(*(data[at : at + 1] for at in range(len(data))), limit=limit)


def violation(data: bytes, limit: int = LIMIT) -> Violation:
    """Return the violation that must be all that comes of ``data``, however it arrives."""
    (event,) = read(data, limit=limit)
    assert isinstance(event, Violation)
    assert bytewise(data, limit) == [event]
    return event


# Section 5.2: the base framing.


def test_5_2_an_unfragmented_message_is_one_frame() -> None:
    assert read(text("Hello")) == ["Hello"]
    assert read(frame(Opcode.BINARY, b"\x00\xff")) == [b"\x00\xff"]


def test_5_7_the_examples_of_the_rfc() -> None:
    assert read(bytes.fromhex("818537fa213d7f9f4d5158")) == ["Hello"]
    assert read(bytes.fromhex("898537fa213d7f9f4d5158")) == [Ping(b"Hello")]


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65535, 65536, 70000])
def test_5_2_a_length_takes_seven_sixteen_or_sixty_four_bits(length: int) -> None:
    message = "x" * length
    data = text(message)
    assert read(data) == [message]
    assert read(data[:1], data[1:]) == [message]
    assert read(frame(Opcode.BINARY, message.encode())) == [message.encode()]


@pytest.mark.parametrize(
    "length",
    [
        b"\xfe" + struct.pack("!H", 0),
        b"\xfe" + struct.pack("!H", 125),
        b"\xff" + struct.pack("!Q", 0),
        b"\xff" + struct.pack("!Q", 125),
        b"\xff" + struct.pack("!Q", 126),
        b"\xff" + struct.pack("!Q", 65535),
    ],
)
@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
def test_5_2_a_length_is_in_its_shortest_form(opcode: int, length: bytes) -> None:
    refused = violation(zero_masked(0x80 | opcode, length))
    assert refused == Violation(CloseCode.PROTOCOL_ERROR, "length is not in its shortest form")


@pytest.mark.parametrize("length", [1 << 63, (1 << 64) - 1])
def test_5_2_the_most_significant_bit_of_a_length_is_zero(length: int) -> None:
    refused = violation(zero_masked(0x82, b"\xff" + struct.pack("!Q", length)))
    assert refused == Violation(CloseCode.PROTOCOL_ERROR, "length is negative")


@pytest.mark.parametrize("bits", range(1, 8))
@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY, Opcode.CLOSE, Opcode.PING, Opcode.PONG])
def test_5_2_reserved_bits_are_zero_without_an_extension(opcode: int, bits: int) -> None:
    refused = violation(zero_masked(0x80 | bits << 4 | opcode, b"\x80"))
    assert refused == Violation(CloseCode.PROTOCOL_ERROR, "reserved bits are set")


@pytest.mark.parametrize("fin", [0x00, 0x80])
@pytest.mark.parametrize("opcode", [0x3, 0x4, 0x5, 0x6, 0x7, 0xB, 0xC, 0xD, 0xE, 0xF])
def test_5_2_an_unknown_opcode_fails_the_connection(opcode: int, fin: int) -> None:
    refused = violation(zero_masked(fin | opcode, b"\x80"))
    assert refused == Violation(CloseCode.PROTOCOL_ERROR, f"opcode {opcode} is reserved")


# Section 5.3 and 5.1: masking.


@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY, Opcode.CLOSE, Opcode.PING, Opcode.PONG])
@pytest.mark.parametrize("length", [0, 1, 125])
def test_5_1_a_frame_of_a_client_is_masked(opcode: int, length: int) -> None:
    unmasked = Frame(Opcode(opcode), b"\x03" * length).serialize(mask=False)
    refused = Violation(CloseCode.PROTOCOL_ERROR, "frame is not masked")
    assert violation(unmasked) == refused
    assert violation(unmasked + MASK) == refused  # as long as if it were masked


@given(st.binary(max_size=200), st.binary(min_size=4, max_size=4))
@example(b"", bytes(4))
def test_5_3_any_mask_is_taken_off(payload: bytes, mask: bytes) -> None:
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    length = bytes((0x80 | len(payload),)) if len(payload) < 126 else b"\xfe" + struct.pack("!H", len(payload))
    assert read(b"\x82" + length + mask + masked) == [payload]


# Section 5.4: fragmentation.


def test_5_4_a_fragmented_message_is_put_together() -> None:
    start = frame(Opcode.TEXT, b"one ", fin=False)
    middle = frame(Opcode.CONT, b"two ", fin=False)
    end = frame(Opcode.CONT, b"three")
    assert read(start + middle + end) == ["one two three"]
    assert read(start, middle, end) == ["one two three"]
    assert read(frame(Opcode.BINARY, b"\xff", fin=False) + frame(Opcode.CONT, b"\x00")) == [b"\xff\x00"]


def test_5_4_fragments_may_be_empty() -> None:
    fragments = [frame(Opcode.TEXT, fin=False), *[frame(Opcode.CONT, fin=False)] * 1000, frame(Opcode.CONT)]
    assert read(*fragments) == [""]
    assert read(b"".join(fragments)) == [""]


def test_5_4_a_binary_message_is_bytes_whether_fragmented_or_not() -> None:
    for data in (frame(Opcode.BINARY, b"ab"), frame(Opcode.BINARY, b"a", fin=False) + frame(Opcode.CONT, b"b")):
        (message,) = read(data)
        assert type(message) is bytes


def test_5_4_a_message_after_a_fragmented_one_begins_anew() -> None:
    fragmented = frame(Opcode.TEXT, b"a", fin=False) + frame(Opcode.CONT, b"b")
    assert read(fragmented, text("c"), fragmented, frame(Opcode.BINARY, b"d")) == ["ab", "c", "ab", b"d"]


def test_5_4_control_frames_come_between_fragments() -> None:
    data = (
        frame(Opcode.TEXT, b"a", fin=False)
        + frame(Opcode.PING, b"ping")
        + frame(Opcode.CONT, b"b", fin=False)
        + frame(Opcode.PONG, b"pong")
        + frame(Opcode.CONT, b"c")
    )
    assert read(data) == [Ping(b"ping"), Pong(b"pong"), "abc"]


def test_5_4_a_close_between_fragments_drops_the_message() -> None:
    data = frame(Opcode.TEXT, b"a", fin=False) + close(1000) + frame(Opcode.CONT, b"b")
    assert read(data) == [CloseReceived(1000, "")]


@pytest.mark.parametrize("fin", [True, False])
def test_5_4_a_continuation_continues_something(fin: bool) -> None:
    refused = Violation(CloseCode.PROTOCOL_ERROR, "nothing to continue")
    assert violation(frame(Opcode.CONT, b"a", fin=fin)) == refused
    finished = frame(Opcode.TEXT, b"a", fin=False) + frame(Opcode.CONT, b"b")
    assert read(finished + frame(Opcode.CONT, b"c", fin=fin)) == ["ab", refused]


@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
@pytest.mark.parametrize("fin", [True, False])
def test_5_4_messages_are_not_interleaved(opcode: int, fin: bool) -> None:
    refused = Violation(CloseCode.PROTOCOL_ERROR, "a fragmented message is not finished")
    start = frame(Opcode.TEXT, b"a", fin=False)
    assert violation(start + frame(opcode, b"b", fin=fin)) == refused
    assert read(start, frame(opcode, b"b", fin=fin)) == [refused]  # by way of the fast path, if it were open


# Section 5.5: control frames.


@pytest.mark.parametrize("opcode", [Opcode.CLOSE, Opcode.PING, Opcode.PONG])
def test_5_5_a_control_frame_is_not_fragmented(opcode: int) -> None:
    refused = violation(zero_masked(opcode, b"\x80"))
    assert refused == Violation(CloseCode.PROTOCOL_ERROR, "control frame is fragmented")


@pytest.mark.parametrize("opcode", [Opcode.CLOSE, Opcode.PING, Opcode.PONG])
@pytest.mark.parametrize("length", [b"\xfe\x00\x7e", b"\xff" + struct.pack("!Q", 65536), b"\xfe", b"\xff"])
def test_5_5_a_control_frame_has_125_bytes_at_most(opcode: int, length: bytes) -> None:
    refused = violation(zero_masked(0x80 | opcode, length))
    assert refused == Violation(CloseCode.PROTOCOL_ERROR, "control frame is too long")


@pytest.mark.parametrize("payload", [b"", b"\x00\xff", bytes(125)])
def test_5_5_2_and_3_pings_and_pongs_carry_any_bytes(payload: bytes) -> None:
    assert read(frame(Opcode.PING, payload)) == [Ping(payload)]
    assert read(frame(Opcode.PONG, payload)) == [Pong(payload)]


def test_5_5_control_frames_do_not_count_as_message_bytes() -> None:
    assert read(frame(Opcode.PING, bytes(125)), text("abc"), close(1000, "x" * 123), limit=3) == [
        Ping(bytes(125)),
        "abc",
        CloseReceived(1000, "x" * 123),
    ]


# Sections 5.5.1 and 7.4: close codes and reasons.


def test_5_5_1_a_close_frame_may_be_empty() -> None:
    assert read(frame(Opcode.CLOSE)) == [CloseReceived(1005, "")]


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 1014, 3000, 3999, 4000, 4999])
@pytest.mark.parametrize("reason", ["", "bye", "€" * 41])
def test_5_5_1_a_close_frame_carries_a_code_and_a_reason(code: int, reason: str) -> None:
    assert read(close(code, reason)) == [CloseReceived(code, reason)]


def test_5_5_1_half_a_close_code_is_none() -> None:
    refused = violation(frame(Opcode.CLOSE, b"\x03"))
    assert refused == Violation(CloseCode.PROTOCOL_ERROR, "close frame with half a code")


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535])
def test_7_4_a_close_code_is_one_that_may_be_sent(code: int) -> None:
    refused = violation(frame(Opcode.CLOSE, struct.pack("!H", code) + b"why"))
    assert refused == Violation(CloseCode.PROTOCOL_ERROR, f"close code {code} may not be sent")


def test_8_1_a_close_reason_is_utf_8() -> None:
    refused = violation(frame(Opcode.CLOSE, struct.pack("!H", 1000) + b"\xc3"))
    assert refused == Violation(CloseCode.INVALID_DATA, "text is not UTF-8")


# Sections 1.4, 5.5.1 and 7.1.7: nothing after the end.

ENDS = [
    close(1000),
    frame(Opcode.CLOSE),
    frame(Opcode.CLOSE, b"\x00"),
    frame(Opcode.TEXT, b"\xff"),
    frame(Opcode.CONT),
    zero_masked(0x82, b"\xff" + struct.pack("!Q", LIMIT + 1)),
]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("at_once", [b"", text("more")])
def test_7_1_7_nothing_follows_a_close_or_a_violation(end: bytes, at_once: bytes) -> None:
    reader = FrameReader(LIMIT)
    (event,) = reader.receive(end + at_once)
    assert isinstance(event, CloseReceived | Violation)
    for more in (text("more"), frame(Opcode.PING), close(1000), bytes(1000), b"\x81"):
        assert reader.receive(more) == []
    assert reader.clean  # what arrived afterwards is not kept either


# Section 8.1: text is UTF-8.

BROKEN_TEXTS = [
    b"\xff",
    b"\x80",
    b"\xc3",  # cut off
    b"\xe2\x82",  # cut off
    b"\xc0\xaf",  # overlong
    b"\xed\xa0\x80",  # a surrogate
    b"\xf4\x90\x80\x80",  # beyond U+10FFFF
    b"fine until h\xe9re",
]


@pytest.mark.parametrize("payload", BROKEN_TEXTS)
def test_8_1_a_text_is_utf_8(payload: bytes) -> None:
    refused = Violation(CloseCode.INVALID_DATA, "text is not UTF-8")
    assert violation(frame(Opcode.TEXT, payload)) == refused
    assert violation(frame(Opcode.TEXT, payload + b"x" * 200)) == refused
    assert violation(frame(Opcode.TEXT, b"", fin=False) + frame(Opcode.CONT, payload)) == refused
    assert read(frame(Opcode.BINARY, payload)) == [payload]


@given(st.text(min_size=1), st.data())
@example("😀", None)
def test_8_1_a_fragment_may_end_within_a_character(message: str, data: st.DataObject | None) -> None:
    payload = message.encode()
    cuts = range(len(payload) + 1) if data is None else [data.draw(st.integers(0, len(payload)))]
    for cut in cuts:
        fragments = frame(Opcode.TEXT, payload[:cut], fin=False) + frame(Opcode.CONT, payload[cut:])
        assert read(fragments) == [message]


@pytest.mark.parametrize("payload", [b"\xff", b"\xc0", b"\xed\xa0", b"\xf4\x90", b"ok\xe2\x28"])
def test_8_1_broken_text_is_refused_at_the_first_fragment_that_shows_it(payload: bytes) -> None:
    refused = [Violation(CloseCode.INVALID_DATA, "text is not UTF-8")]
    assert read(frame(Opcode.TEXT, payload, fin=False)) == refused
    reader = FrameReader(LIMIT)
    assert reader.receive(frame(Opcode.TEXT, payload[:-1], fin=False)) == []
    assert reader.receive(frame(Opcode.CONT, payload[-1:], fin=False)) == refused


def test_8_1_a_message_does_not_end_within_a_character() -> None:
    refused = [Violation(CloseCode.INVALID_DATA, "text is not UTF-8")]
    start = frame(Opcode.TEXT, b"\xe2\x82", fin=False)
    assert read(start + frame(Opcode.CONT)) == refused
    # The next message must not complete it.
    assert read(start + frame(Opcode.CONT, b"\xac"), start + frame(Opcode.CONT, b"\xac")) == ["€", "€"]


# Section 10.4: limits.


@pytest.mark.parametrize("limit", [0, 1, 50, 125, 126, 1000, 65536, 70000])
@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
def test_10_4_a_message_has_the_limit_at_most(opcode: int, limit: int) -> None:
    (message,) = read(frame(opcode, b"x" * limit), limit=limit)
    assert message in ("x" * limit, b"x" * limit)
    assert read(frame(opcode, b"x" * (limit + 1)), limit=limit) == [
        Violation(CloseCode.TOO_BIG, f"message over {limit} bytes")
    ]


@pytest.mark.parametrize(
    "header", [b"\x82\xe5", b"\x82\xfe\x00\x7e", b"\x82\xff" + struct.pack("!Q", 65536), b"\x02\xe5"]
)
def test_10_4_a_frame_is_refused_from_its_header_alone(header: bytes) -> None:
    assert violation(header, limit=100).code == CloseCode.TOO_BIG


def test_10_4_the_limit_is_on_the_sum_of_the_fragments() -> None:
    fragments = [frame(Opcode.BINARY, bytes(60), fin=False), frame(Opcode.CONT, bytes(40), fin=False)]
    assert read(*fragments, frame(Opcode.CONT), limit=100) == [bytes(100)]
    over = frame(Opcode.CONT, bytes(1), fin=False)
    header = over[:2]
    assert read(*fragments, header, limit=100) == [Violation(CloseCode.TOO_BIG, "message over 100 bytes")]
    # Each message has the limit to itself.
    assert read(*fragments, frame(Opcode.CONT), *fragments, frame(Opcode.CONT), limit=100) == [bytes(100)] * 2


def test_10_4_empty_fragments_take_no_memory() -> None:
    reader = FrameReader(100)
    reader.receive(frame(Opcode.TEXT, b"a", fin=False))
    many = frame(Opcode.CONT, fin=False) * 20_000
    tracemalloc.start()
    try:
        reader.receive(many)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 20_000
    assert reader.receive(frame(Opcode.CONT, b"b")) == ["ab"]


# ``clean``: may the connection be moved to another process?


def test_a_reader_is_clean_between_messages_and_nowhere_else() -> None:
    reader = FrameReader(LIMIT)
    assert reader.clean
    for data in (text("Hello"), text("x" * 300), frame(Opcode.PING, b"abc"), frame(Opcode.BINARY, bytes(70000))):
        for at in range(min(len(data), 400) - 1):
            reader.receive(data[at : at + 1])
            assert not reader.clean
        assert len(reader.receive(data[min(len(data), 400) - 1 :])) == 1
        assert reader.clean


def test_a_reader_is_not_clean_within_a_fragmented_message() -> None:
    reader = FrameReader(LIMIT)
    for fragment in (frame(Opcode.TEXT, fin=False), frame(Opcode.PING), frame(Opcode.CONT, fin=False)):
        reader.receive(fragment)
        assert not reader.clean
    reader.receive(frame(Opcode.CONT))
    assert reader.clean


# However the bytes are cut, and whatever they are.


def fragmented(message: str | bytes, cuts: Sequence[int], pings: bool) -> Sent:
    payload = message.encode() if isinstance(message, str) else message
    opcode = Opcode.TEXT if isinstance(message, str) else Opcode.BINARY
    edges = [0, *sorted(min(cut, len(payload)) for cut in cuts), len(payload)]
    frames: list[bytes] = []
    events: list[Event] = []
    for start, end in pairwise(edges):
        last = len(frames) - len(events) == len(edges) - 2
        frames.append(frame(Opcode.CONT if frames else opcode, payload[start:end], fin=last))
        if pings and not last:
            frames.append(frame(Opcode.PING, b"p"))
            events.append(Ping(b"p"))
    return b"".join(frames), [*events, message]


def pinged(payload: bytes) -> Sent:
    return frame(Opcode.PING, payload), [Ping(payload)]


def ponged(payload: bytes) -> Sent:
    return frame(Opcode.PONG, payload), [Pong(payload)]


messages = st.one_of(st.text(max_size=150), st.binary(max_size=150))
exchanges = st.lists(
    st.one_of(
        st.builds(fragmented, messages, st.lists(st.integers(0, 150), max_size=3), st.booleans()),
        st.binary(max_size=125).map(pinged),
        st.binary(max_size=125).map(ponged),
    ),
    max_size=6,
)
endings = st.sampled_from([(b"", 0), *((end, 1) for end in ENDS)])


@given(exchanges, endings, st.data())
def test_every_cut_of_a_stream_gives_the_same_events(
    sent: list[Sent], ending: tuple[bytes, int], data: st.DataObject
) -> None:
    stream = b"".join(part for part, _ in sent) + ending[0]
    whole = read(stream)
    assert whole[: len(whole) - ending[1]] == [event for _, events in sent for event in events]
    assert bytewise(stream) == whole
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    edges = [0, *cuts, len(stream)]
    assert read(*(stream[start:end] for start, end in pairwise(edges))) == whole


@given(st.binary(max_size=140), st.integers(0, 140))
@example(b"a" * 125, 125)
@example(b"a" * 125, 124)
@example(b"\xff", 1)
def test_the_fast_path_agrees_with_the_slow_one(payload: bytes, limit: int) -> None:
    data = frame(Opcode.TEXT, payload)
    fast = read(data, limit=limit)
    assert read(data[:1], data[1:], limit=limit) == fast
    assert read(frame(Opcode.PONG) + data, limit=limit) == [Pong(b""), *fast]
    assert read(data + data[:1], limit=limit) == fast


headers = st.builds(
    lambda first, length, rest: bytes((first, length)) + rest,
    st.sampled_from([0x01, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8A, 0x00]) | st.integers(0, 255),
    st.integers(0x80, 0xFF) | st.integers(0, 255),
    st.binary(max_size=20),
)


@given(st.lists(st.binary(max_size=300) | headers, max_size=12), st.sampled_from([0, 10, 1000]))
def test_whatever_arrives_gives_events_and_no_exception(chunks: list[bytes], limit: int) -> None:
    events = read(*chunks, limit=limit)
    assert read(b"".join(chunks), limit=limit) == events
    for event in events[:-1]:
        assert isinstance(event, str | bytes | Ping | Pong)  # only the last may be an end
    for event in events:
        if isinstance(event, str | bytes):
            assert len(event) <= limit
