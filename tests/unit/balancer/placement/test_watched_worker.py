"""What the balancer knows of one worker: may it be given clients, and how loaded is it?"""

from __future__ import annotations

import math

import pytest

from socketcluster_balancer.api import WorkerInfo
from socketcluster_balancer.placement.signs_of_life import HANG_AFTER, LOOK_INTERVAL, STEADY_AFTER, OwnTime
from socketcluster_balancer.placement.watched_worker import MEMORY, WatchedWorker


class Clock:
    """Says what a test wants."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def ready(worker: WatchedWorker) -> WatchedWorker:
    worker.worker_id, worker.name, worker.ready = "aaaaaaaa", "one", True
    return worker


def test_one_that_was_not_heard_of_is_not_available() -> None:
    worker = WatchedWorker("127.0.0.1:7100")
    assert not worker.available
    worker.ready = True
    assert not worker.available  # its stream has ended
    assert ready(worker).available


@pytest.mark.parametrize("change", [{"worker_id": ""}, {"ready": False}, {"draining": True}])
def test_what_makes_it_unavailable(change: dict[str, object]) -> None:
    worker = ready(WatchedWorker("a:1"))
    for name, value in change.items():
        setattr(worker, name, value)
    assert not worker.available


def test_one_that_lacks_descriptors_or_stores_says_itself_that_it_is_not_ready() -> None:
    worker = ready(WatchedWorker("a:1"))
    worker.full, worker.reaches_stores = True, False
    assert worker.available


def test_one_that_hangs_gets_nobody_and_is_the_last_choice_when_it_is_heard_again() -> None:
    time = OwnTime()
    worker = ready(WatchedWorker("a:1", own_time=time))

    def pass_by(seconds: float) -> None:
        time.seconds += seconds

    worker.sign_of_life.heard("aaaaaaaa", 500)
    pass_by(HANG_AFTER)
    assert worker.sign_of_life.missing
    worker.sign_of_life.hangs()
    assert (worker.silent, worker.hung, worker.available) == (True, True, False)
    worker.sign_of_life.heard("aaaaaaaa", 500)
    assert (worker.silent, worker.hung, worker.available) == (False, True, True)
    for _ in range(math.ceil(STEADY_AFTER / LOOK_INTERVAL)):
        pass_by(LOOK_INTERVAL)
        worker.sign_of_life.heard("aaaaaaaa", 500)
    assert not worker.hung


def test_what_it_was_given_of_late_weighs_beside_its_connections() -> None:
    clock = Clock()
    worker = WatchedWorker("a:1", clock)
    worker.connections = 10
    assert worker.load == 10
    worker.give()
    worker.give()
    assert worker.load == pytest.approx(12)
    clock.now += MEMORY
    assert worker.load == pytest.approx(10 + 2 / math.e)
    worker.give()
    clock.now += MEMORY
    assert worker.load == pytest.approx(10 + (2 / math.e + 1) / math.e)
    clock.now += 100 * MEMORY
    assert worker.load == pytest.approx(10)


def test_another_process_at_the_same_address_begins_without_clients() -> None:
    worker = WatchedWorker("a:1", Clock())
    worker.connections = 10
    worker.give()
    worker.forget_clients()
    assert worker.load == 0
    worker.give()
    assert worker.load == pytest.approx(1)


def test_a_controller_is_shown_what_it_may_know() -> None:
    worker = ready(WatchedWorker("a:1"))
    worker.tags, worker.connections = ("eu", "big"), 7
    worker.give()  # of which a controller knows nothing
    assert worker.info() == WorkerInfo("aaaaaaaa", "one", ("eu", "big"), 7)
