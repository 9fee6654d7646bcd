"""A process that stops itself within a checkpoint: ``python -m support.store.hanger FOLDER STAGE``.

It writes as ``support.store.writer`` does. When it is continued it goes on until it finds itself fenced, and says so.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

import lmdb
import structlog

from socketcluster_store.engine import EnginePartition
from socketcluster_store.engines.lmdb import engine as lmdb_engine
from socketcluster_store.engines.lmdb import environments
from socketcluster_store.engines.lmdb.journal import Writes
from socketcluster_store.errors import FencedError
from support.store.writer import engine, put, say

STORE_ID = "hanger"
STAGES = ("begun", "written", "committed")
CHECKPOINT = 4
"""Both segments were begun anew by then."""


class Hang:
    """Stops the process once, at a stage of one checkpoint."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._count = 0

    def install(self) -> None:
        """Come in between the steps of every checkpoint."""
        commit = lmdb_engine.LmdbPartition._commit
        put_slice = environments.put

        async def hanging_commit(partition: lmdb_engine.LmdbPartition, writes: Writes) -> None:
            self._count += 1
            self._reached("begun")
            await commit(partition, writes)
            self._reached("committed")

        def hanging_put(transaction: lmdb.Transaction, writes: Iterable[tuple[bytes, bytes | None]]) -> None:
            put_slice(transaction, writes)
            self._reached("written")

        lmdb_engine.LmdbPartition._commit = hanging_commit  # type: ignore[method-assign,assignment]
        environments.put = hanging_put

    def _reached(self, stage: str) -> None:
        if self._count == CHECKPOINT and stage == self._stage:
            self._stage = ""
            os.kill(os.getpid(), signal.SIGSTOP)


async def write(partition: EnginePartition) -> None:
    """Write until fenced."""
    number = 0
    try:
        while True:
            await put(partition, number + 1)
            number += 1
            say(number)
    except FencedError:
        say("fenced")


async def main(folder: Path, stage: str) -> None:
    """Hang once."""
    partition = await engine(folder, store_id=STORE_ID).open(0)
    Hang(stage).install()
    await write(partition)
    await partition.close()


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
