"""A partition whose process died opens on a disk that has not a byte left."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.machine import disk
from support.store import writer
from support.store.writer import consistent, opened

pytestmark = pytest.mark.skipif(disk.lack() is not None, reason=str(disk.lack()))


@pytest.fixture
def small(tmp_path: Path) -> Iterator[disk.Disk]:
    with disk.small_disk(tmp_path / "disk", "4m") as made:
        yield made


def fill(folder: Path) -> Path:
    """Leave no byte; return the file that has them."""
    path = folder / "other"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        for size in (1 << 16, 1):
            while True:
                try:
                    os.write(descriptor, b"x" * size)
                except OSError:
                    break
    finally:
        os.close(descriptor)
    assert not shutil.disk_usage(folder).free
    return path


@pytest.mark.parametrize("until", ["killed", "refused"])
async def test_what_a_dead_process_left_opens_without_a_new_block(small: disk.Disk, until: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(writer.__file__)), str(small.folder / "p"), "always"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    for _ in range(100):
        assert await process.stdout.readline()
    if until == "killed":
        process.kill()
    other = fill(small.folder)  # else it ends when both journals are full
    rest, _ = await process.communicate()
    last = max([100, *(int(line) for line in rest.splitlines(keepends=True) if line.endswith(b"\n"))])
    fill(small.folder)  # what its end freed
    engine = writer.engine(small.folder / "p")
    partition = await opened(engine)
    assert await consistent(partition) in (last, last + 1)
    other.unlink()
    await partition.close()
    partition = await opened(engine)
    assert await consistent(partition) in (last, last + 1)
    await partition.close()


async def test_a_lock_is_written_over_and_not_anew(small: disk.Disk) -> None:
    engine = writer.engine(small.folder / "p", store_id="a-long-name-of-a-store-1")
    await (await opened(engine)).close()
    lock = small.folder / "p/00/1/owner.lock"
    size = lock.stat().st_size
    fill(small.folder)
    partition = await opened(writer.engine(small.folder / "p", store_id="two"))
    assert lock.stat().st_size == size
    assert lock.read_bytes()[1:].rstrip(b"\0") == b"two"
    await partition.close()
