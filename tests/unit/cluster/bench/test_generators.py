"""The processes that make load, together."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from support.cluster.bench_server import bench_server
from support.worker.running import until

from socketcluster.bench.generators import GeneratorError, Generators
from socketcluster.bench.plan import Mode, Plan, Protocol


def plan(url: str, mode: Mode = Mode.ACK, **options: object) -> Plan:
    given = {"connections": 4, "processes": 2, "duration": 60.0, **options}
    return Plan(url=url, protocol=Protocol.WEBSOCKET, mode=mode, **given)  # type: ignore[arg-type]


async def test_several_processes_load_together_until_they_are_stopped() -> None:
    async with bench_server() as server, Generators(plan(server.url)) as generators:
        running = asyncio.create_task(generators.run())
        await until(lambda: generators.phase == "running" and generators.tally.answered > 100)
        assert len(server.writers) == 4
        generators.stopped.set()
        await running
        assert generators.tally.opened == 4
    assert all(process.returncode == 0 for process in generators._processes)


async def test_what_the_first_publishes_is_expected_of_the_members_of_all() -> None:
    async with bench_server() as server:
        server.to_all = True
        async with Generators(plan(server.url, Mode.BROADCAST, rate=50.0, duration=0.2)) as generators:
            await generators.run()
            tally = generators.tally
            assert (tally.joined, tally.answered) == (4, 10)
            assert tally.delivered == generators.expected == 40
            assert generators.phase == "done"


async def test_what_is_under_way_when_it_is_stopped_still_counts() -> None:
    async with bench_server() as server:
        server.to_all = True
        async with Generators(plan(server.url, Mode.BROADCAST, rate=500.0)) as generators:
            running = asyncio.create_task(generators.run())
            await until(lambda: generators.tally.delivered > 100)
            generators.stopped.set()
            await running
            assert generators.phase == "done"
            assert generators.tally.delivered == generators.expected > 100


async def test_where_it_makes_no_sense_to_go_on_it_ends() -> None:
    async with bench_server() as server:
        server.status = 404
        async with Generators(plan(server.url)) as generators:
            await generators.run()
            assert generators.fatal == "HTTP 404"
            assert generators.tally.errors == {"HTTP 404": 4}


async def test_a_process_that_ends_on_its_own_is_an_error() -> None:
    async with bench_server() as server, Generators(plan(server.url, processes=1)) as generators:
        running = asyncio.create_task(generators.run())
        await until(lambda: generators.phase == "running")
        pid = generators._processes[0].pid
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(GeneratorError, match="ended"):
            await running
