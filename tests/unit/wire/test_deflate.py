"""RFC 7692: what is read compressed, and what is sent so.

The peer is the client side of the ``websockets`` library.
"""

from __future__ import annotations

import random
import tracemalloc
import zlib
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.exceptions import NegotiationError
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

from socketcluster_wire.close_codes import CloseCode
from socketcluster_wire.deflate import TAIL, Agreement, DeflateOptions, Inflater, deflate
from socketcluster_wire.errors import InflatedTooBigError, InflateError
from socketcluster_wire.websocket import BINARY, TEXT, Event, FrameReader, Ping, Violation, deflated_frame

LIMIT = 1 << 20
Parameters = Sequence[tuple[str, str | None]]


def agreed(*, client_no_context_takeover: bool = True, bits: int = 15) -> Agreement:
    return Agreement(bits, bits, client_no_context_takeover)


def reader(agreement: Agreement | None = None, limit: int = LIMIT) -> FrameReader:
    return FrameReader(limit, Inflater(agreement or agreed()))


def client(agreement: Agreement) -> PerMessageDeflate:
    """The client's end of what was agreed on."""
    return PerMessageDeflate(
        True, agreement.client_no_context_takeover, agreement.server_window_bits, agreement.client_window_bits
    )


def masked(opcode: int, payload: bytes, *, fin: bool = True, rsv1: bool = False) -> bytes:
    data = bytearray(Frame(Opcode(opcode), payload, fin).serialize(mask=True))
    data[0] |= 0x40 if rsv1 else 0
    return bytes(data)


def squeezed(payload: bytes, level: int = 9) -> bytes:
    encoder = zlib.compressobj(level, wbits=-15)
    return (encoder.compress(payload) + encoder.flush(zlib.Z_SYNC_FLUSH))[:-4]


def compressed(payload: bytes, opcode: int = TEXT, *, fin: bool = True) -> bytes:
    return masked(opcode, squeezed(payload), fin=fin, rsv1=True)


BROKEN = Violation(CloseCode.INVALID_DATA, "compressed data is broken")
RESERVED = Violation(CloseCode.PROTOCOL_ERROR, "reserved bits are set")

# Section 7.1: the negotiation.


@pytest.mark.parametrize(
    ("offer", "options", "answer", "agreement"),
    [
        (
            [],
            DeflateOptions(),
            [
                ("server_no_context_takeover", None),
                ("client_no_context_takeover", None),
                ("server_max_window_bits", "12"),
            ],
            Agreement(12, 15, client_no_context_takeover=True),
        ),
        (
            [("client_max_window_bits", None)],
            DeflateOptions(client_no_context_takeover=False),
            [("server_no_context_takeover", None), ("server_max_window_bits", "12"), ("client_max_window_bits", "12")],
            Agreement(12, 12, client_no_context_takeover=False),
        ),
        (
            [("server_max_window_bits", "10"), ("client_max_window_bits", "9"), ("client_no_context_takeover", None)],
            DeflateOptions(client_no_context_takeover=False, max_window_bits=15),
            [
                ("server_no_context_takeover", None),
                ("client_no_context_takeover", None),
                ("server_max_window_bits", "10"),
                ("client_max_window_bits", "9"),
            ],
            Agreement(10, 9, client_no_context_takeover=True),
        ),
    ],
)
def test_7_1_windows_and_context_takeover_are_negotiated(
    offer: Parameters, options: DeflateOptions, answer: Parameters, agreement: Agreement
) -> None:
    parameters, extension = options.factory().process_request_params(offer, [])
    assert parameters == answer
    assert isinstance(extension, PerMessageDeflate)
    assert Agreement.of(extension) == agreement


@pytest.mark.parametrize(
    "offer",
    [
        [("server_max_window_bits", "16")],
        [("server_max_window_bits", None)],
        [("server_max_window_bits", "8")],  # legal, but zlib has no such window
        [("client_no_context_takeover", "1")],
        [("unknown", None)],
    ],
)
def test_7_1_an_offer_that_cannot_be_met_is_declined(offer: Parameters) -> None:
    with pytest.raises(NegotiationError):
        DeflateOptions().factory().process_request_params(offer, [])


