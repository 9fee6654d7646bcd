"""Broadcasts to another worker: numbered, kept until they have come, and by the store while there is no connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

import pytest
from support.worker.running import until

from socketcluster_runtime.sockets.framed import FramedStream
from socketcluster_worker.mesh import frames, neighbour
from socketcluster_worker.mesh.neighbour import TOLD_AFTER, Neighbour


class Stream:
    """A connection that keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.writable: asyncio.Future[None] | None = None
        self.waiting = 0
        self.aborted = False

    def send_now(self, messages: Sequence[bytes]) -> None:
        self.sent += messages

    def abort(self) -> None:
        self.aborted = True

    @property
    def broadcasts(self) -> list[tuple[int, bytes]]:
        """Numbers and contents of what was broadcast."""
        found = [frames.read_broadcast(frame) for frame in self.sent if frame[:1] == frames.BROADCAST]
        return [(each.number, each.packed) for each in found]


class Store:
    """The other way."""

    def __init__(self) -> None:
        self.published: list[tuple[bytes, dict[str, int]]] = []

    def publish(self, _namespace: str, packed: bytes, numbers: dict[str, int]) -> None:
        self.published.append((packed, numbers))


class Pair:
    """A worker, the way to it, and its connection."""

    def __init__(self) -> None:
        self.store = Store()
        self.worker = Neighbour("other", 1, self.store)
        self.stream = Stream()

    def connect(self, origin: str = "a process", received: int = 0) -> Stream:
        """Give it a new connection."""
        self.stream = Stream()
        self.worker.connected(cast(FramedStream, self.stream), origin, received, b"rooms")
        return self.stream

    def send(self, *packed: bytes) -> list[int]:
        """Broadcast; return the numbers of those that go by the store."""
        return [self.worker.send("/", b"/", each) for each in packed]


@pytest.fixture
def pair() -> Pair:
    return Pair()


async def test_rooms_go_before_broadcasts_and_these_in_one_write_a_turn(pair: Pair) -> None:
    stream = pair.connect()
    assert pair.send(b"1", b"2") == [0, 0]
    assert stream.sent == [b"rooms"]
    await asyncio.sleep(0)
    assert stream.broadcasts == [(1, b"1"), (2, b"2")]


async def test_what_is_said_now_goes_behind_what_was_said_before(pair: Pair) -> None:
    stream = pair.connect()
    pair.send(b"1")
    pair.worker.say_now(b"j now")
    assert stream.broadcasts == [(1, b"1")]
    assert stream.sent[-1] == b"j now"


async def test_what_has_not_come_goes_again_on_the_next_connection(pair: Pair) -> None:
    pair.connect()
    pair.send(b"1", b"2", b"3")
    pair.worker.heard_of(1)
    pair.worker.broken()
    pair.send(b"4")
    assert pair.connect(received=2).broadcasts == [(3, b"3"), (4, b"4")]
    assert not pair.store.published
    pair.worker.close()


async def test_another_process_is_not_sent_what_the_one_before_missed(pair: Pair) -> None:
    pair.connect()
    pair.send(b"1")
    pair.worker.broken()
    assert pair.connect("another process").broadcasts == []
    pair.send(b"2")
    pair.worker.flush()
    assert pair.stream.broadcasts == [(2, b"2")]


async def test_without_a_connection_it_goes_by_the_store_after_a_while(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbour, "PATIENCE", 0.001)
    pair.worker.address = "127.0.0.1", 1
    pair.worker.wait()
    assert pair.send(b"1") == [0]
    await until(lambda: pair.worker.by_store)
    assert pair.store.published == [(b"1", {"other": 1})]
    assert pair.send(b"2") == [2]  # the mesh publishes it, once for all such workers
    assert pair.connect(received=1).broadcasts == [(2, b"2")]
    assert pair.send(b"3") == [0]
    pair.worker.close()


async def test_much_that_was_kept_goes_by_the_store_some_at_a_time_and_in_order(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbour, "PUBLISHED_AT_ONCE", 2)
    pair.worker.address = "127.0.0.1", 1
    pair.send(b"1", b"2", b"3")
    pair.worker._go_by_store()
    assert [packed for packed, _ in pair.store.published] == [b"1", b"2"]
    assert pair.send(b"4", b"5") == [0, 0]  # they are behind those that wait
    await until(lambda: pair.worker.by_store)
    assert pair.store.published == [(b"%d" % number, {"other": number}) for number in range(1, 6)]
    pair.worker.close()


async def test_nothing_goes_by_the_store_to_a_worker_that_no_store_knows(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbour, "PATIENCE", 0.001)
    pair.worker.wait()
    pair.send(b"1")
    await until(lambda: pair.worker._patience is None)
    assert not pair.worker.by_store
    assert not pair.store.published


