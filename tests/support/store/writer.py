"""A process that writes to a partition until it is killed: ``python writer.py FOLDER FSYNC [FILE_BYTES]``.

It prints each number that was acknowledged; several keys get it in one batch. With ``FILE_BYTES``, files may not grow
beyond that, as on a full disk: it prints the error that it gets then, what it reads back, and what it reads after it
went on with files that may grow again.
"""

from __future__ import annotations

import asyncio
import resource
import sys
from pathlib import Path

import msgspec
import structlog

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.commands import Command
from socketcluster_store.engine import EnginePartition
from socketcluster_store.engines.lmdb.engine import LmdbEngine
from socketcluster_store.errors import EngineError
from socketcluster_store.executor import ExecutorOptions

SEGMENT_BYTES = 8192


def engine(folder: Path, *, always: bool = False, store_id: str = "") -> LmdbEngine:
    """Return an engine that checkpoints often."""
    return LmdbEngine(
        folder, ExecutorOptions(1 << 20), store_id=store_id, sync_each_commit=always, segment_bytes=SEGMENT_BYTES
    )


async def opened(engine: LmdbEngine) -> EnginePartition:
    """Open the partition, and sync it as its loading does before anything is told.

    Raises:
        EngineError: one of both failed.
    """
    partition = await engine.open(0)
    try:
        await partition.sync()
    except EngineError:
        await partition.close()
        raise
    return partition


async def put(partition: EnginePartition, number: int) -> None:
    """Write a number to two keys of its own and to two common ones, in one batch."""
    value = msgspec.msgpack.encode(number)
    sessions = b"left", b"right", b"left%d" % (number % 500), b"right%d" % (number % 500)
    await partition.apply([Command(store_pb2.VERB_SET, session, ["n"], value) for session in sessions])


async def get(partition: EnginePartition, session: str) -> int:
    """Read a number; 0: there is none."""
    (raw,) = await partition.apply([Command(store_pb2.VERB_GET, session.encode(), ["n"])])
    assert isinstance(raw, bytes)
    return msgspec.msgpack.decode(raw) or 0


async def consistent(partition: EnginePartition) -> int:
    """Return the last number of ``put``, having checked that all batches up to it are there, each whole."""
    last = await get(partition, "left")
    assert last == await get(partition, "right")
    for number in range(max(1, last - 499), last + 1):
        assert await get(partition, f"left{number % 500}") == number
        assert await get(partition, f"right{number % 500}") == number
    return last


def say(text: object) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def main(folder: Path, fsync: str, file_bytes: int) -> None:
    """Write until killed."""
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    partition = await engine(folder, always=fsync == "always").open(0)
    number = await get(partition, "left")
    if file_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, unlimited[1]))
        try:
            while number < 10_000:
                await put(partition, number + 1)
                number += 1
        except EngineError as error:
            say(error)
        say(number)
        say(await get(partition, "left"))
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        while True:
            try:
                await put(partition, number + 1)
                break
            except EngineError:
                await asyncio.sleep(0.05)  # until the next attempt at a checkpoint
        number += 1
        say(await get(partition, "left"))
        await partition.close()
        return
    while True:
        await put(partition, number + 1)
        number += 1
        say(number)


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if sys.argv[3:] else 0))
