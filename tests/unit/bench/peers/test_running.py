"""What processes use is what the kernel counts of all of them."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest
from support.cluster.cluster import until

from bench.peers.running import Running, cpu, listening, proportional

BUSY = """
import time
end = time.process_time() + 0.2
while time.process_time() < end: pass
print("done", flush=True)
time.sleep(99)
"""
PARENT = f"import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', {BUSY!r}, 'child']); child.wait()"


async def spawn(script: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)


async def test_children_count_and_have_their_part() -> None:
    process = await spawn(PARENT)
    running = Running(1, [process], lambda command: "child" if command.endswith(" child") else "parent")
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"done\n"
        assert {part: len(pids) for part, pids in running.pids().items()} == {"parent": 1, "child": 1}
        used = running.cpu_by_part()
        assert used["child"] >= 0.2
        assert used["child"] < running.cpu() < 60
        held = running.memory_by_part()
        assert all(1 << 20 < bytes_ < 1 << 30 for bytes_ in held.values())
        (child,) = running.pids()["child"]
    finally:
        await running.stop()
    assert process.returncode is not None
    assert running.pids() == {}
    os.kill(child, 9)
    assert await process.stdout.read() == b""  # it had the pipe too


def test_a_process_that_has_ended_uses_nothing() -> None:
    assert cpu([2**22]) == 0
    assert proportional([2**22]) == 0
    assert cpu([os.getpid()]) > 0


async def test_it_is_waited_for_until_a_server_listens() -> None:
    async def client(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    process = await spawn("input()")
    server = await asyncio.start_server(client, "127.0.0.1", 0)
    async with server:
        await listening(server.sockets[0].getsockname()[1], process)
    process.kill()
    await process.wait()


async def test_a_server_that_ends_is_not_waited_for() -> None:
    process = await spawn("raise SystemExit(3)")
    with pytest.raises(RuntimeError, match="it ended with status 3"):
        await listening(1, process)


async def test_it_is_killed_if_it_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.peers.running.STOP_SECONDS", 0.05)
    process = await spawn(
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('on', flush=True); time.sleep(99)"
    )
    assert process.stdout is not None
    await process.stdout.readline()
    await Running(1, [process]).stop()
    assert await until(lambda: _status(process), lambda status: status is not None) == -9


async def _status(process: asyncio.subprocess.Process) -> int | None:
    return process.returncode
