"""A worker that does not reach the stores: it takes no new clients, and tells those it has to reconnect in the end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.clients.raw import ENGINE
from support.store.passing import PassingStore
from support.worker.running import Probe, RunningWorker, StartWorker, until

from socketcluster_proto.v1 import worker_pb2 as pb
from socketcluster_proto.v1.worker_pb2_grpc import WorkerStub
from socketcluster_runtime import rpc
from socketcluster_runtime.health import check_grpc
from socketcluster_store_client.partitioning import PARTITION_COUNT
from socketcluster_store_client.reach import StoreReach
from socketcluster_worker.health import cut_off
from socketcluster_worker.health.control import Control
from socketcluster_worker.health.cut_off import CutOff
from socketcluster_worker.health.readiness import Readiness

SECRET = "a secret of the tests"
SOON = 0.05
HEALTH = "/socketcluster/health"


class Reach(StoreReach):
    """What is reached, as a test says."""

    def __init__(self) -> None:
        super().__init__(10, [])
        self._count = 0

    @property
    def unreached(self) -> int:
        return self._count

    def lose(self, unreached: int) -> None:
        self._count = unreached
        self.on_change()


class Scene:
    """A worker's inside: what it would tell, and which clients it has left."""

    def __init__(self, timeout: float | None = SOON, clients: int = 0) -> None:
        self.reach = Reach()
        self.readiness = Readiness()
        self.well = False
        self.left = set(range(clients))
        self.portions: list[int] = []
        self.cut_off = CutOff(
            self.reach, self.readiness, others_well=lambda: self.well, clients=self._clients, timeout=timeout
        )

    def _clients(self) -> list[Callable[[], None]]:
        return [lambda number=number: self.left.discard(number) for number in sorted(self.left)]  # type: ignore[misc]

    @property
    def ready(self) -> bool:
        return not self.readiness.reason


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cut_off, "LOOK_EVERY", 0.001)
    monkeypatch.setattr(cut_off, "WELL_FOR", 0.0)


async def looked(scene: Scene) -> None:
    """Return when there was a look after this."""
    looks = 0
    well, before = scene.well, scene.cut_off._others_well

    def count() -> bool:
        nonlocal looks
        looks += 1
        return well

    scene.cut_off._others_well = count
    await until(lambda: looks >= 2)
    scene.cut_off._others_well = before


async def test_without_any_partition_no_client_is_taken_whoever_else_is_there() -> None:
    scene = Scene()
    scene.reach.lose(PARTITION_COUNT)
    await until(lambda: not scene.ready)
    assert scene.readiness.reason == "this worker does not reach the stores"
    scene.reach.lose(0)
    await until(lambda: scene.ready)
    scene.cut_off.close()


async def test_without_some_partitions_clients_are_taken_unless_another_worker_has_all() -> None:
    scene = Scene()
    scene.reach.lose(3)
    await looked(scene)
    assert scene.ready
    scene.well = True
    await until(lambda: not scene.ready)
    assert scene.readiness.reason == "this worker does not reach the stores of 3 of 64 partitions"
    scene.well = False
    await until(lambda: scene.ready)
    scene.cut_off.close()


async def test_clients_stay_as_long_as_no_other_worker_is_well() -> None:
    scene = Scene(timeout=0.001, clients=7)
    scene.reach.lose(PARTITION_COUNT)
    await until(lambda: not scene.ready)
    for _ in range(3):
        await looked(scene)
    assert len(scene.left) == 7
    scene.well = True
    await until(lambda: not scene.left)
    scene.cut_off.close()


async def test_another_worker_that_was_linked_a_moment_earlier_gets_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cut_off, "WELL_FOR", 3600.0)
    scene = Scene(timeout=0.001, clients=7)
    scene.reach.lose(PARTITION_COUNT)
    scene.well = True
    for _ in range(5):
        await looked(scene)
    scene.reach.lose(0)
    await until(lambda: scene.ready)
    assert len(scene.left) == 7
    scene.cut_off.close()


