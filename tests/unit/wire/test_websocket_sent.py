"""RFC 6455, sections 5 to 8, as far as they concern what a server sends.

The reader is the client side of the ``websockets`` library.
"""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import OPEN, Protocol, Side

from socketcluster_wire.close_codes import CloseCode
from socketcluster_wire.websocket import binary_frame, close_frame, pong_frame, text_frame


def as_a_client_reads(data: bytes) -> list[Frame]:
    client = Protocol(Side.CLIENT, state=OPEN)
    client.receive_data(data)
    assert client.parser_exc is None
    return [event for event in client.events_received() if isinstance(event, Frame)]


def test_5_7_the_examples_of_the_rfc() -> None:
    assert text_frame(b"Hello") == bytes.fromhex("810548656c6c6f")
    assert binary_frame(bytes(256)) == bytes.fromhex("827e0100") + bytes(256)
    assert binary_frame(bytes(65536)) == bytes.fromhex("827f0000000000010000") + bytes(65536)


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65535, 65536, 70000])
def test_6_1_messages_are_whole_unmasked_frames(length: int) -> None:
    payload = b"x" * length
    assert as_a_client_reads(text_frame(payload)) == [Frame(Opcode.TEXT, payload)]
    assert as_a_client_reads(binary_frame(payload)) == [Frame(Opcode.BINARY, payload)]
    assert text_frame(payload) == Frame(Opcode.TEXT, payload).serialize(mask=False)


@given(st.lists(st.text(max_size=200), max_size=5))
def test_6_1_frames_follow_each_other(texts: list[str]) -> None:
    frames = as_a_client_reads(b"".join(text_frame(one.encode()) for one in texts))
    assert [bytes(one.data).decode() for one in frames] == texts


@pytest.mark.parametrize("payload", [b"", b"\x00\xff", bytes(125)])
def test_5_5_3_a_pong_is_sent_with_the_payload_of_its_ping(payload: bytes) -> None:
    assert as_a_client_reads(pong_frame(payload)) == [Frame(Opcode.PONG, payload)]


def test_5_5_no_control_frame_over_125_bytes_is_sent() -> None:
    with pytest.raises(ValueError, match="125"):
        pong_frame(bytes(126))


def sent_close(data: bytes) -> Close:
    (received,) = as_a_client_reads(data)
    assert received.opcode is Opcode.CLOSE
    return Close.parse(received.data)


@given(st.sampled_from([*CloseCode, 3000, 4999]), st.text())
@example(1000, "x" * 123)
@example(1000, "x" * 124)
@example(1000, "€" * 41 + "x")
@example(1000, "x" * 122 + "€")
@example(4999, "x" * 120 + "😀")
def test_5_5_1_a_close_reason_is_cut_between_characters(code: int, reason: str) -> None:
    sent = sent_close(close_frame(code, reason))
    if code in (1005, 1006):
        assert sent == Close(1005, "")
        return
    assert sent.code == code
    assert reason.startswith(sent.reason)
    rest = reason[len(sent.reason) :]
    assert not rest or len((sent.reason + rest[0]).encode()) > 123  # no more than needed is cut off


@pytest.mark.parametrize("code", [-1, 0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 70000])
def test_7_4_1_a_code_that_may_not_be_sent_is_left_out(code: int) -> None:
    assert close_frame(code, "why") == b"\x88\x00"


def test_8_1_a_close_reason_is_sent_as_utf_8_even_if_it_is_not_unicode() -> None:
    assert sent_close(close_frame(1000, "half a pair: \ud83d")) == Close(1000, "half a pair: ?")
