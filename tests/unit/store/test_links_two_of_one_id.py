"""Two live processes with one worker's id: one of them is linked, the same with every store, and nothing is lost."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import msgspec
import pytest
from support.log import written
from support.store.running import LinkWorker, StartStore
from support.worker.running import until

from socketcluster_proto.v1 import store_pb2
from socketcluster_store import links
from socketcluster_store.links import Links, WorkerLink
from socketcluster_store_client import link as runtime_link
from socketcluster_store_client.client import StoreClient


def link(incarnation: str) -> WorkerLink:
    return WorkerLink("worker01", incarnation, 1 << 20)


def comes(all_links: Links, process: WorkerLink) -> bool:
    """Have a process link; return whether it may."""
    if all_links.refuses(process):
        return False
    all_links.add(process)
    return True


@pytest.mark.parametrize("first", ["1", "2"])
async def test_the_later_one_is_linked_whichever_came_first(first: str) -> None:
    second = {"1": "2", "2": "1"}[first]
    all_links = Links()
    current = {name: link(name) for name in (first, second)}
    assert comes(all_links, current[first])
    assert comes(all_links, current[second])  # the store may not know yet that the first one's link is broken
    for _ in range(4):  # whoever lost his place comes again
        for name in (first, second):
            if not current[name].open:
                current[name] = link(name)
                if not comes(all_links, current[name]):
                    current[name].close(grpc.StatusCode.ALREADY_EXISTS, "")
    assert current["2"].open
    assert not current["1"].open
    assert list(all_links) == [current["2"]]


async def test_one_whose_clock_is_behind_is_let_in_when_the_other_has_ended() -> None:
    """A worker is replaced on another machine, and the former process drains still."""
    all_links = Links()
    former = link("2")
    assert comes(all_links, former)
    assert comes(all_links, link("1"))
    former = link("2")
    assert comes(all_links, former)
    assert not comes(all_links, link("1"))
    all_links.remove(former)
    assert comes(all_links, link("1"))


async def test_a_process_links_again_as_often_as_it_likes() -> None:
    all_links = Links()
    for _ in range(3):
        assert comes(all_links, link("1"))
    assert comes(all_links, link("0"))  # a start of the worker on a machine whose clock is behind
    assert comes(all_links, link("0"))


async def test_who_is_refused_may_link_when_the_other_has_gone() -> None:
    all_links = Links()
    later = link("2")
    assert comes(all_links, link("1"))
    assert comes(all_links, later)
    assert not comes(all_links, link("1"))
    all_links.remove(later)
    assert comes(all_links, link("1"))


async def test_what_is_remembered_of_a_worker_that_starts_again_and_again_is_bounded() -> None:
    all_links = Links()
    for number in range(100):
        assert comes(all_links, link(f"{number:03}"))
    assert len(all_links._replaced["worker01"]) == links.MAX_REPLACED
    all_links.remove(*all_links)
    assert not all_links._replaced


def test_a_later_start_has_a_greater_incarnation() -> None:
    def incarnation() -> str:
        nothing: Any = lambda *_: None  # noqa: E731
        client = StoreClient(
            ["somewhere:1"],
            worker_id="worker01",
            app_name="socketcluster",
            secret="a secret of the tests",
            on_session_message=nothing,
            on_session_destroyed=nothing,
            on_channel_message=nothing,
        )
        return client._opening.incarnation

    assert incarnation() < incarnation()


async def test_nothing_is_lost_or_doubled(
    start_store: StartStore, link_worker: LinkWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_link, "REJECTED_PAUSE", 0.01)
    store = await start_store()
    with written("json") as log:
        earlier = await link_worker(store.address, worker_id="worker01")
        await earlier.client.attach("s")

        def add(worker: Any, number: int) -> asyncio.Future[bytes]:
            client: StoreClient = worker.client
            value = msgspec.msgpack.encode(number)
            return client.call(store_pb2.VERB_ADD, session_id="s", keys=["numbers"], value=value)

        waiting = [add(earlier, number) for number in range(200)]
        later = await link_worker(store.address, worker_id="worker01")
        await asyncio.gather(*(add(later, number) for number in range(200, 400)))
        waiting += [add(earlier, number) for number in range(400, 600)]
        await until(lambda: "was started later" in log.text and "two processes have one worker's id" in log.text)
        assert later.client.ready
        assert not earlier.client.ready
        await later.client.close()
        await asyncio.gather(*waiting)
    numbers = msgspec.msgpack.decode(await earlier.get("s", "numbers"))
    assert sorted(numbers) == list(range(600))
    assert earlier.destroyed.empty()
