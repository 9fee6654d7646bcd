from __future__ import annotations

import asyncio

import pytest

from socketcluster_proto.v1.store_pb2 import Directory, WorkerAddress
from socketcluster_runtime import rpc
from socketcluster_store_client import worker_directory
from socketcluster_store_client.worker_directory import KEPT, WorkerDirectory

ONE, OTHER = "a link", "another link"


def directory(**workers: int) -> Directory:
    return Directory(
        workers=[WorkerAddress(worker_id=name, http_host="host", http_port=port) for name, port in workers.items()]
    )


class Times:
    """The loop's clock, in the test's hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: self.now)


@pytest.fixture
async def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    return Times(monkeypatch)


async def test_nobody_is_known_at_first() -> None:
    assert WorkerDirectory().find("a") is None


async def test_directories_of_stores_are_one_and_the_last_word_counts() -> None:
    workers = WorkerDirectory()
    workers.told(ONE, directory(a=1, b=2))
    workers.told(OTHER, directory(b=3, c=4))
    assert [workers.find(name) for name in "abcd"] == [("host", 1), ("host", 3), ("host", 4), None]
    workers.told(ONE, directory(a=1, b=2))
    assert workers.find("b") == ("host", 2)


async def test_a_worker_is_remembered_for_a_while_after_the_last_store_forgot_it(times: Times) -> None:
    workers = WorkerDirectory()
    workers.told(ONE, directory(a=1, b=2))
    workers.told(OTHER, directory(b=2))
    workers.broken(ONE)
    times.now += KEPT / 2
    workers.told(OTHER, directory())
    assert [workers.find(name) for name in "ab"] == [("host", 1), ("host", 2)]
    times.now += KEPT / 2
    assert [workers.find(name) for name in "ab"] == [None, ("host", 2)]
    times.now += KEPT / 2
    assert workers.find("b") is None


async def test_a_worker_that_came_back_is_where_it_is_now(times: Times) -> None:
    workers = WorkerDirectory()
    workers.told(ONE, directory(a=1))
    workers.broken(ONE)
    workers.told(ONE, directory(a=5))
    assert workers.find("a") == ("host", 5)
    workers.told(ONE, directory())
    times.now += KEPT
    assert workers.find("a") is None


async def test_those_that_were_forgotten_take_no_room(times: Times) -> None:
    workers = WorkerDirectory()
    for number in range(100):
        workers.told(ONE, directory(**{f"w{number}": 1}))
        times.now += 1
    assert len(workers._left) <= KEPT + 1


async def test_no_more_of_them_are_remembered_than_there_is_room_for(
    times: Times, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_directory, "MAX_LEFT", 2)
    workers = WorkerDirectory()
    workers.told(ONE, directory(a=1, b=2, c=3))
    for left in (directory(b=2, c=3), directory(c=3), directory()):
        workers.told(ONE, left)
    assert [workers.find(name) for name in "abc"] == [None, ("host", 2), ("host", 3)]
    times.now += KEPT
    assert [workers.find(name) for name in "bc"] == [None, None]


async def test_a_worker_that_left_again_is_remembered_for_the_whole_while(times: Times) -> None:
    workers = WorkerDirectory()
    for _ in range(3):
        workers.told(ONE, directory(a=1))
        workers.told(ONE, directory())
        times.now += KEPT - 1
        assert workers.find("a") == ("host", 1)
    times.now += 1
    assert workers.find("a") is None


async def test_a_link_that_breaks_before_it_said_anything_is_nothing() -> None:
    WorkerDirectory().broken(ONE)


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:192.0.2.1:4711", "192.0.2.1"),
        ("ipv6:[2001:db8::1]:4711", "2001:db8::1"),
        ("ipv6:%5B2001:db8::1%5D:4711", "2001:db8::1"),
        ("unix:", "127.0.0.1"),
        ("unix:/run/store", "127.0.0.1"),
    ],
)
def test_the_host_of_a_caller(peer: str, host: str) -> None:
    assert rpc.peer_host(peer) == host
