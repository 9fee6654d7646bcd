"""What a partition remembers of a worker's process: the same after a takeover, at a cost that does not rise."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.commands import Command, Outcome
from socketcluster_store.data import applied_log as module
from socketcluster_store.data.applied_log import PREFIX, AppliedLog, forget, read_records, remember, result_of
from socketcluster_store.engines.sorted_map import SortedMap
from socketcluster_store.errors import InvalidError, Refusal

ADD, SET = store_pb2.VERB_ADD, store_pb2.VERB_SET
PROCESS = "worker/1"


class Counting(SortedMap):
    """A key-value store that counts what is written to it."""

    written = 0
    puts = 0

    def put(self, key: bytes, value: bytes, /) -> None:
        """Set the value at ``key``."""
        self.written += len(value)
        self.puts += 1
        super().put(key, value)


class Partition:
    """Applies batches of one process, as the store does; results are told by the test."""

    def __init__(self) -> None:
        self.kv = Counting()
        self.applied = AppliedLog(PROCESS.encode())
        self.waiting: dict[int, Outcome] = {}  # what the worker has no answer to
        self.last = 0

    def batch(self, *outcomes: Outcome, late: Sequence[int] = ()) -> None:
        """Apply a batch with these outcomes; those at the places ``late`` are known only after the commit."""
        first = self.last + 1
        ids = range(first, first + len(outcomes))
        self.last += len(outcomes)
        self.waiting.update(zip(ids, outcomes, strict=True))
        known = [(number, each) for number, each in zip(ids, outcomes, strict=True) if number - first not in late]
        refused = [result_of(number, outcome) for number, outcome in known if isinstance(outcome, Refusal)]
        carried_out = [(number, outcome) for number, outcome in known if not isinstance(outcome, Refusal)]
        batch = [Command(SET if outcome == b"" else ADD, b"") for _, outcome in carried_out]
        command_ids = [number for number, _ in carried_out]
        command = self.applied.command(self.last, next(iter(self.waiting)), refused, lambda: command_ids, 5.0)
        remember(self.kv, command, batch, [outcome for _, outcome in carried_out])
        self.applied.settle(
            [result_of(number, each) for number, each in zip(ids, outcomes, strict=True) if each != b""]
        )

    def answered(self, count: int) -> None:
        """Have the worker get the answers to its oldest operations."""
        for operation_id in list(self.waiting)[:count]:
            del self.waiting[operation_id]

    def taken_over(self) -> AppliedLog:
        """Return what the next owner knows."""
        return read_records(self.kv.scan(PREFIX))[PROCESS]

    def taken_back(self) -> None:
        """Be the next owner."""
        self.applied = self.taken_over()


def answer(applied: AppliedLog, operation_id: int) -> Outcome:
    outcome = applied.outcome(operation_id)
    return b"" if outcome is None else outcome


def test_pages_are_gone_when_the_worker_has_what_is_on_them() -> None:
    partition = Partition()
    partition.batch(*[b"result"] * (module.PAGE_RESULTS + 1))
    assert partition.applied.forgetting().detail == [0]
    partition.answered(module.PAGE_RESULTS + 1)
    partition.batch(b"")
    assert partition.applied.forgetting().detail == []
    assert len(list(partition.kv.scan(PREFIX))) == 1


def answers(applied: AppliedLog, operation_ids: Sequence[int]) -> list[Any]:
    found = [answer(applied, operation_id) for operation_id in operation_ids]
    return [str(outcome) if isinstance(outcome, Refusal) else outcome for outcome in found]


def is_lost(outcome: Outcome) -> bool:
    return isinstance(outcome, Refusal) and outcome.code == store_pb2.Error.CODE_RESULT_LOST


def expected(outcomes: Sequence[Outcome]) -> list[Any]:
    return [str(outcome) if isinstance(outcome, Refusal) else outcome for outcome in outcomes]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_comes_the_next_owner_answers_as_this_one(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(module, "PAGE_BYTES", chance.choice((50, 4096)))
    partition = Partition()
    for number in range(200):
        outcomes: list[Outcome] = [
            chance.choice((b"", b"", msgspec.msgpack.encode(number), b"x" * chance.randrange(60), InvalidError("no")))
            for _ in range(chance.choice((1, 2, 40)))
        ]
        partition.batch(*outcomes)
        assert partition.applied.highest == partition.last
        waiting = list(partition.waiting)
        for applied in (partition.applied, partition.taken_over()):
            assert answers(applied, waiting) == expected(list(partition.waiting.values()))
            assert applied.highest == partition.last
        partition.answered(chance.choice((0, 1, 30, 1000)))
        if not chance.randrange(10):
            partition.taken_back()
    partition.answered(100_000)
    partition.batch(b"")
    assert [key for key, _ in partition.kv.scan(PREFIX)] == [PREFIX + PROCESS.encode()]


def test_a_batch_costs_what_is_in_it_however_many_results_wait() -> None:
    partition = Partition()
    costs = []
    for _ in range(50):
        before, puts = partition.kv.written, partition.kv.puts
        for _ in range(100):
            partition.batch(*[b"result"] * 10)
        costs.append((partition.kv.written - before, partition.kv.puts - puts))
    # ids become longer by a few bytes, and that is all
    assert max(costs)[0] < 1.3 * min(costs)[0]
    assert {puts for _, puts in costs} == {costs[0][1]}
    assert answers(partition.taken_over(), [1, 25_000, 50_000]) == [b"result"] * 3


def test_a_few_results_that_wait_are_no_page() -> None:
    partition = Partition()
    for _ in range(1000):
        partition.batch(b"result")
        partition.batch(b"")
        partition.answered(2)
    assert partition.kv.puts == 2000
    assert len(partition.kv) == 1


def test_slots_are_used_again() -> None:
    partition = Partition()
    for _ in range(100):
        partition.batch(*[b"result"] * 20)
        partition.answered(20)
    assert len(partition.kv) <= 3
    assert max(key for key, _ in partition.kv.scan(PREFIX + b"\0")) < PREFIX + b"\0\0\0\0\4"


def test_what_is_known_only_after_the_commit_is_written_with_the_next_batch() -> None:
    partition = Partition()
    partition.batch(*[b"late"] * 30, late=range(30))
    assert answers(partition.applied, [1, 30]) == [b"late", b"late"]
    partition.batch(b"")
    assert answers(partition.taken_over(), [1, 30]) == [b"late", b"late"]


def test_of_too_many_bytes_the_oldest_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_BYTES", 25_000)
    partition = Partition()
    for _ in range(10):
        partition.batch(b"x" * 5000, b"")
    for applied in (partition.applied, partition.taken_over()):
        found = [answer(applied, operation_id) for operation_id in range(1, 21)]
        assert all(is_lost(outcome) for outcome in found[:10:2])
        assert found[10::2] == [b"x" * 5000] * 5
        assert found[1::2] == [b""] * 10
    before = partition.kv.written
    partition.taken_back()
    partition.batch(b"x" * 5000)
    assert partition.kv.written - before < 5500  # of what was lost nothing is written again
    partition.batch(*[b"y" * 6000] * 5)  # too much by itself
    found = [answer(partition.taken_over(), operation_id) for operation_id in range(1, 27)]
    assert all(is_lost(outcome) for outcome in [*found[:20:2], *found[20:22]])
    assert found[22:] == [b"y" * 6000] * 4


class Counted(deque[Any]):
    """A queue that counts how many of its items are looked at."""

    looks = 0

    def __iter__(self) -> Iterator[Any]:
        for item in super().__iter__():
            Counted.looks += 1
            yield item


def test_a_batch_looks_past_nothing_that_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_BYTES", 25_000)
    partition = Partition()
    for _ in range(500):
        partition.batch(b"x" * 5000)
    applied = partition.applied
    for name in ("_pages", "_whole"):
        if hasattr(applied, name):
            setattr(applied, name, Counted(getattr(applied, name)))
    Counted.looks = 0
    for _ in range(10):
        partition.batch(b"x" * 5000)
    assert Counted.looks <= 10 * 4
    found = [answer(applied, operation_id) for operation_id in range(1, 511)]
    assert [is_lost(outcome) for outcome in found] == [True] * 505 + [False] * 5


def test_results_have_a_largest_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_RESULTS", 100)
    partition = Partition()
    for _ in range(50):
        partition.batch(*[b"r"] * 20)
    assert len(partition.kv) <= 8
    for applied in (partition.applied, partition.taken_over()):
        assert answers(applied, [1, 950, 1000]) == [b"", b"r", b"r"]


def test_a_process_that_is_forgotten_leaves_nothing() -> None:
    partition = Partition()
    for _ in range(5):
        partition.batch(*[b"r"] * 20)
    assert len(partition.kv) == 6
    forget(partition.kv, partition.applied.forgetting())
    assert len(partition.kv) == 0


def test_the_record_of_an_earlier_version_is_read() -> None:
    kv = SortedMap()
    results = [(number, 0, b"r", "") for number in range(1, 100)]
    kv.put(PREFIX + PROCESS.encode(), msgspec.msgpack.encode((99, 5, results)))
    partition = Partition()
    partition.kv.put(*next(kv.scan(PREFIX)))
    partition.waiting, partition.last = dict.fromkeys(range(1, 100), b"r"), 99
    partition.taken_back()
    for _ in range(2):
        partition.batch(b"r")
        assert answers(partition.taken_over(), range(1, partition.last + 1)) == [b"r"] * partition.last