async def test_each_broadcast_is_taken_once_whatever_way_it_comes(pair: Pair) -> None:
    takes: Callable[[str, int], bool] = pair.worker.takes
    assert takes("a process", 1)
    assert not takes("a process", 1)
    assert takes("a process", 3)  # the one between never comes: too many waited
    assert not takes("a process", 2)
    pair.connect("a process")
    assert pair.worker.received == 3
    assert not takes("a former process", 9)  # late, by the store
    assert takes("a process", 4)
    pair.worker.broken()
    assert takes("a new process", 1)
    pair.worker.close()


async def test_it_is_told_now_and_then_what_has_come(pair: Pair) -> None:
    stream = pair.connect()
    for number in range(1, 2 * TOLD_AFTER + 1):
        pair.worker.takes("a process", number, 10)
    pair.worker.takes("a process", 2 * TOLD_AFTER + 1, neighbour.TOLD_AFTER_BYTES + 1)
    pair.worker.flush()
    told = [frames.read_received(frame) for frame in stream.sent if frame[:1] == frames.RECEIVED]
    assert told == [TOLD_AFTER, 2 * TOLD_AFTER, 2 * TOLD_AFTER + 1]


async def test_while_the_connection_is_full_the_rest_waits_here_in_order(pair: Pair) -> None:
    stream = pair.connect()
    stream.writable = full = asyncio.get_running_loop().create_future()
    pair.send(b"1", b"2")
    await asyncio.sleep(0)
    assert stream.broadcasts == [(1, b"1")]
    stream.writable = None
    full.set_result(None)
    await until(lambda: len(stream.broadcasts) == 2)
    pair.send(b"3")
    await asyncio.sleep(0)
    assert stream.broadcasts == [(1, b"1"), (2, b"2"), (3, b"3")]


class NarrowStream(Stream):
    """A connection that is full as soon as broadcasts are sent."""

    def send_now(self, messages: Sequence[bytes]) -> None:
        super().send_now(messages)
        if self.broadcasts:
            self.writable = asyncio.get_running_loop().create_future()

    def drain(self) -> None:
        """Take what was sent."""
        full, self.writable = self.writable, None
        assert full is not None
        full.set_result(None)


async def test_what_was_kept_goes_as_far_as_the_connection_takes_it(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbour, "PORTION_BYTES", 1.5 * len(frames.write_broadcast(1, b"/", b"1")))
    pair.send(b"1", b"2", b"3", b"4", b"5")
    stream = NarrowStream()
    pair.worker.connected(cast(FramedStream, stream), "a process", 1, b"rooms")
    assert [number for number, _ in stream.broadcasts] == [2, 3]
    pair.send(b"6")
    stream.drain()
    await until(lambda: stream.writable)
    assert [number for number, _ in stream.broadcasts] == [2, 3, 4, 5]
    stream.drain()
    await until(lambda: stream.writable)
    assert stream.broadcasts == [(number, b"%d" % number) for number in range(2, 7)]


async def test_a_connection_that_was_full_and_is_no_more_sends_nothing(pair: Pair) -> None:
    stream = pair.connect()
    stream.writable = full = asyncio.get_running_loop().create_future()
    pair.send(b"1", b"2")
    pair.worker.broken()
    full.set_result(None)
    other = pair.connect()
    await asyncio.sleep(0)
    assert [number for number, _ in other.broadcasts] == [1, 2]
    assert stream.broadcasts == []
    pair.worker.close()


async def test_a_worker_that_does_not_read_is_cut_off_and_what_it_misses_is_counted(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbour, "MAX_KEPT_BYTES", 3 * (neighbour.ENTRY_BYTES + 1))
    stream = pair.connect()
    pair.send(b"1", b"2", b"3")
    assert not stream.aborted
    pair.send(b"4")
    assert stream.aborted
    assert pair.worker.lost == 1
    pair.worker.broken()
    pair.send(b"5")
    assert pair.worker.lost == 2
    pair.worker.by_store = True
    monkeypatch.setattr(neighbour, "MAX_PUBLISHED_BYTES", neighbour.ENTRY_BYTES + 1)
    pair.send(b"6")
    assert pair.worker.lost == 2  # those went by the store
    assert pair.connect().broadcasts == [(6, b"6")]
    pair.worker.close()


async def test_a_connection_in_which_too_much_waits_is_given_up(pair: Pair) -> None:
    stream = pair.connect()
    stream.waiting = neighbour.MAX_KEPT_BYTES + 1
    pair.worker.say_now(b"j")
    assert stream.aborted
