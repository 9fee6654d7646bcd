"""The store as a process: killed under load, asked to stop, started wrongly."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.machine.disk import small_disk
from support.store.running import LinkWorker, StartStore, StoreProcesses

from socketcluster_proto.v1 import store_pb2
from socketcluster_store_client.errors import LinkError

encode = msgspec.msgpack.encode
FILLING = "x" * 100_000
KILLS = 3
CALLERS = 50


async def test_killed_under_load_it_loses_nothing_acknowledged(
    processes: StoreProcesses, link_worker: LinkWorker
) -> None:
    process = await processes.start()
    worker = await link_worker(processes.address)
    acknowledged = [0] * CALLERS
    stop = asyncio.Event()

    async def count_up(caller: int) -> None:
        while not stop.is_set():
            await worker.set(f"session{caller}", "n", value=encode(acknowledged[caller] + 1))
            acknowledged[caller] += 1

    callers = [asyncio.create_task(count_up(caller)) for caller in range(CALLERS)]
    for _ in range(KILLS):
        before = list(acknowledged)
        while not all(now > then + 5 for now, then in zip(acknowledged, before, strict=True)):
            await worker.barrier()
        process.send_signal(signal.SIGKILL)
        await process.wait()
        process = await processes.start()
    stop.set()
    await asyncio.gather(*callers)  # none met an error
    reader = await link_worker(processes.address, worker_id="worker02")
    stored = await asyncio.gather(*(reader.get(f"session{caller}", "n") for caller in range(CALLERS)))
    assert stored == [encode(count) for count in acknowledged]


def anonymous_of(pid: int) -> int:
    """Return the KiB of a process's memory that are no file's."""
    found = re.search(r"^RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


async def test_partitions_that_hold_nothing_take_no_memory_for_what_they_could_hold(processes: StoreProcesses) -> None:
    process = await processes.start()
    assert anonymous_of(process.pid) < 100 * 1024  # 47 MB; it was 160


@pytest.mark.mount
async def test_a_full_disk_refuses_writes_by_name_and_loses_nothing(
    processes: StoreProcesses, link_worker: LinkWorker, folder: Path
) -> None:
    with small_disk(folder / "data", "200m") as disk:  # the journals take 128
        process = await processes.start()
        worker = await link_worker(processes.address)
        acknowledged: dict[str, int] = {}
        refused: LinkError | None = None
        turn = 0
        while refused is None:
            turn += 1
            sessions = [f"session{number}-{turn}" for number in range(64)]
            writes = [worker.set(session, "k", value=encode((turn, FILLING))) for session in sessions]
            for session, outcome in zip(sessions, await asyncio.gather(*writes, return_exceptions=True), strict=True):
                if isinstance(outcome, LinkError):
                    refused = outcome
                else:
                    assert outcome is None
                    acknowledged[session] = turn
        assert re.search(r"partition \d+ in \S+ cannot be written: .*; the disk has \d+ bytes left", str(refused))
        await check(worker, acknowledged)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        process = await processes.start()  # nothing is needed of the disk to start
        await check(worker, acknowledged)
        disk.grow("600m")
        for number in range(64):
            while True:
                try:
                    await worker.set(f"session{number}-1", "k", value=encode((2 * turn, FILLING)))
                    break
                except LinkError:
                    await worker.barrier()  # until the next attempt at a checkpoint
            acknowledged[f"session{number}-1"] = 2 * turn
        await check(worker, acknowledged)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


async def check(worker: Any, acknowledged: dict[str, int]) -> None:
    stored = await asyncio.gather(*(worker.get(session, "k") for session in acknowledged))
    assert stored == [encode((turn, FILLING)) for turn in acknowledged.values()]


async def test_it_ends_well_when_asked_to(processes: StoreProcesses, link_worker: LinkWorker) -> None:
    process = await processes.start()
    worker = await link_worker(processes.address)
    await worker.set("s", "k", value=encode(1))
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0
    waiting = asyncio.ensure_future(worker.client.call(store_pb2.VERB_GET, session_id="s", keys=["k"]))
    await processes.start()
    assert await waiting == encode(1)


async def test_a_successor_takes_over_from_a_killed_store(
    processes: StoreProcesses, link_worker: LinkWorker, start_store: StartStore
) -> None:
    process = await processes.start()
    heir = await start_store(wait=False)
    worker = await link_worker(processes.address, heir.address)
    await worker.set("s", "k", value=encode(1))
    await worker.client.attach("s")
    process.send_signal(signal.SIGKILL)
    assert await worker.get("s", "k") == encode(1)
    await heir.ready()


async def test_what_is_watched_is_counted_on_after_a_kill(processes: StoreProcesses, link_worker: LinkWorker) -> None:
    process = await processes.start()
    watcher = await link_worker(processes.address, worker_id="worker01")
    writer = await link_worker(processes.address, worker_id="worker02")
    await watcher.client.watch("s", ("n",), b"tag")
    begun = await watcher.data_changes.get()
    acknowledged = told = 0
    for _ in range(KILLS):
        for _ in range(20):
            acknowledged += 1
            await writer.set("s", "n", value=encode(acknowledged))
        process.send_signal(signal.SIGKILL)
        await process.wait()
        process = await processes.start()
        for _ in range(20):  # some of them before the watcher is back
            acknowledged += 1
            await writer.set("s", "n", value=encode(acknowledged))
        while told < acknowledged:
            change = await watcher.data_changes.get()
            assert change.generation == begun.generation
            if change.operation:
                assert change.count == told + 1
                assert change.value == encode(change.count)
            else:
                assert change.value == b"tag"
            told = change.count


async def test_a_controller_that_fails_is_named(processes: StoreProcesses, folder: Path) -> None:
    path = folder / "mine.py"
    for source, text in (
        (None, "mine.py: there is no such controller"),
        ("x = 1\n", "has no function run(store)"),
        ("def run(store):\n    raise ValueError('no')\n", "mine.py:2: ValueError: no"),
        ("async def run(store):\n    raise ValueError('no')\n", "mine.py:2: ValueError: no"),
        (
            "def run(store):\n    @store.procedure\n    async def p(tree): ...\n",
            "mine.py:2: TypeError: a procedure is a plain function",
        ),
    ):
        if source is not None:
            path.write_text(source)
        process = await processes.start(ready=False, SOCKETCLUSTER_STORE_CONTROLLER=str(path))
        _out, error = await process.communicate()
        assert text in error.decode().partition("\n")[0]
        assert process.returncode == 1


async def test_it_ends_well_while_its_controller_runs(processes: StoreProcesses, folder: Path) -> None:
    mine, begun = folder / "mine.py", folder / "begun"
    os.mkfifo(begun)
    mine.write_text(
        "import asyncio\n"
        "async def run(store):\n"
        f"    open({str(begun)!r}, 'w').close()\n"
        "    await asyncio.Event().wait()\n"
    )
    process = await processes.start(ready=False, SOCKETCLUSTER_STORE_CONTROLLER=str(mine))
    await asyncio.to_thread(begun.read_bytes)
    process.send_signal(signal.SIGTERM)
    _, log = await process.communicate()
    assert (process.returncode, log) == (0, b"")
    assert not (folder / "data").exists()  # it joined no others


async def test_wrong_settings_are_named(processes: StoreProcesses) -> None:
    for wrong, text in (
        ({"SOCKETCLUSTER_ENGINE": "paper"}, b"SOCKETCLUSTER_ENGINE"),
        ({"SOCKETCLUSTER_SESSION_TIMEOT": "1"}, b"did you mean SOCKETCLUSTER_SESSION_TIMEOUT?"),
        ({"SOCKETCLUSTER_SECRET": "short"}, b"SOCKETCLUSTER_SECRET is too short"),
    ):
        process = await processes.start(ready=False, **wrong)
        _out, error = await process.communicate()
        assert text in error
        assert b"Traceback" not in error
        assert process.returncode == 78


async def test_a_folder_that_is_none_is_named(processes: StoreProcesses, folder: Path) -> None:
    (folder / "data").write_text("a file")
    process = await processes.start(ready=False)
    _out, error = await process.communicate()
    assert b"the data folder cannot be used" in error
    assert b"Traceback" not in error
    assert process.returncode == 1
