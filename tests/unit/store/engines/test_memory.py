"""What the engine memory does when its data is taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.commands import Command
from socketcluster_store.engines.memory import MemoryEngine
from socketcluster_store.errors import FencedError
from socketcluster_store.executor import ExecutorOptions


async def test_a_partition_that_was_taken_answers_nothing_more(tmp_path: Path) -> None:
    """In memory; ``test_main_cluster`` pauses stores with LMDB, which opens a file once in a process."""
    write = [Command(store_pb2.VERB_SET, b"s", ["k"], b"\x01")]
    read = [Command(store_pb2.VERB_GET, b"s", ["k"])]
    hung = await MemoryEngine(tmp_path, ExecutorOptions(1024), store_id="hung-1").open(0)
    await hung.apply(write)
    taken = await MemoryEngine(tmp_path, ExecutorOptions(1024), store_id="two-2").take(0, "hung-1")
    for batch in (write, read):
        with pytest.raises(FencedError):
            await hung.apply(batch)
    assert hung.fenced
    assert not taken.fenced
    assert await taken.apply(write) == [b""]
    await hung.close()
    await taken.close()
