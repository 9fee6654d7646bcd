"""What the LMDB engine has after its process was killed, the power was cut, the disk was full or a file was damaged."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.store import writer
from support.store.writer import SEGMENT_BYTES, consistent, get, put

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.commands import END_SESSION, PUT_RECORD, Command
from socketcluster_store.engines.lmdb.engine import LmdbEngine
from socketcluster_store.engines.lmdb.journal import Journal
from socketcluster_store.engines.lmdb.journal import encode as encode_writes
from socketcluster_store.engines.memory import MemoryEngine
from socketcluster_store.errors import EngineError, IncompleteError
from socketcluster_store.executor import ExecutorOptions

SET = store_pb2.VERB_SET
GET_ALL = store_pb2.VERB_GET_ALL
KILLS = 6
encode = msgspec.msgpack.encode


def writing(*arguments: object) -> tuple[str, ...]:
    """Return the command line of a process that writes."""
    return (sys.executable, str(Path(writer.__file__)), *map(str, arguments))


def copy(folder: Path, to: Path) -> Path:
    """Copy the files as a killed process leaves them."""
    shutil.copytree(folder, to)
    return to


@pytest.mark.parametrize("fsync", ["everysec", "always"])
async def test_killed_anywhere_it_has_all_that_was_acknowledged(tmp_path: Path, fsync: str) -> None:
    chance = random.Random(7)
    last = 0
    for _ in range(KILLS):
        process = await asyncio.create_subprocess_exec(*writing(tmp_path, fsync), stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        for _ in range(chance.randrange(1, 1000)):
            acknowledged = int(await process.stdout.readline())
            assert acknowledged == last + 1
            last = acknowledged
        process.kill()
        rest, _ = await process.communicate()
        complete = [line for line in rest.splitlines(keepends=True) if line.endswith(b"\n")]
        last = int(complete[-1]) if complete else last
        partition = await writer.engine(tmp_path).open(0)
        found = await consistent(partition)
        assert found in (last, last + 1)  # the one after may have been written, and not been told
        last = found
        await partition.close()


async def test_a_damaged_journal_gives_all_before_the_damage(tmp_path: Path) -> None:
    original = await writer.engine(tmp_path / "original").open(0)
    for number in range(1, 301):  # more than a segment: some is in LMDB, both segments are in use
        await put(original, number)
    killed = copy(tmp_path / "original", tmp_path / "killed")
    await original.close()
    chance = random.Random(7)
    found = set()
    for attempt in range(60):
        folder = copy(killed, tmp_path / str(attempt))
        path = folder / "00" / "1" / f"journal.{chance.randrange(2)}"
        data = bytearray(path.read_bytes())
        position = chance.randrange(28, len(data))
        if attempt % 3 == 0:  # no power cut does that
            path.write_bytes(data[:position])
            with pytest.raises(IncompleteError, match=rf"{path.name} was cut short: it has {position} bytes of 8192"):
                await writer.engine(folder).open(0)
            continue
        if attempt % 3 == 1:
            data[position] ^= 1 << chance.randrange(8)
        else:  # a block that was not written
            data[position : position + 512] = bytes(len(data[position : position + 512]))
        path.write_bytes(data)
        partition = await writer.engine(folder).open(0)
        last = await consistent(partition)
        found.add(last)
        await put(partition, last + 1)
        again = copy(folder, tmp_path / f"{attempt} again")
        await partition.close()
        partition = await writer.engine(again).open(0)
        assert await consistent(partition) == last + 1
        await partition.close()
    assert len(found) > 10
    assert max(found) == 300


async def test_what_follows_a_lost_segment_is_left_out(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 256)
    assert journal.replay(0) == [{}]
    assert journal.append(encode_writes({b"a": b"1"}))
    journal.turn()
    assert journal.append(encode_writes({b"b": b"2"}))
    journal.close()
    whole = Journal(tmp_path, 256)
    assert whole.replay(0) == [{b"a": b"1"}, {b"b": b"2"}]
    whole.close()
    applied = Journal(tmp_path, 256)
    assert applied.replay(1) == [{b"b": b"2"}]
    applied.close()
    data = bytearray((tmp_path / "journal.0").read_bytes())
    data[28:32] = bytes(4)  # its record's length never reached the disk
    (tmp_path / "journal.0").write_bytes(data)
    torn = Journal(tmp_path, 256)
    assert torn.replay(0) == [{}]
    assert torn.append(encode_writes({b"c": b"3"}))
    torn.close()
    again = Journal(tmp_path, 256)
    assert again.replay(0) == [{b"c": b"3"}]
    again.close()


async def test_what_an_earlier_generation_left_is_no_record(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 256)
    journal.replay(0)
    for number in range(8):
        assert journal.append(encode_writes({b"a": b"%d" % number}))
    journal.turn()
    journal.turn()
    assert journal.append(encode_writes({b"b": b"1"}))
    journal.close()
    data = (tmp_path / "journal.0").read_bytes()
    assert b"a7" in data  # it is still there
    end = 28 + 16
    (tmp_path / "journal.0").write_bytes(data[:end] + b"\x08\0\0\0" + data[end + 4 :])  # and nothing ends what is new
    reopened = Journal(tmp_path, 256)
    assert reopened.replay(2) == [{b"b": b"1"}]
    reopened.close()


async def test_a_journal_is_replayed_again_and_again(tmp_path: Path) -> None:
    partition = await writer.engine(tmp_path / "0").open(0)
    number = 0
    for turn in range(20):
        for _ in range(40):
            number += 1
            await put(partition, number)
        killed = copy(tmp_path / str(turn), tmp_path / str(turn + 1))
        epoch = partition.epoch
        await partition.close()
        partition = await writer.engine(killed).open(0)
        assert partition.epoch == epoch + 1
        assert await consistent(partition) == number
    await partition.close()


async def test_opening_again_and_again_fills_no_journal(tmp_path: Path) -> None:
    partition = await writer.engine(tmp_path / "0").open(0)
    for number in range(1, 101):
        await put(partition, number)
    epoch = partition.epoch
    await partition.close()
    for turn in range(400):  # each leaves a record of its epoch: the journal gets full of them
        folder = tmp_path / "0"
        partition = await writer.engine(folder).open(0)
        assert partition.epoch == epoch + turn + 1
        assert await get(partition, "left") == 100
        await partition.close()


async def test_a_full_disk_is_named_and_loses_nothing(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *writing(tmp_path, "everysec", 64 * 1024), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    error, written, read, after = out.decode().splitlines()
    assert error.startswith(f"partition 0 in {tmp_path / '00' / '1'} cannot be written: ")
    assert read == written
    assert int(after) == int(written) + 1
    partition = await writer.engine(tmp_path).open(0)
    assert await consistent(partition) == int(after)
    await partition.close()


async def test_a_disk_that_has_no_room_for_a_journal_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    for _ in range(2):  # nor is it left locked
        with pytest.raises(EngineError, match=r"cannot open partition 0 in .*00/1: .*No space left"):
            await writer.engine(tmp_path).open(0)
    monkeypatch.undo()
    await (await writer.engine(tmp_path).open(0)).close()


@pytest.mark.parametrize("name", ["journal.0", "data.mdb"])
async def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    await (await writer.engine(tmp_path).open(0)).close()
    (tmp_path / "00" / "1" / name).write_bytes(b"garbage" * 10_000)
    with pytest.raises(EngineError, match=r"cannot open partition 0 in .*00"):
        await writer.engine(tmp_path).open(0)
    await (await writer.engine(tmp_path).open(1)).close()


async def test_a_data_file_that_was_cut_short_is_named(tmp_path: Path) -> None:
    """Read behind its end, it would end the process."""
    partition = await writer.engine(tmp_path / "whole").open(0)
    for number in range(1, 1001):
        await put(partition, number)
    await partition.close()
    size = (tmp_path / "whole" / "00" / "1" / "data.mdb").stat().st_size
    assert size > 8 * 4096
    for pages in range(2, size // 4096, 3):
        cut = copy(tmp_path / "whole", tmp_path / str(pages))
        os.truncate(cut / "00" / "1" / "data.mdb", pages * 4096)
        with pytest.raises(EngineError, match=rf"data\.mdb was cut short: it has {pages * 4096} bytes of {size}"):
            await writer.engine(cut).open(0)
    again = await writer.engine(tmp_path / "whole").open(0)
    assert await consistent(again) == 1000
    await again.close()


async def test_a_batch_too_large_for_a_journal_is_kept_too(tmp_path: Path) -> None:
    partition = await writer.engine(tmp_path / "original").open(0)
    await put(partition, 1)
    large = Command(SET, b"s", ["large"], encode("x" * 3 * SEGMENT_BYTES))
    small = Command(SET, b"s", ["small"], encode(1))
    await asyncio.gather(partition.apply([large, small]), put(partition, 2))
    killed = copy(tmp_path / "original", tmp_path / "killed")
    await partition.close()
    again = await writer.engine(killed).open(0)
    assert await consistent(again) == 2
    assert await again.apply([Command(GET_ALL, b"s")]) == [encode({"large": "x" * 3 * SEGMENT_BYTES, "small": 1})]
    await again.close()


async def test_batches_go_on_in_order_while_checkpoints_are_made(tmp_path: Path) -> None:
    partition = await writer.engine(tmp_path / "original").open(0)
    await asyncio.gather(*(put(partition, number) for number in range(1, 2001)))
    assert await consistent(partition) == 2000
    killed = copy(tmp_path / "original", tmp_path / "killed")
    await partition.close()
    for folder in (killed, tmp_path / "original"):
        again = await writer.engine(folder).open(0)
        assert await consistent(again) == 2000
        await again.close()


async def test_batches_that_wait_for_the_disk_share_a_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs = 0

    def count(descriptor: int, sync: object = os.fdatasync) -> None:
        nonlocal syncs
        syncs += 1
        sync(descriptor)  # type: ignore[operator]

    engine = LmdbEngine(tmp_path, ExecutorOptions(1 << 20), sync_each_commit=True)
    partition = await engine.open(0)
    monkeypatch.setattr(os, "fdatasync", count)
    await asyncio.gather(*(put(partition, number) for number in range(1, 101)))
    assert 1 <= syncs <= 3
    before = syncs
    await put(partition, 101)
    assert syncs == before + 1
    await partition.close()


_sessions = st.sampled_from([b"a", b"ab", b"abc", b""])
_keys = st.sampled_from([chr(0x61 + n) * (n % 3 + 1) for n in range(12)])
_commands = st.one_of(
    st.builds(lambda s, k, n: Command(SET, s, [k], encode("v" * n)), _sessions, _keys, st.integers(0, 80)),
    st.builds(lambda s, k: Command(store_pb2.VERB_REMOVE, s, [k]), _sessions, _keys),
    st.builds(lambda s: Command(store_pb2.VERB_REMOVE_ALL, s), _sessions),
    st.builds(lambda s, n: Command(PUT_RECORD, s, (), bytes([n])), _sessions, st.integers(0, 255)),
    st.builds(lambda s: Command(END_SESSION, s), _sessions),
    st.builds(lambda s: Command(GET_ALL, s), _sessions),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(_commands, min_size=1, max_size=6), max_size=40), reopen=st.sets(st.integers(0, 40)))
def test_it_answers_as_memory_does(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[Command]], reopen: set[int]
) -> None:
    async def compare() -> None:
        engine = LmdbEngine(tmp_path_factory.mktemp("store"), ExecutorOptions(1 << 20), segment_bytes=300)
        model = await MemoryEngine(tmp_path_factory.mktemp("model"), ExecutorOptions(1 << 20)).open(0)
        partition = await engine.open(0)
        for number, batch in enumerate(batches):
            if number in reopen:
                await partition.close()
                partition = await engine.open(0)
            assert await partition.apply(batch) == await model.apply(batch)
            assert await partition.records() == await model.records()
        await partition.close()

    asyncio.run(compare())
