"""A store that no worker reaches stands aside, if workers reach another one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import structlog
from support.cluster.cluster import until as asked_until
from support.store.processes import SECRET, owned_by
from support.store.running import LinkWorker, StartStore
from support.worker.running import until

from socketcluster_runtime.health import check_grpc
from socketcluster_store.engines.shared_folder.membership import FolderMembership
from socketcluster_store.ownership import standing_aside
from socketcluster_store.ownership.membership import Membership
from socketcluster_store.ownership.standing_aside import StandingAside
from socketcluster_store_client.partitioning import PARTITION_COUNT

LONG, SHORT = standing_aside.UNREACHED, standing_aside.REACHED


class Members(Membership):
    """The stores as a test says that they are."""

    def __init__(self) -> None:
        self.live = frozenset({"one", "two"})

    async def join(self) -> None: ...

    async def leave(self) -> None: ...

    async def look(self) -> None: ...


class Scene:
    """A store that looks when a test says so, at the time that it says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.members = Members()
        self.linked = True
        self.now = 0.0
        self.changes: list[bool] = []
        self.judge = StandingAside(
            self.members, lambda: self.linked, lambda: self.changes.append(self.members.is_aside)
        )
        monkeypatch.setattr(self.judge, "_now", lambda: self.now)
        self.judge.look()

    def wait(self, seconds: float) -> bool:
        """Let time pass; return whether it stands aside then."""
        self.judge.look()
        self.now += seconds
        self.judge.look()
        return self.members.is_aside


@pytest.fixture
async def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


async def test_it_stands_aside_and_comes_back_with_a_link(scene: Scene) -> None:
    scene.members.linked = frozenset({"two"})
    assert not scene.wait(LONG)
    scene.linked = False
    assert not scene.wait(LONG - 1)
    with structlog.testing.capture_logs() as log:
        assert scene.wait(1)
        scene.linked = True
        assert scene.wait(SHORT - 1)
        assert not scene.wait(1)
    assert [line["log_level"] for line in log] == ["error", "info"]
    assert scene.changes == [True, False]


async def test_nobody_stands_aside_where_there_are_no_workers(scene: Scene) -> None:
    scene.linked = False
    assert not scene.wait(100 * LONG)
    scene.members.linked = frozenset({"two"})  # they are back, and reach one before the other
    assert not scene.wait(LONG - 1)
    scene.linked = True
    assert not scene.wait(LONG)


async def test_a_store_that_is_gone_has_no_links(scene: Scene) -> None:
    scene.linked = False
    scene.members.linked = frozenset({"three"})
    assert not scene.wait(100 * LONG)


async def test_it_comes_back_when_no_other_store_is_reached(scene: Scene) -> None:
    scene.members.linked = frozenset({"two"})
    scene.linked = False
    assert scene.wait(LONG)
    scene.members.live = frozenset({"one"})
    assert scene.wait(SHORT - 1)
    assert not scene.wait(1)


# By the folder


async def test_stores_tell_each_other_by_their_folder(tmp_path: Path) -> None:
    one, two = (FolderMembership(tmp_path / "stores", name, 3.0, lambda: None) for name in ("one-1", "two-2"))
    await one.join()
    await two.join()
    one.is_linked = True
    two.is_aside = True
    for members in (one, two, one):
        await members.look()
    assert (one.linked, two.linked) == (frozenset(), frozenset({"one-1"}))
    assert one.aside == two.aside == {"two-2"}
    assert one.sharing == two.sharing == {"one-1"}
    assert one.live == two.live == {"one-1", "two-2"}
    one.is_aside = True
    await one.look()
    assert one.sharing == one.live  # rather than nobody
    one.is_linked = one.is_aside = two.is_aside = False
    for members in (one, two, one):
        await members.look()
    assert (two.linked, one.aside, two.aside) == (frozenset(), frozenset(), frozenset())
    two.is_linked = True
    await two.look()
    await two.leave()
    assert [path.name for path in (tmp_path / "stores").iterdir()] == ["one-1"]
    await one.leave()


async def test_what_a_killed_store_said_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "stores"
    one = FolderMembership(folder, "one-1", 3.0, lambda: None)
    await one.join()
    for name in (".aside-two-2", ".linked-two-2", "two-2"):
        (folder / name).touch()
    await one.look()
    assert [path.name for path in folder.iterdir()] == ["one-1"]
    assert one.sharing == {"one-1"}
    await one.leave()


# Whole stores


async def test_what_no_worker_reaches_moves_to_the_other_store_and_back(
    start_store: StartStore, link_worker: LinkWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing_aside, "UNREACHED", 0.5)
    monkeypatch.setattr(standing_aside, "REACHED", 0.1)
    one, two = await start_store(name="one"), await start_store(name="two")
    worker = await link_worker(one.address)  # ready only when it has all
    assert len(await owned_by(one.address)) == PARTITION_COUNT
    await worker.set("session", "key", value=b"\x01")

    async def health() -> str | None:
        return await asyncio.to_thread(check_grpc, two.address, SECRET)

    await asked_until(health, lambda said: said == "NOT_SERVING")
    both = await link_worker(one.address, two.address, worker_id="worker02")
    await asked_until(health, lambda said: said is None)
    await until(lambda: len({route.owner for route in both.client._routes}) == 2 and both.client.ready)
    assert await both.get("session", "key") == b"\x01"
