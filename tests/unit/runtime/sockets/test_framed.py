"""Frames on a stream: whole messages however they are cut, and an end that both sides hear of."""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.worker.running import until

from socketcluster_runtime.sockets import framed
from socketcluster_runtime.sockets.framed import FramedStream, FrameError, Kind


def frame(message: bytes, kind: int = Kind.MESSAGE) -> bytes:
    return struct.pack("!BI", kind, len(message)) + message


class End:
    """One end of a stream, and what it is told."""

    def __init__(self, **options: Any) -> None:
        self.received: list[bytes] = []
        self.ended: list[bytes | None] = []
        self.lost = 0
        self.stream = FramedStream(self.received.append, self.ended.append, self._lost, **options)

    def _lost(self) -> None:
        self.lost += 1


async def connected(**options: Any) -> tuple[End, End]:
    """Return two ends of a connection."""
    ends = End(**options), End(**options)
    loop = asyncio.get_running_loop()
    for end, sock in zip(ends, socket.socketpair(), strict=True):
        await loop.create_connection(lambda end=end: end.stream, sock=sock)  # type: ignore[misc]
    return ends


@given(st.lists(st.binary(max_size=40), max_size=12), st.lists(st.integers(0, 400), max_size=30), st.binary(max_size=9))
def test_messages_are_whole_however_they_are_cut(messages: list[bytes], cuts: list[int], reason: bytes) -> None:
    end = End()
    sent = b"".join(map(frame, messages)) + frame(reason, Kind.END) + b"and what nobody reads any more"
    places = sorted({0, *(cut for cut in cuts if cut < len(sent)), len(sent)})
    for begin, stop in itertools.pairwise(places):
        end.stream.data_received(sent[begin:stop])
    assert end.received == messages
    assert end.ended == [reason]


@pytest.mark.parametrize(
    "bytes_",
    [
        b"\0\0\0\0\0",
        b"\x03\0\0\0\x01x",
        b"GET / HTTP/1.1\r\n",
        b"\x01\0\0\0\x21",
        b"\x02\0\0\0\x21",
        b"\x01\xff\xff\xff\xff",
    ],
)
def test_what_is_no_frame_or_too_large_ends_the_stream_before_it_is_kept(bytes_: bytes) -> None:
    end = End(max_bytes=32)
    end.stream.data_received(frame(b"well") + bytes_)
    end.stream.data_received(frame(b"more"))
    assert (end.received, end.ended) == ([b"well"], [None])
    assert isinstance(end.stream.error, FrameError)


async def test_each_end_sends_and_the_last_word_says_why() -> None:
    one, two = await connected()
    one.stream.send(b"a")
    one.stream.send(b"")
    two.stream.send(b"b" * 100_000)
    await until(lambda: len(two.received) == 2 and one.received)
    assert (one.received, two.received) == ([b"b" * 100_000], [b"a", b""])
    assert one.stream.open
    assert one.stream.peer == "unix:"
    one.stream.end(b"enough")
    one.stream.end(b"too late")
    one.stream.send(b"too late")
    await until(lambda: one.lost and two.lost)
    assert (one.ended, two.ended) == ([None], [b"enough"])
    assert not one.stream.open
    assert not two.stream.open


async def test_a_stream_that_is_handed_its_end_with_a_message_takes_no_more() -> None:
    one, two = await connected()
    two.stream.received = lambda _message: two.stream.abort()
    one.stream.send(b"a")
    one.stream.send(b"b")
    await until(lambda: one.lost and two.lost)
    assert (two.ended, one.ended) == ([None], [None])


async def test_a_sender_waits_for_a_receiver_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framed, "WRITE_AHEAD", 1000)
    one, two = await connected()
    two.stream.pause_reading()
    assert one.stream.writable is None
    sent = 0
    while one.stream.writable is None:
        one.stream.send(bytes(10_000))
        sent += 1
        await asyncio.sleep(0)
    writable = one.stream.writable
    assert not writable.done()
    two.stream.resume_reading()
    await writable
    await until(lambda: len(two.received) == sent)
    assert one.stream.writable is None
    two.stream.abort()
    await until(lambda: one.lost)


