"""Handlers that run in the background."""

from __future__ import annotations

import asyncio

from socketcluster_worker.tasks import Tasks


async def test_tasks_lose_no_error_and_end() -> None:
    errors: list[tuple[str, str]] = []
    tasks = Tasks(lambda error, what: errors.append((str(error), what)))

    async def fail() -> None:
        raise ValueError("async")

    def fail_at_once() -> None:
        raise ValueError("plain")

    tasks.run(fail, (), "one")
    tasks.run(fail_at_once, (), "two")
    await tasks.drain(5)
    await tasks.run_and_wait(fail, (), "three")
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    tasks.watch(future, "four")
    future.set_exception(ValueError("watched"))
    tasks.spawn(asyncio.Event().wait(), "five")
    assert await tasks.drain(0) == 1
    assert sorted(errors) == [("async", "one"), ("async", "three"), ("plain", "two"), ("watched", "four")]
    assert len(tasks) == 0
