"""What the LMDB engine has of a partition that was taken from a process that hung within a checkpoint."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest
from support.store import hanger, writer
from support.store.writer import consistent, put

from socketcluster_store.engines.lmdb import journal
from socketcluster_store.engines.lmdb.journal import Journal
from socketcluster_store.errors import EngineError


@pytest.mark.parametrize("woken", ["within the copy", "after the copy"])
@pytest.mark.parametrize("stage", hanger.STAGES)
async def test_taken_within_a_checkpoint_it_has_all_that_was_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, woken: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "support.store.hanger", str(tmp_path), stage),
        cwd=Path(hanger.__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
    )
    copy_journal = journal.copy

    def copy_and_wake(former: Path, new: Path) -> None:
        copy_journal(former, new)
        os.kill(process.pid, signal.SIGCONT)
        with contextlib.suppress(ChildProcessError):  # the loop had it first
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

    if woken == "within the copy":  # the checkpoint is done, or given up, before LMDB is copied
        monkeypatch.setattr(journal, "copy", copy_and_wake)
    try:
        await asyncio.to_thread(os.waitid, os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        taken = await writer.engine(tmp_path, store_id="taker").take(0, hanger.STORE_ID)
        found = await consistent(taken)
        await put(taken, found + 1)
        if woken == "after the copy":
            process.send_signal(signal.SIGCONT)
        out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    *acknowledged, fenced = out.decode().split()
    assert fenced == "fenced"
    assert found == int(acknowledged[-1])
    assert await consistent(taken) == found + 1
    await taken.close()
    again = await writer.engine(tmp_path).open(0)
    assert again.epoch > taken.epoch
    assert await consistent(again) == found + 1
    await again.close()


def test_a_segment_that_is_begun_while_it_is_copied_counts_as_never_begun(tmp_path: Path) -> None:
    former, new = tmp_path / "former", tmp_path / "new"
    former.mkdir()
    new.mkdir()
    original = Journal(former, 256)
    original.replay(0)
    original.turn()
    original.append(journal.encode({b"a": b"1"}))
    original.turn()
    original.close()
    header = bytearray((former / "journal.0").read_bytes())
    header[8] ^= 1  # of its generation, the CRC of another
    (former / "journal.0").write_bytes(header)
    with pytest.raises(EngineError, match=r"journal\.0 is damaged"):
        Journal(former, 256)
    journal.copy(former, new)
    copied = Journal(new, 256)
    assert copied.replay(1) == [{b"a": b"1"}]
    copied.close()