@pytest.mark.parametrize("clients", [3, 12, 400])
async def test_clients_go_in_portions(clients: int) -> None:
    scene = Scene(timeout=0.001, clients=clients)
    scene.well = True
    sizes: list[int] = []
    hand_on = scene.cut_off._hand_on

    def counted() -> None:
        before = len(scene.left)
        hand_on()
        sizes.append(before - len(scene.left))

    scene.cut_off._hand_on = counted  # type: ignore[method-assign]
    scene.reach.lose(PARTITION_COUNT)
    await until(lambda: not scene.left)
    assert sum(sizes) == clients
    assert max(sizes) == min(clients, max(cut_off.LEAST, clients // cut_off.PORTIONS))
    scene.cut_off.close()


async def test_the_rest_stays_when_the_stores_are_back() -> None:
    scene = Scene(timeout=0.001, clients=100)
    scene.well = True
    scene.reach.lose(PARTITION_COUNT)
    await until(lambda: len(scene.left) < 100)
    scene.reach.lose(0)
    await until(lambda: scene.ready)
    left = len(scene.left)
    assert left > 0
    assert not scene.cut_off._leaving
    scene.cut_off.close()


async def test_it_may_be_told_to_keep_its_clients() -> None:
    scene = Scene(timeout=None, clients=1)
    scene.well = True
    scene.reach.lose(PARTITION_COUNT)
    await until(lambda: not scene.ready)
    for _ in range(3):
        await looked(scene)
    assert scene.left
    scene.cut_off.close()


async def test_what_else_speaks_against_clients_goes_on() -> None:
    readiness = Readiness()
    told: list[bool] = []
    readiness.begin(told.append)
    readiness.refuse("descriptors", "there are none left")
    readiness.refuse("stores", "none is reached")
    readiness.admit("descriptors")
    assert readiness.reason == "none is reached"
    readiness.admit("stores")
    readiness.admit("stores")
    assert told == [True, False, True]
    readiness.end()
    readiness.refuse("stores", "none is reached")
    assert told == [True, False, True]


# A whole worker.


@pytest.fixture
async def other_store(folder: Path) -> AsyncIterator[PassingStore]:
    store = PassingStore(folder, SECRET)
    await store.start()
    yield store
    await store.stop()


@pytest.fixture
def store(other_store: PassingStore) -> str:
    return other_store.address


@asynccontextmanager
async def control(worker: RunningWorker) -> AsyncIterator[WorkerStub]:
    async with rpc.connect(worker._settings.control_listen) as channel:
        yield WorkerStub(channel)


async def next_status(watching: Any, wanted: Callable[[pb.WorkerStatus], bool]) -> pb.WorkerStatus:
    while not wanted(status := await watching.read()):
        pass
    assert isinstance(status, pb.WorkerStatus)
    return status


async def health(worker: RunningWorker) -> tuple[int, dict[str, Any]]:
    client = await worker.connect()
    answer = await client.request("GET", HEALTH)
    client.close()
    return answer.status_code, json.loads(bytes(answer.body or b""))


async def test_readiness_follows_the_stores(start_worker: StartWorker, other_store: PassingStore, probe: Probe) -> None:
    worker = await start_worker(probe.run, store_timeout=SOON, cut_off_timeout=0)
    worker.worker.ws_server.on("disconnect", lambda *_: probe.ends.get_nowait())
    kept = await worker.socket()
    secret = rpc.credentials(SECRET)
    async with control(worker) as stub:
        watching = stub.Watch(pb.WatchRequest(), metadata=secret)
        assert (await next_status(watching, lambda status: status.ready)).reaches_stores
        await other_store.stop()
        status = await next_status(watching, lambda status: not status.ready)
        assert not status.reaches_stores
        assert not status.draining
        code, said = await health(worker)
        assert (code, said["status"], said["reason"]) == (503, "not ready", "this worker does not reach the stores")
        assert await asyncio.to_thread(check_grpc, worker._settings.control_listen, SECRET) == "NOT_SERVING"
        client = await worker.connect()
        answer = await client.request("GET", ENGINE + "polling")
        assert (answer.status_code, answer.headers["connection"]) == (503, "close")
        with pytest.raises(AssertionError, match="503"):
            await worker.websocket()
        await kept.send_json({"event": "echo", "data": "still here", "cid": 7})
        assert (await kept.next_json())["data"] == "still here"
        await other_store.start()
        await next_status(watching, lambda status: status.ready and status.reaches_stores)
        assert (await health(worker))[0] == 200
        assert await asyncio.to_thread(check_grpc, worker._settings.control_listen, SECRET) is None
        await worker.socket()


async def test_clients_are_told_to_reconnect(
    start_worker: StartWorker, other_store: PassingStore, probe: Probe
) -> None:
    worker = await start_worker(probe.run, store_timeout=SOON, cut_off_timeout=SOON)
    websocket, polling = await worker.socket(), await worker.engine()
    await polling.handshake()
    async with control(worker) as stub:
        others: Any = stub.Others
        told = others(metadata=rpc.credentials(SECRET))
        await other_store.stop()
        await until(lambda: worker.service._readiness.reason)
        assert worker.service._router.connections == 2
        await told.write(pb.OtherWorkers(well=True))
        assert await websocket.next_close() == (1012, "this worker does not reach the stores")
        assert '"#disconnect"' in "".join(await polling.poll())
        for _ in range(2):
            assert (await probe.ends.get())[1:] == (1012, "this worker does not reach the stores")
        told.cancel()


@dataclass
class Balancer:
    """What a balancer says of the other workers, until it goes."""

    control: Control
    said: asyncio.Queue[bool | None] = field(default_factory=asyncio.Queue)
    stream: asyncio.Task[Any] | None = None

    async def _requests(self) -> AsyncIterator[pb.OtherWorkers]:
        while (well := await self.said.get()) is not None:
            yield pb.OtherWorkers(well=well)

    def say(self, *, well: bool | None) -> None:
        self.said.put_nowait(well)
        if self.stream is None:
            context: Any = None
            self.stream = asyncio.create_task(self.control.Others(self._requests(), context))


async def test_nobody_moves_before_every_balancer_that_speaks_of_it_says_so() -> None:
    known = Control(pb.WorkerStatus(), lambda: 0)
    first, second = Balancer(known), Balancer(known)
    assert not known.others_well
    first.say(well=True)
    await until(lambda: known.others_well)
    second.say(well=False)
    await until(lambda: not known.others_well)
    second.say(well=True)
    await until(lambda: known.others_well)
    second.say(well=False)
    await until(lambda: not known.others_well)
    second.say(well=None)
    await until(lambda: known.others_well)
    assert first.stream is not None
    first.stream.cancel()
    await until(lambda: not known.others_well)
