"""A process that makes load, as who starts it sees it."""

from __future__ import annotations

import asyncio
import sys
from time import monotonic_ns

import msgspec
from support.cluster.bench_server import bench_server

from socketcluster.bench.generator import Assignment, Begin
from socketcluster.bench.plan import Mode, Plan, Protocol
from socketcluster.bench.tally import Snapshot


async def test_it_says_each_phase_and_what_it_has_counted_and_ends_with_its_input() -> None:
    async with bench_server() as server:
        plan = Plan(url=server.url, protocol=Protocol.WEBSOCKET, mode=Mode.IDLE, connections=2, duration=0.1)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "socketcluster.bench.generator"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(Assignment(plan, 0)) + b"\n")
        phases = []
        async for line in process.stdout:
            snapshot = msgspec.json.decode(line, type=Snapshot)
            if snapshot.phase == "ready" and "ready" not in phases:
                process.stdin.write(msgspec.json.encode(Begin(monotonic_ns())) + b"\n")
            if snapshot.phase == "done":
                process.stdin.close()
            phases.append(snapshot.phase)
        assert [phase for phase in dict.fromkeys(phases) if phase != "connecting"] == ["ready", "running", "done"]
        assert await process.wait() == 0
        assert snapshot.tally.opened == 2
        assert snapshot.tally.seconds > 0
        assert snapshot.tally.lag.count > 0