# Section 6: RSV1 marks a compressed message, at its first frame.


def test_6_a_message_with_rsv1_is_inflated_and_one_without_is_not() -> None:
    both = compressed(b"Hello") + masked(TEXT, b"Hello") + compressed(b"\x00\xff", BINARY)
    assert reader().receive(both) == ["Hello", "Hello", b"\x00\xff"]


def test_7_2_3_1_the_examples_of_the_rfc() -> None:
    assert reader().receive(masked(TEXT, bytes.fromhex("f248cdc9c90700"), rsv1=True)) == ["Hello"]
    fragments = masked(TEXT, bytes.fromhex("f248cd"), fin=False, rsv1=True) + masked(0, bytes.fromhex("c9c90700"))
    assert reader().receive(fragments) == ["Hello"]


def test_7_2_3_2_the_example_of_the_rfc_shares_a_window_between_messages() -> None:
    keeping = reader(agreed(client_no_context_takeover=False))
    again = masked(TEXT, bytes.fromhex("f200110000"), rsv1=True)
    assert keeping.receive(masked(TEXT, bytes.fromhex("f248cdc9c90700"), rsv1=True)) == ["Hello"]
    assert keeping.receive(again) == ["Hello"]
    assert reader().receive(compressed(b"Hello") + again) == ["Hello", BROKEN]


def test_7_2_3_3_a_message_may_be_compressed_without_compression() -> None:
    assert reader().receive(masked(TEXT, bytes.fromhex("000500faff48656c6c6f00"), rsv1=True)) == ["Hello"]


@pytest.mark.parametrize("kept", [True, False])
def test_7_2_3_4_a_message_may_end_with_a_final_block(kept: bool) -> None:
    data = masked(TEXT, bytes.fromhex("f348cdc9c9070000"), rsv1=True)
    assert reader(agreed(client_no_context_takeover=not kept)).receive(data * 2) == ["Hello", "Hello"]


def test_7_2_3_4_the_window_outlives_a_final_block() -> None:
    keeping = reader(agreed(client_no_context_takeover=False))
    keeping.receive(masked(TEXT, bytes.fromhex("f348cdc9c9070000"), rsv1=True))
    assert keeping.receive(masked(TEXT, bytes.fromhex("f200110000"), rsv1=True)) == ["Hello"]


@pytest.mark.parametrize("rest", [b"\x03\x00" * 5, bytes.fromhex("f248cdc9c90700"), b"\x01"])
def test_7_2_3_4_nothing_follows_a_final_block(rest: bytes) -> None:
    ended = bytes.fromhex("f348cdc9c90700")
    assert reader().receive(masked(TEXT, ended + rest, rsv1=True)) == [BROKEN]
    fragments = masked(TEXT, ended, fin=False, rsv1=True) + masked(0, rest, fin=False) + masked(0, rest)
    assert reader().receive(fragments) == [BROKEN]


def test_7_2_3_6_an_empty_message_is_one_byte() -> None:
    assert reader().receive(masked(TEXT, b"\x00", rsv1=True)) == [""]
    assert deflate(b"", 15) == bytes.fromhex("00") or zlib.decompress(deflate(b"", 15) + TAIL, -15) == b""


@pytest.mark.parametrize("opcode", [Opcode.CLOSE, Opcode.PING, Opcode.PONG])
def test_6_1_control_frames_are_not_compressed(opcode: int) -> None:
    assert reader().receive(masked(opcode, b"", rsv1=True)) == [RESERVED]


