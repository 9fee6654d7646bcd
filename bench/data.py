"""What an operation on data costs the store, without links: ``python -m bench.data``.

Applies batches of one hundred single-key GET and SET (200-byte values, on 1,000 sessions) to one partition of each
engine and prints the CPU time of each operation in µs, the best of several rounds.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.commands import Command
from socketcluster_store.engine import Engine
from socketcluster_store.engines.lmdb.engine import LmdbEngine
from socketcluster_store.engines.memory import MemoryEngine
from socketcluster_store.executor import ExecutorOptions

SESSIONS = 1000
BATCH = 100
BATCHES = 200
ROUNDS = 7


async def measure(engine: Engine) -> dict[str, float]:
    """Return the µs of CPU an operation takes, by name."""
    partition = await engine.open(0)
    value = msgspec.msgpack.encode("x" * 197)
    rng = random.Random(1)  # noqa: S311  # spreads sessions, keeps no secret
    sessions = [b"worker01" + rng.randbytes(16).hex().encode() for _ in range(SESSIONS)]

    def batches(verb: int, *keys: str, value: bytes = b"") -> list[list[Command]]:
        return [[Command(verb, rng.choice(sessions), keys, value) for _ in range(BATCH)] for _ in range(BATCHES)]

    work = {
        "set": batches(store_pb2.VERB_SET, "key", value=value),
        "get": batches(store_pb2.VERB_GET, "key"),
        "set, two keys": batches(store_pb2.VERB_SET, "map", "key", value=value),
        "get, two keys": batches(store_pb2.VERB_GET, "map", "key"),
    }
    best = dict.fromkeys(work, float("inf"))
    for _ in range(ROUNDS):
        for name, all_of_it in work.items():
            started = time.process_time()
            for batch in all_of_it:
                await partition.apply(batch)
            spent = (time.process_time() - started) / (BATCH * BATCHES)
            best[name] = min(best[name], spent * 1e6)
    await partition.close()
    return best


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        engines = (
            MemoryEngine(Path(folder, "memory"), ExecutorOptions(1 << 20)),
            LmdbEngine(Path(folder), ExecutorOptions(1 << 20)),
        )
        for engine in engines:
            found = asyncio.run(measure(engine))
            sys.stdout.write(f"{engine.name:8}" + "  ".join(f"{name} {us:5.2f}" for name, us in found.items()) + "\n")


if __name__ == "__main__":
    main()
