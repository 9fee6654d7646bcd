"""What the LMDB engine has after several power cuts, each of which leaves any mixture of pages on the disk.

``PAGE_MIX_SEEDS=500 pytest tests/unit/store/engines/lmdb/test_engine_power_cuts.py`` tries more of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from pathlib import Path

import lmdb
import msgspec
import pytest
from support.machine.power import Power
from support.store import writer
from support.store.writer import consistent, put

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.commands import Command
from socketcluster_store.engine import EnginePartition
from socketcluster_store.engines.lmdb.engine import LmdbEngine
from socketcluster_store.engines.lmdb.journal import Journal
from socketcluster_store.engines.lmdb.journal import encode as encode_writes
from socketcluster_store.errors import EngineError, FencedError
from socketcluster_store.executor import ExecutorOptions

SEEDS = int(os.environ.get("PAGE_MIX_SEEDS", "25"))
LIVES = 8
SEGMENT_BYTES = 4 * 4096
KEYS = [f"k{number}" for number in range(30)]
encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode

Batch = dict[str, str | None]
"""What is set at some keys; ``None``: it is removed."""


class Past:
    """The batches that happened, and how many of them are to be found at least."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.kept = 0
        self._count = 0

    def next(self, chance: random.Random) -> Batch:
        """Return a batch that no other one equals, but for what they have in common."""
        self._count += 1
        batch: Batch = {"number": str(self._count)}
        for key in chance.sample(KEYS, chance.randrange(1, 4)):
            size = chance.choice((5, 50, 900, 4096, 6000)) if chance.random() < 0.98 else 2 * SEGMENT_BYTES
            batch[key] = None if chance.random() < 0.1 else f"{self._count:06}" + "x" * size
        self.batches.append(batch)
        return batch

    def keep(self, batch: Batch) -> None:
        """Note that a batch is to be found, and those before it."""
        self.kept = max(self.kept, self._place(batch) + 1)

    def refuse(self, batch: Batch) -> None:
        """Forget a batch that was refused."""
        place = self._place(batch)
        del self.batches[place]
        self.kept -= place < self.kept

    def _place(self, batch: Batch) -> int:
        return next(place for place, each in enumerate(self.batches) if each is batch)

    def found(self, state: dict[str, str], written: int) -> None:
        """Go on from the state that was found; it has to be that after some batch, ``written`` or later."""
        after: list[dict[str, str]] = [{}]
        for batch in self.batches:
            merged = {**after[-1], **batch}
            after.append({key: value for key, value in merged.items() if value is not None})
        assert state in after, f"number {state.get('number')} is no state of this past"
        count = after.index(state)
        assert count >= max(self.kept, written), f"{count} batches; {self.kept} were synced, {written} written"
        self.kept = count
        del self.batches[count:]


async def state_of(partition: EnginePartition) -> dict[str, str]:
    (found,) = await partition.apply([Command(store_pb2.VERB_GET_ALL, b"s")])
    assert isinstance(found, bytes)
    return decode(found, type=dict[str, str])


async def write(partition: EnginePartition, power: Power, past: Past, chance: random.Random, *, always: bool) -> None:
    """Apply a batch; note that it is to be kept if that was acknowledged before the power was cut.

    Raises:
        FencedError: the partition was given up, and the batch may be there.
    """
    batch = past.next(chance)
    commands = [
        Command(store_pb2.VERB_REMOVE, b"s", [key])
        if value is None
        else Command(store_pb2.VERB_SET, b"s", [key], encode(value))
        for key, value in batch.items()
    ]
    try:
        await partition.apply(commands)
    except FencedError:
        raise
    except EngineError:
        past.refuse(batch)
    else:
        if always and power.off is None:
            past.keep(batch)


async def live(partition: EnginePartition, power: Power, past: Past, chance: random.Random, *, always: bool) -> None:
    """Write until the power is cut, or for a while.

    Raises:
        FencedError: the partition was given up.
    """
    for _ in range(chance.choice((5, 20, 60))):
        writes = [write(partition, power, past, chance, always=always) for _ in range(chance.choice((1, 1, 4)))]
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome
        if chance.random() < 0.3:
            power.write_back()
        if not always and chance.random() < 0.05:
            last = past.batches[-1:]
            with contextlib.suppress(EngineError):
                await partition.sync()
                if power.off is None and last:
                    past.keep(last[0])
        if power.off is not None:
            return