def test_6_1_rsv1_is_set_on_the_first_frame_only() -> None:
    half = len(squeezed(b"Hello world")) // 2
    payload = squeezed(b"Hello world")
    first = masked(TEXT, payload[:half], fin=False, rsv1=True)
    assert reader().receive(first + masked(0, payload[half:], rsv1=True)) == [RESERVED]
    assert reader().receive(first + masked(0, payload[half:])) == ["Hello world"]
    assert FrameReader(LIMIT).receive(masked(TEXT, payload, rsv1=True)) == [RESERVED]


@pytest.mark.parametrize("bits", [0x20, 0x10, 0x60, 0x50, 0x70])
def test_6_1_the_other_reserved_bits_stay_reserved(bits: int) -> None:
    data = bytearray(compressed(b"Hello"))
    data[0] = 0x81 | bits
    assert reader().receive(bytes(data)) == [RESERVED]


def test_6_1_control_frames_come_between_compressed_fragments() -> None:
    payload = squeezed(b"Hello world")
    data = masked(TEXT, payload[:3], fin=False, rsv1=True) + masked(Opcode.PING, b"p") + masked(0, payload[3:])
    assert reader().receive(data) == [Ping(b"p"), "Hello world"]


# What is inflated: broken data, broken text, limits.


@pytest.mark.parametrize("payload", [b"\xff\xff\xff", b"\x06", b"\x00\x05\x00\x00\x00Hello"])
def test_what_cannot_be_inflated_ends_the_connection(payload: bytes) -> None:
    assert reader().receive(masked(TEXT, payload, rsv1=True)) == [BROKEN]
    with pytest.raises(InflateError):
        Inflater(agreed()).inflate(payload, final=True, limit=LIMIT)


def test_inflated_text_is_utf_8_and_is_checked_at_each_fragment() -> None:
    refused = Violation(CloseCode.INVALID_DATA, "text is not UTF-8")
    assert reader().receive(compressed(b"\xff")) == [refused]
    encoder = zlib.compressobj(wbits=-15)
    first = encoder.compress(b"ok\xe2\x28" * 9) + encoder.flush(zlib.Z_SYNC_FLUSH)
    assert reader().receive(masked(TEXT, first, fin=False, rsv1=True)) == [refused]


@pytest.mark.parametrize("limit", [100, 16_383, 16_384, 65_536])
def test_a_message_inflates_to_the_limit_at_most(limit: int) -> None:
    too_big = Violation(CloseCode.TOO_BIG, f"message over {limit} bytes")
    assert reader(limit=limit).receive(compressed(b"x" * limit)) == ["x" * limit]
    over = squeezed(b"x" * (limit + 1))
    assert reader(limit=limit).receive(masked(TEXT, over, rsv1=True)) == [too_big]
    halves = masked(TEXT, over[:-2], fin=False, rsv1=True) + masked(0, over[-2:])
    assert reader(limit=limit).receive(halves) == [too_big]


def test_a_bomb_is_not_inflated_beyond_the_limit() -> None:
    bomb = squeezed(bytes(200_000_000))
    assert len(bomb) < 200_000
    frame = masked(BINARY, bomb, rsv1=True)
    small = reader(limit=1_000_000)
    tracemalloc.start()
    try:
        (event,) = small.receive(frame)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert event == Violation(CloseCode.TOO_BIG, "message over 1000000 bytes")
    assert peak < 4_000_000
    with pytest.raises(InflatedTooBigError):
        Inflater(agreed()).inflate(bomb, final=True, limit=1_000_000)


def test_the_limit_holds_before_inflating_too() -> None:
    empty_blocks = b"\x00\x00\x00\xff\xff" * 300  # inflates to nothing
    whole = masked(BINARY, empty_blocks + b"\x00", rsv1=True)
    assert reader(limit=1000).receive(whole) == [Violation(CloseCode.TOO_BIG, "message over 1000 bytes")]
    fragments = masked(BINARY, empty_blocks[:750], fin=False, rsv1=True) + masked(0, empty_blocks[:750], fin=False)
    assert reader(limit=1000).receive(fragments) == [Violation(CloseCode.TOO_BIG, "message over 1000 bytes")]


