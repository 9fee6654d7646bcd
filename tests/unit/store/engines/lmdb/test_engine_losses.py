"""A disk that fails, and has less afterwards than was there: what was told of that is told of nothing else."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest
from support.store.channels import Bench, make_engine

from socketcluster_store.engines.lmdb import files
from socketcluster_store.engines.lmdb.journal import Segment
from socketcluster_store.errors import EngineError, FencedError

NUMBER = 7


def killed(*_args: object) -> NoReturn:
    raise EngineError("killed")


async def opened(folder: Path) -> Bench:
    bench = Bench(await make_engine("lmdb", folder).open(NUMBER))
    await bench.channels.load()
    return bench


async def fail(folder: Path, monkeypatch: pytest.MonkeyPatch, *, loses: bool) -> dict[str, Any]:
    """Have the disk refuse a sync, and return the answer to what was published before; it has that, or has not."""

    def refuse(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    bench = await opened(folder)
    await bench.publish("kept", "synced")
    await bench.engine.sync()
    (path,) = (folder / f"{NUMBER:02}").glob("[0-9]*/journal.0")
    synced = path.read_bytes()
    told = await bench.publish("kept", "told")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", refuse)
        with pytest.raises(FencedError, match="its files are to be copied"):
            await bench.engine.sync()
    if loses:
        path.write_bytes(synced)
    await bench.engine.close()
    return dict(told)


async def test_offsets_that_a_failing_disk_has_lost_are_not_given_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = await fail(tmp_path, monkeypatch, loses=True)
    for place, name in ((files, "_make"), (Segment, "append")):  # who copies the files dies meanwhile
        with monkeypatch.context() as patch:
            patch.setattr(place, name, killed)
            with pytest.raises(EngineError, match="killed"):
                await opened(tmp_path)
    bench = await opened(tmp_path)
    again = await bench.publish("kept", "another")
    assert again["offset"] == told["offset"]
    assert again["epoch"] > told["epoch"]
    await bench.engine.close()  # as if it was killed
    bench = await opened(tmp_path)  # all is there
    after = await bench.publish("kept", "a third")
    assert (after["epoch"], after["offset"]) == (again["epoch"], again["offset"] + 1)
    await bench.engine.close()


async def test_a_loss_is_on_the_disk_before_what_shows_it_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut may keep the removal, and not a record that is not synced."""
    await fail(tmp_path, monkeypatch, loses=True)
    synced: dict[str, bytes] = {}
    shown: list[bool] = []
    fdatasync, unlink = os.fdatasync, Path.unlink

    def sync(descriptor: int) -> None:
        fdatasync(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced[path.name] = path.read_bytes()

    def remove(path: Path, missing_ok: bool = False) -> None:
        if path.name == "end":
            shown.append(synced.get("journal.0") == (path.parent / "journal.0").read_bytes())
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", sync)
        patch.setattr(Path, "unlink", remove)
        bench = await opened(tmp_path)
    assert shown == [True]
    await bench.channels.close()
    await bench.engine.close()


async def test_a_failing_disk_that_has_lost_nothing_leaves_the_epochs_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = await fail(tmp_path, monkeypatch, loses=False)
    bench = await opened(tmp_path)
    after = await bench.publish("kept", "another")
    assert (after["epoch"], after["offset"]) == (told["epoch"], told["offset"] + 1)
    assert not (tmp_path / "07" / "2" / "end").exists()
    await bench.channels.close()
    await bench.engine.close()


async def test_a_loss_behind_a_clean_closing_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = await opened(tmp_path)
    told = await bench.publish("kept", "before")
    await bench.channels.close()
    await bench.engine.close()
    path = tmp_path / "07" / "1" / "journal.0"
    closed = path.read_bytes()
    await fail(tmp_path, monkeypatch, loses=False)
    path.write_bytes(closed)  # it has nothing of that opening, but all of the one before
    bench = await opened(tmp_path)
    again = await bench.publish("kept", "another")
    assert (again["offset"], again["epoch"] > told["epoch"]) == (told["offset"] + 1, True)
    await bench.channels.close()
    await bench.engine.close()
