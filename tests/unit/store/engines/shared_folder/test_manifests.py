"""A partition that has existed is not taken for a new one, whatever of it is missing."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from support.store import writer
from support.store.writer import consistent, put

from socketcluster_store.engine import EnginePartition
from socketcluster_store.engines.lmdb import journal
from socketcluster_store.engines.lmdb.engine import LmdbEngine
from socketcluster_store.engines.shared_folder import manifests
from socketcluster_store.engines.shared_folder.register import PartitionState, Register, RegisterEntry, registered
from socketcluster_store.errors import FencedError, IncompleteError
from socketcluster_store.executor import ExecutorOptions
from socketcluster_store.maintenance import verify
from socketcluster_store.maintenance.accept import accept

WRITES = 400  # several checkpoints


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """Two partitions that were closed: 0 with writes, 1 empty."""
    path = tmp_path / "partitions"
    engine = writer.engine(path)
    await (await engine.open(1)).close()
    partition = await writer.opened(engine)
    for number in range(1, WRITES + 1):
        await put(partition, number)
    await partition.close()
    return path


async def found(folder: Path) -> int:
    """Open partition 0 as a process that has done nothing before; return what it has."""
    partition = await writer.opened(writer.engine(folder))
    try:
        return await consistent(partition)
    finally:
        await partition.close()


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "00/1" / name).unlink()


def cut(name: str, size: int) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / "00/1" / name, size)


def zero(name: str) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        path = folder / "00/1" / name
        path.write_bytes(bytes(path.stat().st_size))

    return do


def garble_records(folder: Path) -> None:
    for name in manifests.JOURNALS:
        path = folder / "00/1" / name
        data = path.read_bytes()
        path.write_bytes(data[:64] + bytes([255] * 64) + data[128:])


def earlier_data(folder: Path) -> None:
    """Put an LMDB environment there that is whole, and has nothing."""
    shutil.copyfile(folder / "01/1/data.mdb", folder / "00/1/data.mdb")


def another_partition(folder: Path) -> None:
    shutil.rmtree(folder / "00")
    shutil.copytree(folder / "01", folder / "00")


def another_installation(folder: Path) -> None:
    shutil.rmtree(folder / "00/1")
    (folder / "00/1").mkdir()


def newer_generation_gone(folder: Path) -> None:
    """Have what is there be older than what the register knows."""
    register = Register(folder)
    entry = register.entry(0)
    register.write(0, RegisterEntry(PartitionState.KNOWN, 2, entry.identity, entry.sequence + 1))


LOSSES: list[tuple[Callable[[Path], None], str]] = [
    (remove("data.mdb"), r"data\.mdb is missing"),
    (cut("data.mdb", 0), r"data\.mdb is empty"),
    (cut("data.mdb", 8192), r"data\.mdb was cut short"),
    (earlier_data, r"data\.mdb, which is older|data\.mdb is older than it was"),
    (remove("journal.0"), r"journal\.0 is missing"),
    (remove("journal.1"), r"journal\.1 is missing"),
    (cut("journal.0", 0), r"journal\.0 was cut short: it has 0 bytes of 8192"),
    (cut("journal.1", 4000), r"journal\.1 was cut short: it has 4000 bytes of 8192"),
    (zero("journal.0"), r"journal\.0 was emptied"),
    (zero("journal.1"), r"journal\.1 was emptied"),
    (garble_records, r"the journals in .* end before a record of generation"),
    (remove("manifest"), r"00/1/manifest is missing"),
    (cut("manifest", 50), r"00/1/manifest is damaged"),
    (lambda folder: shutil.rmtree(folder / "00"), r"its folder (1 )?is missing"),
    (lambda folder: shutil.rmtree(folder / "00/1"), r"its folder 1 is missing"),
    (another_partition, r"belongs to another partition or installation"),
    (another_installation, r"00/1/manifest is missing"),
    (newer_generation_gone, r"its generation 2 is missing, 1 is an older one"),
]


@pytest.mark.parametrize(("lose", "what"), LOSSES, ids=[what for _, what in LOSSES])
async def test_what_is_missing_is_named_and_nothing_is_made_in_its_place(
    folder: Path, tmp_path: Path, lose: Callable[[Path], None], what: str
) -> None:
    whole = shutil.copytree(folder, tmp_path / "backup")
    lose(folder)
    for _ in range(2):
        with pytest.raises(Exception, match=what) as refused:
            await found(folder)
    if "data.mdb was cut" not in str(refused.value) and "which is older" not in str(refused.value):
        assert refused.type is IncompleteError
        assert "restore it from a backup" in str(refused.value)
        assert "socketcluster store accept" in str(refused.value)
    await (await writer.engine(folder).open(1)).close()  # the others are
    shutil.rmtree(folder)
    shutil.copytree(whole, folder)
    assert await found(folder) == WRITES


async def test_a_register_that_is_gone_believes_partitions_that_have_a_manifest_and_no_others(folder: Path) -> None:
    shutil.rmtree(folder / "00")
    (folder / "manifest").unlink()
    with capture_logs() as logs:
        await (await writer.engine(folder).open(1)).close()
    assert "the register of partitions was missing" in logs[0]["event"]
    for _ in range(2):
        with pytest.raises(IncompleteError, match=r"partition 0 .* (its folder is missing|it is empty)"):
            await found(folder)


@pytest.mark.parametrize("size", [0, 5000])
async def test_a_register_that_was_cut_short_is_made_anew(folder: Path, size: int) -> None:
    os.truncate(folder / "manifest", size)
    with capture_logs() as logs:
        assert await found(folder) == WRITES
    assert "the register of partitions was cut short and is made anew" in {each["event"] for each in logs}
    shutil.rmtree(folder / "00")
    with pytest.raises(IncompleteError, match=r"its folder (1 )?is missing"):
        await found(folder)


async def test_an_entry_of_the_register_that_is_damaged_wants_a_manifest(folder: Path) -> None:
    register = folder / "manifest"
    data = register.read_bytes()
    register.write_bytes(bytes(256) + data[256:])
    assert await found(folder) == WRITES
    register.write_bytes(bytes(256) + data[256:])
    shutil.rmtree(folder / "00")
    with pytest.raises(IncompleteError, match=r"its folder is missing|it is empty"):
        await found(folder)


def test_one_torn_slot_leaves_what_was_written_before(tmp_path: Path) -> None:
    register = Register(tmp_path)
    for sequence in (2, 3):
        register.write(5, RegisterEntry(register.entry(5).state, 7 + sequence, bytes(16), sequence))
    assert register.entry(5).generation == 10
    data = bytearray((tmp_path / "manifest").read_bytes())
    data[5 * 256 + 128 + 20] ^= 1  # of the slot that was written last
    (tmp_path / "manifest").write_bytes(data)
    assert (register.entry(5).generation, register.entry(5).sequence) == (9, 2)


def stranger(folder: Path) -> None:
    (folder / "00/99").mkdir()


def copied_stranger(folder: Path) -> None:
    shutil.copytree(folder / "00/1", folder / "00/99")


def older_stranger(folder: Path) -> None:
    shutil.copytree(folder / "01/1", folder / "00/0")


@pytest.mark.parametrize("make", [stranger, copied_stranger, older_stranger])
async def test_folders_that_do_not_belong_to_a_partition_are_named_and_left_alone(
    folder: Path, make: Callable[[Path], None]
) -> None:
    make(folder)
    (made,) = (path for path in (folder / "00").iterdir() if path.name in ("0", "99"))
    before = {path.name: path.read_bytes() for path in made.iterdir()}
    with capture_logs() as logs:
        assert await found(folder) == WRITES
    assert [each["paths"] for each in logs if "left alone" in each["event"]] == [[str(made)]]
    assert {path.name: path.read_bytes() for path in made.iterdir()} == before


def forget_manifests(folder: Path) -> None:
    """Leave what a version without manifests would."""
    for path in (folder / "manifest", *folder.glob("*/*/manifest")):
        path.unlink()


async def test_a_folder_of_the_version_before_is_taken_over_once(folder: Path) -> None:
    forget_manifests(folder)
    assert await found(folder) == WRITES
    assert (folder / "00/1/manifest").exists()
    (folder / "00/1/data.mdb").unlink()
    with pytest.raises(IncompleteError, match=r"data\.mdb is missing"):
        await found(folder)
    shutil.rmtree(folder / "01")  # not opened yet, but it was there
    with pytest.raises(IncompleteError, match=r"partition 1 .* is missing"):
        await writer.engine(folder).open(1)


async def taken_from_one_that_hangs(folder: Path, generation: int) -> EnginePartition:
    """Take partition 0 from a store whose lock is left; LMDB opens a file once in a process."""
    owner = os.open(folder / f"00/{generation}/owner.lock", os.O_RDWR)
    try:
        fcntl.flock(owner, fcntl.LOCK_EX)
        os.pwrite(owner, b"\0hung-1".ljust(1025, b"\0"), 0)
        return await writer.engine(folder).take(0, "hung-1")
    finally:
        os.close(owner)


async def taken_by_the_version_before(folder: Path) -> None:
    """Have partition 0 taken from a store that hangs, into a folder as a version without manifests makes it."""
    before = Register(folder).entry(0)
    taker = await taken_from_one_that_hangs(folder, 1)
    await put(taker, WRITES + 1)
    await taker.close()
    (folder / "00/2/manifest").unlink()
    Register(folder).write(0, RegisterEntry(before.state, 1, before.identity, Register(folder).entry(0).sequence + 1))


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_generation_that_a_store_of_the_version_before_took_over_goes_on(folder: Path, *, hangs: bool) -> None:
    identity = Register(folder).entry(0).identity
    await taken_by_the_version_before(folder)
    finding = dict(verify.examine(folder))["00"]
    assert (finding.lost, "took the partition over" in finding.text) == (False, True)
    with capture_logs() as logs:
        if hangs:
            partition = await taken_from_one_that_hangs(folder, 2)
            assert await consistent(partition) == WRITES + 1
            await partition.close()
        else:
            assert await found(folder) == WRITES + 1
    (told,) = (each for each in logs if "a store of a version before manifests took it over" in each["event"])
    assert (told["log_level"], told["path"]) == ("warning", str(folder / "00/2"))
    entry = Register(folder).entry(0)
    assert (entry.state, entry.generation, entry.identity) == (PartitionState.KNOWN, 3 if hangs else 2, identity)
    with capture_logs() as logs:
        assert await found(folder) == WRITES + 1
    assert not logs
    (folder / f"00/{entry.generation}/journal.0").unlink()
    with pytest.raises(IncompleteError, match=r"journal\.0 is missing"):
        await found(folder)


async def test_a_later_generation_that_no_store_had_open_where_it_lies_is_named_and_can_be_accepted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SEGMENT_BYTES", writer.SEGMENT_BYTES)
    await taken_by_the_version_before(folder)
    shutil.copytree(folder / "00/2", folder / "00/other")  # anybody's, as far as its files can tell
    shutil.rmtree(folder / "00/2")
    (folder / "00/other").rename(folder / "00/2")
    for _ in range(2):
        with pytest.raises(
            IncompleteError, match=r"00/2 has no manifest.*gives up nothing that is in it.*store accept"
        ):
            await found(folder)
    assert not (folder / "00/2/manifest").exists()
    assert "the generation that was known is missing" in dict(verify.examine(folder))["00"].text
    assert "its journals have that fits" in accept(folder / "00", really=True)
    assert await found(folder) == WRITES + 1


@pytest.mark.parametrize(
    "lose",
    [remove("data.mdb"), cut("data.mdb", 0), remove("journal.0"), remove("journal.1")],
    ids=["data.mdb removed", "data.mdb emptied", "journal.0 removed", "journal.1 removed"],
)
async def test_what_is_missing_in_a_folder_of_the_version_before_is_named(
    folder: Path, lose: Callable[[Path], None]
) -> None:
    forget_manifests(folder)
    lose(folder)
    with pytest.raises(IncompleteError, match=r"is missing|is empty"):
        await found(folder)


async def test_partitions_that_a_folder_of_the_version_before_has_not_are_named(folder: Path) -> None:
    forget_manifests(folder)
    with capture_logs() as logs:
        assert await found(folder) == WRITES
    (told,) = (each for each in logs if "is the folder complete" in each["event"])
    assert told["partitions"] == list(range(2, 64))


async def test_stores_that_begin_a_new_folder_together_make_one_register(tmp_path: Path) -> None:
    engines = [LmdbEngine(tmp_path / "p", ExecutorOptions(1 << 20), store_id=f"store-{number}") for number in range(4)]
    opened = await asyncio.gather(*(engines[number % 4].open(number) for number in range(16)))
    for partition in opened:
        await partition.close()
    entries = registered(tmp_path / "p")
    assert entries is not None
    assert [entry.state for entry in entries] == [PartitionState.KNOWN] * 16 + [PartitionState.NEW] * 48
    assert len({entry.identity for entry in entries[:16]}) == 16
    assert {path.name for path in (tmp_path / "p").iterdir() if not path.name.isdecimal()} == {"manifest"}


@pytest.mark.parametrize("name", ["data.mdb", "journal.0", "journal.1", "manifest", "owner.lock"])
@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "replaced"])
async def test_an_owner_gives_up_when_its_files_are_no_longer_those_in_the_folder(
    folder: Path, name: str, *, replaced: bool
) -> None:
    partition = await writer.opened(writer.engine(folder))
    path = folder / "00/1" / name
    if replaced:
        shutil.copyfile(path, path.with_name("other"))
        path.with_name("other").rename(path)
    else:
        path.unlink()
    looks = 0
    while not partition.fenced:
        looks += 1
        assert looks < 4  # one a second
    with pytest.raises(FencedError, match=rf"its {name} was removed or replaced"):
        await put(partition, WRITES + 1)
    await partition.close()


async def test_an_owner_whose_data_folder_was_removed_does_not_begin_anew(folder: Path) -> None:
    engine = writer.engine(folder)
    partition = await writer.opened(engine)
    shutil.rmtree(folder)
    assert partition.fenced
    await partition.close()
    for _ in range(2):
        with pytest.raises(IncompleteError, match="manifest was removed while this store runs"):
            await engine.open(0)
        assert not await asyncio.to_thread(folder.exists)
    await (await writer.engine(folder).open(1)).close()  # of a store that was started since
    with pytest.raises(IncompleteError, match="manifest was replaced while this store runs"):
        await engine.open(0)


async def test_a_killed_store_leaves_nothing_that_does_not_fit(folder: Path, tmp_path: Path) -> None:
    """Nothing that is said without a sync is more than what is there."""
    partition = await writer.opened(writer.engine(folder))
    for number in range(WRITES + 1, WRITES + 200):
        await put(partition, number)
        if number % 40 == 0:
            copied = shutil.copytree(folder, tmp_path / str(number))
            assert await found(copied) in (number, number - 1)
    await partition.close()