def test_each_message_has_the_limits_to_itself() -> None:
    part = squeezed(b"ab" * 30)
    message = masked(BINARY, part[:4], fin=False, rsv1=True) + masked(0, part[4:])
    assert reader(limit=60).receive(message * 3) == [b"ab" * 30] * 3


# ``clean``: may the connection be moved to another process?


def test_a_reader_is_clean_only_if_the_next_message_needs_no_window() -> None:
    alone, keeping = reader(), reader(agreed(client_no_context_takeover=False))
    assert alone.clean
    assert keeping.clean
    for one in (alone, keeping):
        one.receive(compressed(b"Hello"))
    assert alone.clean
    assert not keeping.clean


# Whatever a client compresses, and whatever is compressed for it.

messages = st.one_of(st.text(max_size=300), st.binary(max_size=300), st.text("ab", min_size=1000, max_size=3000))


@given(st.lists(messages, max_size=6), st.integers(9, 15), st.booleans(), st.integers(1, 50))
def test_what_a_client_compresses_is_read_however_it_is_cut(
    sent: list[str | bytes], bits: int, alone: bool, step: int
) -> None:
    agreement = agreed(client_no_context_takeover=alone, bits=bits)
    extension, ours = client(agreement), reader(agreement)
    stream = b""
    for message in sent:
        payload = message.encode() if isinstance(message, str) else message
        opcode = Opcode.TEXT if isinstance(message, str) else Opcode.BINARY
        stream += Frame(opcode, payload).serialize(mask=True, extensions=[extension])
    seen: list[Event] = []
    for at in range(0, len(stream), step):
        seen += ours.receive(stream[at : at + step])
    assert seen == sent


@given(st.binary(max_size=2000) | st.text("ab", max_size=5000).map(str.encode), st.integers(9, 15))
@example(b"", 9)
@example(bytes(100_000), 9)
def test_what_is_compressed_for_a_client_it_reads(payload: bytes, bits: int) -> None:
    for _ in range(2):
        data = deflated_frame(BINARY, payload, bits)
        length = data[1] & 0x7F
        body = data[2 + (2 if length == 126 else 8 if length == 127 else 0) :]
        if data[0] & 0x40:
            assert len(body) < len(payload)
            read = client(agreed(bits=bits)).decode(Frame(Opcode.BINARY, body, rsv1=True))
            assert bytes(read.data) == payload
        else:
            assert body == payload


def test_what_compression_would_make_longer_is_sent_as_it_is() -> None:
    noise = random.Random(1).randbytes(3000)
    assert deflated_frame(BINARY, noise, 15) == b"\x82\x7e\x0b\xb8" + noise
    assert deflated_frame(TEXT, b"a" * 3000, 15)[0] == 0xC1


@given(st.lists(st.binary(max_size=300), max_size=6), st.booleans())
def test_whatever_arrives_compressed_gives_events_and_no_exception(payloads: list[bytes], alone: bool) -> None:
    ours = reader(agreed(client_no_context_takeover=alone), limit=1000)
    events = [event for payload in payloads for event in ours.receive(masked(TEXT, payload, rsv1=True))]
    assert all(isinstance(event, str | Violation) for event in events)


def test_compressed_frames_that_become_large_are_read_one_at_a_time() -> None:
    compress = zlib.compressobj(9, zlib.DEFLATED, -15)
    small = (compress.compress(b" " * 900_000) + compress.flush(zlib.Z_SYNC_FLUSH))[:-4]
    bomb = bytes((0xC1, 0xFE)) + len(small).to_bytes(2) + bytes(4) + small
    reader = FrameReader(1_000_000, Inflater(Agreement(15, 15, client_no_context_takeover=True)))
    assert len(reader.receive_any(bomb * 3, 32)) == 1
    assert reader.behind
    assert [len(reader.receive_any(b"", 32)) for _ in range(2)] == [1, 1]
    assert not reader.behind
