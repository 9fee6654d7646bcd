"""Watching data as a controller does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from support.worker.running import Running, RunningWorker, StartWorker

from socketcluster_proto.v1 import store_pb2 as pb
from socketcluster_store_client.errors import ChainTooDeepError, InvalidOperationError, WatchOverflowError
from socketcluster_worker.api.data.tree import AppTree, Tree
from socketcluster_worker.api.data.watch import Change, Watch
from socketcluster_worker.api.sockets.session import Session

StartStore = Callable[[], Any]


async def test_changes_of_every_worker_are_watched(start_worker: StartWorker, tree: Tree) -> None:
    there = (await start_worker(name="other")).worker
    other: Tree = there.store if isinstance(tree, AppTree) else there.ws_server.sessions.get(tree._session_id)
    async with tree.watch("k") as changes:
        await tree.set("k", {"l": [1]})
        await other.add(["k", "l"], 2)
        await other.set("another", 1)
        await tree.remove("k")
        assert [await anext(changes) for _ in range(3)] == [
            Change(("k",), "set", {"l": [1]}),
            Change(("k", "l"), "add", 2),
            Change(("k",), "remove", None),
        ]
        await other.set("k", 5)
        await other.expire("k", 0)
        assert [(await anext(changes)).operation for _ in range(2)] == ["set", "expire"]


async def test_several_watch_the_same(worker: RunningWorker, session: Session) -> None:
    async with session.watch("k") as first:
        await session.set("k", 1)
        async with session.watch("k") as second, session.watch() as whole:
            await session.set("k", [2])
            assert await anext(second) == Change(("k",), "set", [2])
            assert await anext(whole) == Change(("k",), "set", [2])
        await session.set("k", 3)
        assert [(await anext(first)).value for _ in range(3)] == [1, [2], 3]
        with pytest.raises(StopAsyncIteration):
            await anext(second)
    await session.set("k", 4)
    assert worker.service._watches._groups == {}
    assert not any(route.watches for route in worker.service._client._routes)


async def test_a_watch_that_is_lost_is_ended(worker: RunningWorker, session: Session) -> None:
    changes = session.watch("k")
    await changes.__aenter__()
    del changes
    async with session.watch() as others:
        await session.set("k", 1)
        assert (await anext(others)).value == 1
        await session.get("k")
    assert worker.service._watches._groups == {}


async def test_a_watch_begins_anew_after_one_that_ended(session: Session) -> None:
    for number in range(3):
        async with session.watch("k") as changes:
            await session.set("k", number)
            assert await anext(changes) == Change(("k",), "set", number)
        await session.set("k", "unseen")


async def test_a_watcher_that_takes_nothing_is_ended(session: Session) -> None:
    async with session.watch("k", max_waiting=3) as changes:
        for number in range(5):
            await session.set("k", number)
        await session.get("k")
        assert [(await anext(changes)).value for _ in range(3)] == [0, 1, 2]
        for _ in range(2):
            with pytest.raises(WatchOverflowError, match=r"WATCH \['k'\]: 3 changes wait") as ended:
                await anext(changes)
        assert (ended.value.operation, ended.value.keys) == ("watch", ("k",))


async def test_a_watch_ends_with_its_session(worker: RunningWorker, session: Session) -> None:
    async with session.watch("k") as changes:
        told = pb.DataChange(session_id=session.id, watched=["k"], keys=["k"], operation="end", value=b"\xc0", count=1)
        (group,) = worker.service._watches._groups.values()
        told.generation = group.generation or 0
        worker.service._watches.deliver(told)
        assert [change async for change in changes] == [Change(("k",), "end", None)]
    assert worker.service._watches._groups == {}


async def test_a_watch_outlives_the_store(
    start_store: StartStore, running_store: Running, session: Session, worker: RunningWorker
) -> None:
    async with session.watch("k") as changes:
        await session.set("k", 1)
        await running_store.stop()
        writing = asyncio.ensure_future(session.set("k", 2))
        await start_store()
        await writing
        await session.set("k", 3)
        assert [await anext(changes) for _ in range(3)] == [Change(("k",), "set", number) for number in (1, 2, 3)]


@pytest.mark.parametrize(
    ("told", "seen"),
    [
        ([(1, 1, "set")], ["set"]),
        ([(1, 1, "set"), (1, 1, "set")], ["set"]),  # told twice
        ([(1, 3, "set")], [("missed", 2), "set"]),
        ([(1, 4, "")], [("missed", 4)]),
        ([(1, 1, "set"), (1, 1, "")], ["set"]),
        ([(1, 2, "set"), (2, 7, ""), (2, 8, "set")], [("missed", 1), "set", ("missed", None), "set"]),
        ([(2, 8, "set")], []),  # of another watch
    ],
)
async def test_what_was_missed_is_told_exactly(
    worker: RunningWorker, session: Session, told: list[Any], seen: list[Any]
) -> None:
    watches = worker.service._watches
    async with session.watch("k") as changes:
        (group,) = watches._groups.values()
        group.generation = 1
        for generation, count, operation in told:
            value = msgspec.msgpack.encode(count) if operation else group.tag
            watches.deliver(
                pb.DataChange(
                    session_id=session.id,
                    watched=["k"],
                    keys=["k"] if operation else [],
                    operation=operation,
                    value=value,
                    count=count,
                    generation=generation,
                )
            )
        changes.close()
        found = [(c.operation, c.value) if c.operation == "missed" else c.operation async for c in changes]
    assert found == seen


async def test_a_watch_that_is_refused(worker: RunningWorker, session: Session) -> None:
    watch = session.watch(["k"] * 33)
    with pytest.raises(ChainTooDeepError):
        await anext(watch)
    with pytest.raises(StopAsyncIteration):
        await anext(watch)
    assert worker.service._watches._groups == {}
    with pytest.raises(InvalidOperationError, match="watched by key"):
        worker.worker.store.watch()


async def test_a_watch_can_be_iterated_at_once(session: Session) -> None:
    watch: Watch = session.watch("k")

    async def first() -> Change:
        async for change in watch:
            return change
        raise AssertionError("it ended")

    waiting = asyncio.ensure_future(first())
    while not waiting.done():
        await session.set("k", 1)
    assert await waiting == Change(("k",), "set", 1)
    watch.close()
