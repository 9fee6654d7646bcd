"""Real processes whose networks are cut: a worker without its stores, and a store without its workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from support.clients.browser import Browser, CallError, WebSocketMessages
from support.cluster.cluster import until
from support.cluster.separate import SeparateServices
from support.network.namespaces import Elsewhere, elsewhere
from support.network.ports import free_port

from socketcluster_store_client.partitioning import partition_of

pytestmark = [pytest.mark.network, pytest.mark.timeout(300)]
CONTROLLER = Path(__file__).parents[1] / "controllers" / "scenario" / "controller.py"
APART = "workers do not reach each other: broadcasts between them go by the stores"
CUT_OFF = "this worker does not reach the stores: operations fail"


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[SeparateServices]:
    async with SeparateServices(tmp_path) as started:
        yield started


async def store(services: SeparateServices, folder: Path, name: str, place: Elsewhere | None = None) -> int:
    """Start a store that listens everywhere; return its port."""
    port = free_port()
    prefix = () if place is None else place.prefix
    await services.start("store", name, prefix, LISTEN=f"0.0.0.0:{port}", DATA_DIR=str(folder / "data"))
    return port


async def worker(
    services: SeparateServices,
    name: str,
    stores: list[str],
    host: str,
    options: dict[str, str],
    place: Elsewhere | None = None,
) -> str:
    """Start a worker that balancers reach at ``host``; return its address."""
    address = f"{host}:{free_port()}"
    wiring = {
        "CONTROLLER": str(CONTROLLER),
        "STORES": ",".join(stores),
        "CONTROL_LISTEN": address,
        "HTTP_LISTEN": f"{host}:0",
    }
    prefix = () if place is None else place.prefix
    await services.start("worker", name, prefix, **(wiring | options))
    return address


async def workers(url: str) -> set[str]:
    """Return which workers new clients come to."""
    found = set()
    for _ in range(8):
        async with Browser(url) as browser:
            answer = await browser.http.get("/who")
            if answer.status_code == 200:
                found.add(answer.json()["worker"])
    return found


async def clients_of(url: str, name: str, count: int, stack: AsyncExitStack) -> list[WebSocketMessages]:
    """Return clients that one worker has, of many that come."""
    found: list[WebSocketMessages] = []
    while len(found) < count:
        browser = await stack.enter_async_context(Browser(url))
        socket = await stack.enter_async_context(browser.raw())
        if (await socket.call("who"))["worker"] == name:
            found.append(socket)
    return found


async def test_a_worker_that_is_cut_off_from_the_stores_hands_its_clients_on(
    services: SeparateServices, tmp_path: Path
) -> None:
    options = {"STORE_TIMEOUT": "2", "CUT_OFF_TIMEOUT": "2"}
    with elsewhere(2) as place:
        to_stores, to_balancer = place.cables
        port = await store(services, tmp_path, "store")
        well = await worker(services, "well", [f"127.0.0.1:{port}"], "127.0.0.1", options)
        cut = await worker(services, "cut", [f"{to_stores.outside}:{port}"], to_balancer.inside, options, place)
        url = await services.balancer([well, cut])
        await until(lambda: workers(url), lambda found: found == {"well", "cut"})
        async with AsyncExitStack() as stack:
            (client,) = await clients_of(url, "cut", 1, stack)
            before = len(await services.log())
            to_stores.cut()
            with pytest.raises(CallError, match="StoreUnavailableError"):
                await client.call("get", "key")
            await client.closed.wait()
            assert client.close_code == 1012
        assert await until(lambda: workers(url), lambda found: len(found) == 1) == {"well"}
        log = (await services.log())[before:]
        assert log.count(CUT_OFF) == 1
        assert "clients are told to reconnect: another worker reaches the stores" in log
        to_stores.mend()
        await until(lambda: workers(url), lambda found: found == {"well", "cut"})
        assert (await services.log())[before:].count("this worker reaches the stores again") == 1


async def test_workers_that_are_all_cut_off_keep_their_clients(services: SeparateServices, tmp_path: Path) -> None:
    options = {"STORE_TIMEOUT": "1", "CUT_OFF_TIMEOUT": "0.1"}
    with elsewhere(1) as place:
        (cable,) = place.cables
        port = await store(services, tmp_path, "store", place)
        names = ("one", "two")
        address = f"{cable.inside}:{port}"
        url = await services.balancer([await worker(services, name, [address], "127.0.0.1", options) for name in names])
        await until(lambda: workers(url), lambda found: found == set(names))
        async with AsyncExitStack() as stack:
            clients = [client for name in names for client in await clients_of(url, name, 1, stack)]
            cable.cut()

            async def fails(client: WebSocketMessages) -> None:
                with pytest.raises(CallError, match="StoreUnavailableError"):
                    await client.call("get", "key")

            await asyncio.gather(*map(fails, clients))
            await until(lambda: workers(url), lambda found: not found)  # nobody is taken in
            await asyncio.gather(*map(fails, clients))
            cable.mend()
            await until(lambda: workers(url), lambda found: found == set(names))
            for client in clients:
                assert not client.closed.is_set()
                await client.call("set", ["key", "value"])
                assert await client.call("get", "key") == "value"


async def test_a_store_that_is_cut_off_from_the_workers_stands_aside(
    services: SeparateServices, tmp_path: Path
) -> None:
    with elsewhere(1) as place:
        (cable,) = place.cables
        here = f"127.0.0.1:{await store(services, tmp_path, 'here')}"
        there = f"{cable.inside}:{await store(services, tmp_path, 'there', place)}"
        address = await worker(services, "worker", [here, there], "127.0.0.1", {"STORE_TIMEOUT": "120"})
        url = await services.balancer([address])
        await until(lambda: workers(url), bool)
        keys = [f"key{number}" for number in range(300)]
        assert len({partition_of(key) for key in keys}) > 60
        async with Browser(url) as browser, browser.raw() as client:
            for key in keys:
                await client.call("app set", [key, "before"])
            cable.cut()
            for key in keys:  # each waits for its partition's next owner, and none fails
                await client.call("app set", [key, "after"])
            await services.logged("no worker reaches this store, but others: it stands aside, and owns nothing")
            assert "NOT_SERVING" in await services.unwell(there, place.prefix)
            cable.mend()
            await services.logged("this store takes part again")

            async def well() -> str:
                return await services.unwell(there)

            await until(well, lambda problem: not problem)
            for key in keys:
                assert await client.call("app get", key) == "after"


async def test_workers_that_are_cut_off_from_each_other_lose_and_double_no_broadcast(
    services: SeparateServices, tmp_path: Path
) -> None:
    """Nobody tells either that the connection is dead; they notice, and the store is the way until it is mended."""
    async with AsyncExitStack() as stack:
        place = stack.enter_context(elsewhere(2))
        to_store, to_workers = place.cables
        port = await store(services, tmp_path, "store")
        clients = []
        for name, mesh, host, where in (
            ("here", to_workers.outside, to_store.outside, None),
            ("there", to_workers.inside, to_store.inside, place),
        ):
            listen = f"0.0.0.0:{free_port()}"
            options = {"HTTP_LISTEN": listen, "HTTP_HOST": mesh}
            address = await worker(services, name, [f"{to_store.outside}:{port}"], host, options, where)

            async def well(address: str = address) -> str:
                return await services.unwell(address)

            await until(well, lambda problem: not problem)
            browser = await stack.enter_async_context(Browser(f"http://{host}:{listen.rpartition(':')[2]}"))
            clients.append(await stack.enter_async_context(browser.raw()))
        speaker, member = clients
        rooms = [f"room {number}" for number in range(50)]
        for room in rooms:
            await member.call("join", room)

        async def broadcast(some: list[str]) -> None:
            for room in some:
                await speaker.call("name to room", room)
            await until(heard, lambda found: some[-1] in found)

        async def heard() -> list[str]:
            return [data for event, data in member.events if event == "room"]

        await broadcast(rooms[:10])
        assert APART not in await services.log()
        to_workers.cut()
        await broadcast(rooms[10:20])
        assert APART in await services.log()
        await broadcast(rooms[20:30])
        to_workers.mend()
        await broadcast(rooms[30:40])
        await services.logged("workers reach each other again")
        await broadcast(rooms[40:])
        assert await heard() == rooms
