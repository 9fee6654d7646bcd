"""How late values and sessions expire, and what others notice of it; a part of ``bench.store``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import msgspec

from bench.servers import Store
from socketcluster_proto.v1 import store_pb2
from socketcluster_store_client.client import StoreClient

VALUES = 50_000
SPREAD = 5.0
"""Seconds over which the values expire."""
LEAD = 12.0
"""Seconds until the first of them does: they are all set by then."""
SESSION_TIMEOUT = 60.0
"""Seconds until a session ends; all of them are made by then."""
AT_ONCE = 2000
PAUSE = 0.002
"""Seconds between two looks of the caller who measures what others notice."""

encode = msgspec.msgpack.encode


async def measure(folder: Path, sessions: int) -> None:
    """Measure and print."""
    for what, part in (
        (f"watched values expire within {SPREAD:g} s", _values(folder / "values")),
        ("sessions end in the order in which they were left", _sessions(folder / "sessions", sessions)),
    ):
        late, waits = await part
        print(f"{len(late):,} {what}")  # noqa: T201
        print(f"  late by {_shown(late)}")  # noqa: T201
        print(f"  a get meanwhile takes {_shown(waits)}")  # noqa: T201


async def _values(folder: Path) -> tuple[list[float], list[float]]:
    due: dict[str, float] = {}
    late: list[float] = []
    gone = asyncio.Event()

    def changed(change: store_pb2.DataChange) -> None:
        if change.operation == "expire":
            late.append(time.time() - due[change.session_id])
            if len(late) == VALUES:
                gone.set()

    async with Store(folder, "lmdb", "everysec") as store, store.linked("worker00", on_change=changed) as client:
        begin = await _expire_all(client, due)
        waits = await _look(client, gone, begin - time.time())
    return late, waits


async def _expire_all(client: StoreClient, due: dict[str, float]) -> float:
    """Have values expire, note when they do, and return when the first one does."""
    begin = time.time() + LEAD
    for start in range(0, VALUES, AT_ONCE):
        calls = []
        for number in range(start, min(start + AT_ONCE, VALUES)):
            session_id = f"session{number}"
            calls.append(client.attach(session_id))
            calls.append(client.call(store_pb2.VERB_SET, session_id=session_id, keys=("k",), value=encode(number)))
            calls.append(client.watch(session_id, ("k",), b""))
        await asyncio.gather(*calls)
        calls = []
        for number in range(start, min(start + AT_ONCE, VALUES)):
            session_id = f"session{number}"
            now = time.time()
            due[session_id] = begin + SPREAD * number / VALUES
            seconds = encode(due[session_id] - now)
            calls.append(client.call(store_pb2.VERB_EXPIRE, session_id=session_id, keys=("k",), value=seconds))
        await asyncio.gather(*calls)
    if time.time() > begin:
        print(f"the values took {time.time() - begin:.1f} s too long to set: the first ones are late by that")  # noqa: T201
    return begin


async def _sessions(folder: Path, count: int) -> tuple[list[float], list[float]]:
    left: dict[str, float] = {}
    late: list[float] = []
    gone = asyncio.Event()

    def destroyed(session_id: str) -> None:
        if session_id in left:
            late.append(time.time() - left[session_id] - SESSION_TIMEOUT)
            if len(late) == count:
                gone.set()

    timeout = f"{SESSION_TIMEOUT:g}"
    async with (
        Store(folder, "lmdb", "everysec", SOCKETCLUSTER_SESSION_TIMEOUT=timeout) as store,
        store.linked("worker00", on_destroyed=destroyed) as client,
    ):
        for start in range(0, count, AT_ONCE):
            names = [f"s{number}" for number in range(start, min(start + AT_ONCE, count))]
            await asyncio.gather(*map(client.attach, names))
            now = time.time()  # the store takes them a little later: that is counted as being late
            left |= dict.fromkeys(names, now)
            await asyncio.gather(*map(client.detach, names))
        waits = await _look(client, gone, left["s0"] + SESSION_TIMEOUT - time.time())
    return late, waits


async def _look(client: StoreClient, until: asyncio.Event, after: float) -> list[float]:
    """Return how long single gets take, from ``after`` seconds on until the event."""
    await asyncio.sleep(max(0.0, after))
    waits = []
    while not until.is_set():
        began = time.perf_counter()
        await client.call(store_pb2.VERB_GET, session_id="another", keys=("k",))
        waits.append(time.perf_counter() - began)
        await asyncio.sleep(PAUSE)
    return waits


def _shown(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    nearly = ordered[len(ordered) * 99 // 100]
    return f"{median(ordered) * 1e3:.1f} ms (median), {nearly * 1e3:.1f} ms (99 %), {ordered[-1] * 1e3:.1f} ms (most)"
