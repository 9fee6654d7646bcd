"""How new sessions spread over workers that tell four times a second how many connections they have."""

from __future__ import annotations

import heapq
import itertools
import random
import socket
from collections.abc import Callable, Iterator

import pytest

from socketcluster_balancer.counters import BalancerCounters
from socketcluster_balancer.entrance.limits import Limits
from socketcluster_balancer.entrance.plain import PlainClient, PlainReception
from socketcluster_balancer.placement.dispatcher import Dispatcher
from socketcluster_balancer.placement.handoff import HandoffLink
from socketcluster_balancer.placement.watched_worker import WatchedWorker
from socketcluster_balancer.placement.workers import Workers
from socketcluster_balancer.settings import BalancerSettings
from socketcluster_proto.v1.worker_pb2 import WorkerStatus
from socketcluster_runtime.sockets.capacity import Room
from socketcluster_runtime.trusted_proxies import TrustedProxies

STATUS_INTERVAL = 0.25
SESSIONS = 10_000


class CountingLink(HandoffLink):
    """Counts the clients that it is given, and sends them nowhere."""

    def __init__(self, path: str, settings: BalancerSettings) -> None:
        super().__init__(path, settings, lambda _: None, lambda *_: None, lambda _: None, lambda _: None)
        self.given = 0
        self.on_client: Callable[[], None] = lambda: None

    def submit(self, client: PlainClient) -> None:
        self.given += 1
        self.on_client()


class CountingDispatcher(Dispatcher):
    """Has such links."""

    def make_link(self, worker: WatchedWorker, path: str) -> HandoffLink:
        return CountingLink(path, self._settings)


class Simulation:
    """A balancer's own choice and its own view of the workers, in simulated time.

    Args:
        rate: new sessions a second.
        delay: seconds from a client's first request until its worker counts it among its connections, more or less.
        seed: of all that is random.
    """

    def __init__(self, rate: float, delay: float, seed: int) -> None:
        self._rate, self._delay = rate, delay
        self._random = random.Random(seed)
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._a, self._b = socket.socketpair()
        settings = BalancerSettings(workers=["nowhere:1"], secret="the secret of the tests", name="tested")
        limits, counters = Limits(settings), BalancerCounters()
        reception = PlainReception(settings, limits, counters, TrustedProxies((), "proxy-protocol"))
        self._watch = Workers(settings)
        self._dispatcher = CountingDispatcher(settings, limits, counters, reception, self._watch, Room())
        self._dispatcher._draw = random.Random(seed + 1).randrange
        self.workers: dict[str, WatchedWorker] = {}
        self.statuses: dict[str, WorkerStatus] = {}

    def close(self) -> None:
        self._a.close()
        self._b.close()

    def given(self, worker_id: str) -> int:
        link = self.workers[worker_id].link
        assert isinstance(link, CountingLink)
        return link.given

    def add(self, worker_id: str) -> None:
        worker = WatchedWorker(worker_id, lambda: self._now)
        status = WorkerStatus(worker_id=worker_id, name=worker_id, ready=True, handoff_path=f"/{worker_id}")
        self._watch._workers[worker_id] = self.workers[worker_id] = worker
        self.statuses[worker_id] = status
        self._watch._learn(worker, status)
        link = worker.link
        assert isinstance(link, CountingLink)

        def connected() -> None:
            status.connections += 1

        def tell() -> None:
            self._watch._learn(worker, status)
            self._at(STATUS_INTERVAL, tell)

        link.on_client = lambda: self._at(self._delay * self._random.uniform(0.5, 1.5), connected)
        self._at(STATUS_INTERVAL * self._random.random(), tell)

    def tell(self, worker_id: str) -> None:
        self._watch._learn(self.workers[worker_id], self.statuses[worker_id])

    def sessions(self, count: int) -> None:
        """Have so many new clients come."""
        arrivals = itertools.accumulate(self._random.expovariate(self._rate) for _ in range(count))
        for after in list(arrivals):
            self._at(after, self._place)
        left = count
        while left:
            self._now, _, happens = heapq.heappop(self._events)
            left -= happens == self._place
            happens()

    def _place(self) -> None:
        self._dispatcher.place(PlainClient(self._a, None, b""))

    def _at(self, after: float, happens: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self._now + after, next(self._order), happens))


@pytest.fixture
def simulate() -> Iterator[Callable[..., Simulation]]:
    made: list[Simulation] = []

    def simulate(*workers: str, rate: float = 1000, delay: float = 0.5, seed: int = 1) -> Simulation:
        made.append(Simulation(rate, delay, seed))
        for worker_id in workers:
            made[-1].add(worker_id)
        return made[-1]

    yield simulate
    for each in made:
        each.close()


FOUR = ("aaaaaaaa", "bbbbbbbb", "cccccccc", "dddddddd")


@pytest.mark.parametrize("rate", [200, 1000, 4000])
@pytest.mark.parametrize("delay", [0.01, 0.5, 1.0, 2.0])
async def test_ten_thousand_new_sessions_over_four_workers_differ_by_under_five_percent(
    simulate: Callable[..., Simulation], rate: float, delay: float
) -> None:
    for seed in (1, 2):
        simulation = simulate(*FOUR, rate=rate, delay=delay, seed=seed)
        simulation.sessions(SESSIONS)
        counts = [simulation.given(worker) for worker in FOUR]
        assert sum(counts) == SESSIONS
        assert max(counts) - min(counts) < 0.05 * SESSIONS / len(FOUR), counts


async def test_a_new_worker_gets_its_share_of_new_sessions_at_once_and_not_all(
    simulate: Callable[..., Simulation],
) -> None:
    simulation = simulate(*FOUR[:3])
    simulation.sessions(6000)
    simulation.add(FOUR[3])
    simulation.sessions(100)
    assert 25 <= simulation.given(FOUR[3]) <= 75
    simulation.sessions(10_000)
    counts = [simulation.given(worker) for worker in FOUR]
    assert max(counts) - min(counts) < 0.05 * sum(counts) / len(FOUR), counts


async def test_a_draining_worker_gets_none_and_a_restarted_one_begins_anew(
    simulate: Callable[..., Simulation],
) -> None:
    simulation = simulate(*FOUR)
    simulation.sessions(400)
    before = simulation.given(FOUR[0])
    simulation.statuses[FOUR[0]].draining = True
    simulation.tell(FOUR[0])
    simulation.sessions(1000)
    assert simulation.given(FOUR[0]) == before
    simulation.statuses[FOUR[0]].draining = False
    simulation.tell(FOUR[0])
    simulation.sessions(100)
    assert simulation.given(FOUR[0]) >= before + 25