async def test_who_waits_to_send_hears_of_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framed, "WRITE_AHEAD", 1000)
    monkeypatch.setattr(framed, "END_TIMEOUT", 0.02)
    one, two = await connected()
    two.stream.pause_reading()
    while one.stream.writable is None:
        one.stream.send(bytes(100_000))
        await asyncio.sleep(0)
    writable = one.stream.writable
    one.stream.end(b"not read in time")
    await writable
    await until(lambda: one.lost)  # though nobody has read what was sent
    two.stream.resume_reading()
    await until(lambda: two.lost)
    assert two.ended == [None]


async def test_a_stream_that_was_given_up_before_it_is_connected_is_closed() -> None:
    end = End()
    end.stream.abort()
    ours, theirs = socket.socketpair()
    await asyncio.get_running_loop().create_connection(lambda: end.stream, sock=ours)
    await until(lambda: end.lost)
    assert theirs.recv(1) == b""
    theirs.close()


async def test_the_other_side_is_named_and_missed_when_its_machine_is_gone() -> None:
    one, two = End(), End()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: two.stream, "127.0.0.1", 0)
    transport, _ = await loop.create_connection(lambda: one.stream, *server.sockets[0].getsockname())
    await until(lambda: two.stream.open)
    port = transport.get_extra_info("sockname")[1]
    assert two.stream.peer == f"ipv4:127.0.0.1:{port}"
    sock = transport.get_extra_info("socket")
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 15_000
    one.stream.abort()
    await until(lambda: two.lost)
    server.close()


async def test_what_is_sent_now_is_taken_now_without_a_turn_of_the_loop() -> None:
    one, other = await connected()
    one.stream.send_now([b"a", b"", b"b" * 1000])
    other.stream.take_now()
    assert other.received == [b"a", b"", b"b" * 1000]
    other.stream.take_now()  # nothing is there
    one.stream.abort()
    other.stream.take_now()  # the end is the loop's to tell
    assert other.ended == []
    await until(lambda: other.ended)
    one.stream.send_now([b"nobody"])
    other.stream.take_now()
    assert len(other.received) == 3


async def test_a_message_cut_in_two_is_taken_whole() -> None:
    one, other = await connected()
    message = b"x" * (2 * framed.READ_BYTES)
    one.stream.send_now([message])  # more than the kernel takes at a time
    while not other.received:
        other.stream.take_now()
        await asyncio.sleep(0)
    assert other.received == [message]
    one.stream.abort()
    other.stream.abort()


async def test_nothing_is_taken_while_a_message_is_handed_on() -> None:
    one, other = await connected()
    order: list[bytes] = []

    def receive(message: bytes) -> None:
        order.append(message)
        one.stream.send_now([b"later"])
        other.stream.take_now()
        order.append(message)

    other.stream.received = receive
    other.stream.data_received(frame(b"first"))
    assert order == [b"first", b"first"]
    other.stream.received = order.append
    other.stream.take_now()
    assert order[2:] == [b"later"]
    one.stream.abort()
    other.stream.abort()


async def test_what_waits_is_counted_and_goes_before_what_is_sent_now() -> None:
    one, other = await connected()
    large = b"x" * 4_000_000
    one.stream.send(large)
    one.stream.send_now([b"behind it"])
    assert one.stream.waiting > 0
    await until(lambda: len(other.received) == 2)
    assert other.received == [large, b"behind it"]
    await until(lambda: not one.stream.waiting)
    one.stream.abort()
    other.stream.abort()
    assert one.stream.descriptor == -1


async def test_a_stream_says_when_it_is_connected() -> None:
    end, begun = End(), asyncio.Event()
    end.stream.begun = begun.set
    here, there = socket.socketpair()
    await asyncio.get_running_loop().create_connection(lambda: end.stream, sock=here)
    assert begun.is_set()
    end.stream.abort()
    there.close()
