from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from socketcluster_wire import handoff
from socketcluster_wire.errors import MalformedHandoffError
from socketcluster_wire.handoff import Handoff, Reply

IDS = st.integers(0, 2**64 - 1)
CLIENTS = st.none() | st.tuples(st.text(st.characters(codec="utf-8"), max_size=60), st.integers(0, 65535))


@given(IDS, st.binary(max_size=2000), st.booleans(), CLIENTS)
def test_a_packet_says_what_was_put_in(number: int, head: bytes, tls: bool, client: tuple[str, int] | None) -> None:
    made = Handoff(id=number, head=head, tls=tls, client=client)
    assert handoff.decode(handoff.encode(made)) == made


@given(st.lists(IDS, min_size=1, max_size=handoff.MAX_IDS))
def test_an_acknowledgement_names_its_packets(numbers: list[int]) -> None:
    packet = handoff.encode_ack(*numbers)
    assert len(packet) <= handoff.MAX_REPLY_BYTES
    assert handoff.decode_reply(packet) == Reply(tuple(numbers), ended=False)


@given(IDS)
def test_a_decline_names_its_packet(number: int) -> None:
    assert handoff.decode_reply(handoff.encode_decline(number)) == Reply((number,), ended=False, declined=True)


@given(st.lists(IDS, min_size=1, max_size=handoff.MAX_IDS))
def test_many_ended_connections_are_named_at_once(numbers: list[int]) -> None:
    packet = handoff.encode_ended(numbers)
    assert len(packet) <= handoff.MAX_REPLY_BYTES
    assert handoff.decode_reply(packet) == Reply(tuple(numbers), ended=True)


@pytest.mark.parametrize("count", [0, handoff.MAX_IDS + 1])
def test_a_packet_of_no_ids_or_too_many_is_not_made(count: int) -> None:
    with pytest.raises(ValueError, match="ids"):
        handoff.encode_ended(range(count))
    with pytest.raises(ValueError, match="ids"):
        handoff.encode_ack(*range(count))


@given(st.binary(max_size=100))
@example(bytes([handoff.VERSION, 2]) + bytes(8))
@example(bytes([handoff.VERSION, 2]) + bytes(8) + b"\x00\x50\x04\xff\xff\xff\xff")
def test_any_bytes_are_a_packet_or_the_documented_error(data: bytes) -> None:
    try:
        decoded = handoff.decode(data)
    except MalformedHandoffError:
        return
    assert handoff.decode(handoff.encode(decoded)) == decoded


@given(st.binary(max_size=handoff.MAX_REPLY_BYTES + 20))
@example(bytes([handoff.VERSION, 0]) + bytes(16))
@example(bytes([handoff.VERSION, 2]) + bytes(8))
@example(bytes([handoff.VERSION, 2]) + bytes(16))
@example(bytes([handoff.VERSION, 3]) + bytes(8))
@example(bytes([handoff.VERSION, 1]))
@example(bytes([handoff.VERSION, 1]) + bytes(8))
@example(bytes([handoff.VERSION, 1]) + bytes(8 * handoff.MAX_IDS + 8))
def test_any_bytes_are_a_reply_or_the_documented_error(data: bytes) -> None:
    try:
        reply = handoff.decode_reply(data)
    except MalformedHandoffError:
        return
    if reply.ended:
        assert handoff.encode_ended(reply.ids) == data
    else:
        assert (handoff.encode_decline if reply.declined else handoff.encode_ack)(*reply.ids) == data


@pytest.mark.parametrize("decode", [handoff.decode, handoff.decode_reply])
def test_another_version_is_refused(decode: object) -> None:
    packet = handoff.encode_ack(7) if decode is handoff.decode_reply else handoff.encode(Handoff(7, b"", False, None))
    assert callable(decode)
    with pytest.raises(MalformedHandoffError):
        decode(bytes([handoff.VERSION + 1]) + packet[1:])


def test_every_cut_within_the_address_is_refused() -> None:
    packet = handoff.encode(Handoff(1, b"", False, ("192.0.2.1", 5)))
    for size in range(len(packet)):
        with pytest.raises(MalformedHandoffError):
            handoff.decode(packet[:size])


def test_no_packet_is_larger_than_a_receivers_buffer() -> None:
    room = handoff.MAX_PACKET_BYTES - 10
    assert len(handoff.encode(Handoff(1, bytes(room), False, None))) == handoff.MAX_PACKET_BYTES
    with pytest.raises(ValueError, match="over the limit"):
        handoff.encode(Handoff(1, bytes(room + 1), False, None))
