"""Which folder an engine has: what one does there is not to concern another's data."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import SecretStr

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.commands import Command
from socketcluster_store.data.procedures import Procedures
from socketcluster_store.engine import Engine
from socketcluster_store.service import make_engine
from socketcluster_store.settings import StoreSettings


def engine(data: Path, name: Literal["lmdb", "memory"], store_id: str) -> Engine:
    settings = StoreSettings(secret=SecretStr("a secret of the tests"), data_dir=data, engine=name)
    return make_engine(settings, store_id, Procedures())


async def test_a_takeover_in_memory_leaves_what_lmdb_has(tmp_path: Path) -> None:
    kept = await engine(tmp_path, "lmdb", "one-1").open(0)
    await kept.apply([Command(store_pb2.VERB_SET, b"s", ["k"], b"\x07")])
    await kept.close()
    hung = await engine(tmp_path, "memory", "hung-1").open(0)
    taken = await engine(tmp_path, "memory", "two-2").take(0, "hung-1")
    for partition in (hung, taken):
        await partition.close()
    kept = await engine(tmp_path, "lmdb", "one-1").open(0)
    assert await kept.apply([Command(store_pb2.VERB_GET, b"s", ["k"])]) == [b"\x07"]
    await kept.close()
    assert {path.name for path in (tmp_path / "socketcluster").iterdir()} == {"memory", "partitions"}
