"""Nobody else may read what the LMDB engine keeps."""

from __future__ import annotations

from pathlib import Path

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.commands import Command
from socketcluster_store.engines.lmdb import files
from socketcluster_store.engines.lmdb.engine import LmdbEngine
from socketcluster_store.executor import ExecutorOptions


def opened_up(folder: Path) -> list[tuple[str, str]]:
    """Return what in a folder others than the owner may use."""
    return [
        (str(path.relative_to(folder)), oct(mode))
        for path in (folder, *folder.rglob("*"))
        if (mode := path.stat().st_mode) & 0o077
    ]


async def test_nobody_else_may_read_what_a_store_keeps(tmp_path: Path) -> None:
    app = tmp_path / "app"
    for store_id in ("one", "two"):
        engine = LmdbEngine(app / "partitions", ExecutorOptions(1 << 20), store_id=store_id)
        membership = engine.membership(3.0, lambda: None)
        await membership.join()
        partition = await engine.open(0)
        await partition.apply([Command(store_pb2.VERB_SET, b"", ["n"], b"\x01")])
        assert opened_up(app) == []
        assert {path.name for path in (app / "partitions/00/1").iterdir()} >= {"data.mdb", "journal.0", "owner.lock"}
        await partition.close()
        for path in (app, *app.rglob("*")):  # as a store made them that did not mind
            path.chmod(0o755 if path.is_dir() else 0o644)
        await membership.leave()  # its file goes with it


async def test_nobody_else_may_read_what_is_copied_from_a_hung_store(tmp_path: Path) -> None:
    partition = await LmdbEngine(tmp_path / "partitions", ExecutorOptions(1 << 20), store_id="hung-1").open(0)
    await partition.apply([Command(store_pb2.VERB_SET, b"", ["n"], b"\x01")])
    await partition.close()
    (tmp_path / "draft").mkdir(0o700)
    files.copy(tmp_path / "partitions/00/1", tmp_path / "draft")
    assert {path.name for path in (tmp_path / "draft").iterdir()} == {"data.mdb", "journal.0", "journal.1"}
    assert opened_up(tmp_path / "draft") == []
