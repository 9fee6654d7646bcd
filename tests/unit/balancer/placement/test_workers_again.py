"""Another process at a worker's address, or none: what was known of the one before is forgotten."""

from __future__ import annotations

import pytest

from socketcluster_balancer.placement.handoff import HandoffLink
from socketcluster_balancer.placement.watched_worker import WatchedWorker
from socketcluster_balancer.placement.workers import Workers
from socketcluster_balancer.settings import BalancerSettings
from socketcluster_proto.v1.worker_pb2 import WorkerStatus

ADDRESS = "127.0.0.1:7100"


class Link(HandoffLink):
    """Goes nowhere, and tells why it was closed."""

    def __init__(self, path: str, settings: BalancerSettings) -> None:
        super().__init__(path, settings, lambda _: None, lambda *_: None, lambda _: None, lambda _: None)
        self.closed = ""

    def close(self, reason: str) -> None:
        self.closed = reason


@pytest.fixture
async def workers() -> Workers:
    made = Workers(BalancerSettings(workers=[ADDRESS], secret="the secret of the tests", name="tested"))
    made._workers[ADDRESS] = WatchedWorker(ADDRESS)
    made._learn(made._workers[ADDRESS], WorkerStatus(worker_id="aaaaaaaa", name="one", ready=True, connections=3))
    made._workers[ADDRESS].give()
    return made


async def test_one_that_speaks_again_is_the_same(workers: Workers) -> None:
    (worker,) = workers.available
    worker.suspect_until = 5.0
    workers._learn(worker, WorkerStatus(worker_id="aaaaaaaa", name="one", ready=True, connections=3))
    assert worker.load > 3
    assert worker.suspect_until == 5.0


async def test_another_process_has_no_clients_yet_and_is_not_suspected(workers: Workers) -> None:
    (worker,) = workers.available
    worker.suspect_until = 5.0
    workers._learn(worker, WorkerStatus(worker_id="bbbbbbbb", name="one", ready=True))
    assert worker.load == 0
    assert worker.suspect_until == 0
    assert workers.available == (worker,)


async def test_one_that_is_lost_has_no_clients_and_gets_none(workers: Workers) -> None:
    (worker,) = workers.available
    workers._lose(worker)
    assert worker.load == 0
    assert workers.available == ()
    assert workers.known == (worker,)  # it may come back
    assert workers.may_come


async def test_one_that_is_wanted_no_more_leaves_no_link(workers: Workers) -> None:
    (worker,) = workers.available
    worker.link = link = Link("/nowhere", workers._settings)
    workers._lose(worker)
    workers._drop(worker)
    assert link.closed == "the worker is gone"
    assert workers.known == ()