async def opened(power: Power, *, always: bool) -> EnginePartition:
    """Open the partition, at last."""
    folder = power.root / "app" / "partitions"
    engine = LmdbEngine(folder, ExecutorOptions(1 << 20), sync_each_commit=always, segment_bytes=SEGMENT_BYTES)
    while True:
        with contextlib.suppress(EngineError):
            return await writer.opened(engine)


@pytest.mark.parametrize("failing", [0.0, 0.1], ids=["sound", "failing"])
@pytest.mark.parametrize("fsync", ["always", "now and then"])
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_what_is_found_is_a_past_that_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, fsync: str, failing: float
) -> None:
    chance = random.Random(f"{seed} {fsync} {failing}")
    always = fsync == "always"
    past = Past()
    (tmp_path / "r").mkdir()
    power = Power(tmp_path / "r", chance, failing)
    epoch = written = 0
    for _ in range(LIVES):
        with monkeypatch.context() as patch:
            power.install(patch)
            partition = await opened(power, always=always)
            given_up = False
            if power.off is None:
                assert partition.epoch > epoch
                epoch = partition.epoch
                past.found(await state_of(partition), written)
                try:
                    await live(partition, power, past, chance, always=always)
                except FencedError:
                    given_up = True
            killed = power.off is None and chance.random() < 0.3
            written = len(past.batches) if killed and not given_up else 0
            if killed:
                successor = power.kill()
            elif given_up and power.off is None:
                successor = power
            else:
                successor = Power(power.cut(), chance, failing)
            with contextlib.suppress(EngineError):
                await partition.close()
        if successor is not power:
            power.close()
        power = successor
    power.close()


def two_segments(folder: Path) -> None:
    """Leave what has generations 1 and 2."""
    folder.mkdir()
    journal = Journal(folder, 256)
    journal.replay(0)
    journal.append(encode_writes({b"a": b"1"}))
    journal.turn()
    journal.append(encode_writes({b"b": b"2"}))
    journal.close()


def test_a_segment_that_was_left_out_never_counts_again(tmp_path: Path) -> None:
    two_segments(tmp_path / "p")
    data = (tmp_path / "p" / "journal.0").read_bytes()
    (tmp_path / "p" / "journal.0").write_bytes(data[:28] + bytes(len(data) - 28))  # its records are not on the disk
    journal = Journal(tmp_path / "p", 256)
    assert journal.replay(0) == [{}]
    journal.close()
    again = Journal(tmp_path / "p", 256)
    assert again.replay(1) == [{}]  # the first segment is in LMDB now, and the turn to the second not on the disk
    again.close()


def test_a_segment_of_another_past_does_not_follow_what_lmdb_has(tmp_path: Path) -> None:
    for previous, found in ((b"1", [{b"b": b"2"}]), (b"2", [{}])):
        folder = tmp_path / previous.decode()
        two_segments(folder)
        whole = Journal(folder, 256)
        assert whole.replay(0) == [{b"a": b"1"}, {b"b": b"2"}]
        crc = whole.previous + (previous != b"1")
        whole.close()
        journal = Journal(folder, 256)
        assert journal.replay(1, crc) == found
        assert journal.previous == crc
        journal.close()


def test_a_journal_that_is_ahead_of_lmdb_is_refused(tmp_path: Path) -> None:
    two_segments(tmp_path / "p")
    journal = Journal(tmp_path / "p", 256)
    journal.replay(0)
    journal.turn()
    journal.close()
    older = Journal(tmp_path / "p", 256)
    with pytest.raises(EngineError, match=r"journal\.0 has generation 3, but data\.mdb, which is older, ends with 0"):
        older.replay(0)
    assert older.replay(1) == [{b"b": b"2"}, {}]  # and is as it was
    older.close()


async def test_a_folder_whose_lmdb_knows_no_crc_is_opened(tmp_path: Path) -> None:
    partition = await writer.engine(tmp_path).open(0)
    for number in range(1, 200):
        await put(partition, number)
    await partition.close()
    with lmdb.open(str(tmp_path / "00" / "1"), lock=False) as environment, environment.begin(write=True) as transaction:
        assert transaction.delete(b"p")
    partition = await writer.engine(tmp_path).open(0)
    assert await consistent(partition) == 199
    for number in range(200, 400):
        await put(partition, number)
    await partition.close()
    with lmdb.open(str(tmp_path / "00" / "1"), lock=False) as environment, environment.begin() as transaction:
        assert (transaction.get(b"p") or b"")[:8] == transaction.get(b"j")
    partition = await writer.engine(tmp_path).open(0)
    assert await consistent(partition) == 399
    await partition.close()
