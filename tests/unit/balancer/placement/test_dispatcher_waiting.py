"""Clients that wait for a worker."""

from __future__ import annotations

import asyncio

from support.balancer.bench import Bench


async def test_a_client_that_waits_is_served_when_a_worker_becomes_ready(bench: Bench) -> None:
    worker = await bench.worker("aaaaaaaa", ready=False)
    await bench.start(worker)
    waiting = asyncio.ensure_future(bench.get())
    await bench.until(lambda: bench.waiting == 1)
    await worker.tell(ready=True)
    assert (await waiting).said["worker"] == "aaaaaaaa"


async def test_a_client_waits_only_so_long(bench: Bench) -> None:
    worker = await bench.worker("aaaaaaaa", ready=False)
    await bench.start(worker, worker_wait=0.1)
    assert (await bench.get()).status == 503
    await worker.tell(ready=True)
    await bench.until(lambda: bool(bench.available))
    assert (await bench.get()).status == 200


async def test_a_client_waits_out_a_worker_that_is_killed_and_comes_back(bench: Bench) -> None:
    worker = await bench.worker("aaaaaaaa")
    await bench.start(worker)
    await worker.stop_grpc()
    worker.stop_listening_for_sockets()
    worker.break_links()
    waiting = asyncio.ensure_future(bench.get())
    await bench.until(lambda: bench.waiting == 1)
    worker.listen_for_sockets()
    await worker.start_grpc()
    assert (await waiting).said["via"] == "handoff"


async def test_only_so_many_clients_wait(bench: Bench) -> None:
    worker = await bench.worker("aaaaaaaa", ready=False)
    await bench.start(worker, max_waiting=3)
    waiting = [asyncio.ensure_future(bench.get()) for _ in range(3)]
    await bench.until(lambda: bench.waiting == 3)
    assert (await bench.get()).status == 503
    await worker.tell(ready=True)
    assert [answer.status for answer in await asyncio.gather(*waiting)] == [200] * 3


async def test_when_no_worker_takes_a_client_it_is_answered_503(bench: Bench) -> None:
    workers = [await bench.worker(letter * 8) for letter in "ab"]
    for worker in workers:
        worker.silent = True
    await bench.start(*workers, handoff_timeout=0.05, worker_wait=0)
    assert (await bench.get()).status == 503
    for worker in workers:
        await bench.until(lambda: not worker.received.empty())  # noqa: B023  # waited for at once
        assert worker.received.qsize() == 1
