"""What waits for a slow client, and what may be dropped."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from socketcluster_worker.connection import SlowConsumer
from socketcluster_worker.transport.send_queue import SendQueue

POLICIES: tuple[SlowConsumer, ...] = ("disconnect", "drop_oldest", "latest_only")


def filled(*entries: tuple[bytes, SlowConsumer, str | None]) -> SendQueue[bytes]:
    queue: SendQueue[bytes] = SendQueue(len)
    for frame, policy, key in entries:
        queue.add(frame, policy, key)
    return queue


def everything(queue: SendQueue[bytes]) -> bytes:
    return b"".join(queue.take(1 << 30))


def test_frames_are_taken_in_order_and_whole() -> None:
    queue = filled((b"aa", "disconnect", None), (b"bb", "drop_oldest", None), (b"cc", "latest_only", None))
    assert (len(queue), queue.bytes) == (3, 6)
    assert queue.take(3) == [b"aa", b"bb"]
    assert (len(queue), queue.bytes) == (1, 2)
    assert everything(queue) == b"cc"
    assert (len(queue), queue.bytes, queue.dropped) == (0, 0, 0)


def test_drop_oldest_drops_the_oldest_and_no_more_than_needed() -> None:
    queue = filled(*((bytes((65 + number,)) * 2, "drop_oldest", None) for number in range(5)))
    assert queue.trim(5)
    assert queue.dropped == 3
    assert everything(queue) == b"DDEE"


def test_a_message_that_may_not_be_lost_stays_while_others_go() -> None:
    queue = filled((b"aa", "disconnect", None), (b"bb", "drop_oldest", None), (b"cc", "disconnect", None))
    assert queue.trim(4)
    assert everything(queue) == b"aacc"


def test_if_too_much_may_not_be_lost_trimming_is_not_enough() -> None:
    queue = filled((b"aa", "disconnect", None), (b"bb", "drop_oldest", None), (b"cc", "disconnect", None))
    assert not queue.trim(3)


def test_latest_only_keeps_the_newest_of_each_key_at_its_place() -> None:
    queue = filled(
        (b"a1", "latest_only", "a"),
        (b"b1", "latest_only", "b"),
        (b"a2", "latest_only", "a"),
        (b"a3", "latest_only", "a"),
    )
    assert queue.dropped == 2
    assert everything(queue) == b"b1a3"


def test_latest_only_without_a_key_keeps_one_message() -> None:
    queue = filled((b"1", "latest_only", None), (b"x", "drop_oldest", None), (b"2", "latest_only", None))
    assert everything(queue) == b"x2"


def test_a_key_is_free_again_once_its_message_was_taken() -> None:
    queue = filled((b"a1", "latest_only", "a"))
    assert queue.take(1) == [b"a1"]
    queue.add(b"a2", "latest_only", "a")
    assert queue.dropped == 0
    assert everything(queue) == b"a2"


entries = st.tuples(st.binary(min_size=1, max_size=9), st.sampled_from(POLICIES), st.sampled_from(["a", "b", None]))
steps = st.lists(st.one_of(entries, st.integers(0, 40), st.tuples(st.integers(1, 20))), max_size=40)


@given(steps)
def test_the_queue_behaves_as_a_plain_list_would(script: list[Any]) -> None:
    queue: SendQueue[bytes] = SendQueue(len)
    model: OrderedDict[int, tuple[bytes, SlowConsumer, str | None]] = OrderedDict()
    dropped = 0
    for number, step in enumerate(script):
        match step:
            case (frame, policy, key):
                if policy == "latest_only":
                    same = [at for at, (_, other, its) in model.items() if other == policy and its == key]
                    dropped += len(same)
                    for at in same:
                        del model[at]
                model[number] = (frame, policy, key)
                queue.add(frame, policy, key)
            case int(limit):
                for at in [at for at, entry in model.items() if entry[1] != "disconnect"]:
                    if sum(len(entry[0]) for entry in model.values()) > limit:
                        del model[at]
                        dropped += 1
                assert queue.trim(limit) == (sum(len(entry[0]) for entry in model.values()) <= limit)
            case (int(size),):
                expected = b""
                while model and len(expected) < size:
                    expected += model.popitem(last=False)[1][0]
                assert b"".join(queue.take(size)) == expected
        assert queue.bytes == sum(len(entry[0]) for entry in model.values())
        assert (len(queue), queue.dropped) == (len(model), dropped)
    assert everything(queue) == b"".join(entry[0] for entry in model.values())
