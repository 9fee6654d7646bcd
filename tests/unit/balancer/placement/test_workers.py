"""How the balancer learns of workers, and which one it chooses."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import pytest
from support.balancer.bench import Bench, LogLines

from socketcluster_balancer.placement.workers import host_of


async def test_sid_and_cookie_name_the_worker(bench: Bench) -> None:
    await bench.start(*[await bench.worker(letter * 8) for letter in "abc"], app_name="shop")
    for letter in "abc":
        assert (await bench.get(f"/?sid={letter * 8}123")).said["worker"] == letter * 8
        assert (await bench.get("/", cookie=f"x=y; shop.session={letter * 8}12.sig")).said["worker"] == letter * 8
        both = f"shop.session=cccccccc12.sig; __Host-shop.session={letter * 8}12.sig"  # the latter cannot be planted
        assert (await bench.get("/", cookie=both)).said["worker"] == letter * 8
    answer = await bench.get("/?sid=bbbbbbbb1", cookie="shop.session=cccccccc12.sig")
    assert answer.said["worker"] == "bbbbbbbb"


async def test_the_tabs_of_a_browser_whose_worker_is_gone_meet_again(bench: Bench) -> None:
    await bench.start(*[await bench.worker(letter * 8) for letter in "abc"])
    for number in range(10):
        answers = [await bench.get("/", cookie=f"socketcluster.session=zzzzzzzz{number}.sig") for _ in range(3)]
        assert len({answer.said["worker"] for answer in answers}) == 1


async def test_the_less_loaded_of_two_gets_a_client(bench: Bench) -> None:
    full, free = await bench.worker("aaaaaaaa", connections=100), await bench.worker("bbbbbbbb", connections=80)
    await bench.start(full, free)
    workers = [(await bench.get()).said["worker"] for _ in range(30)]
    # The balancer counts what it gives away; nobody has told it anything new.
    assert workers[:20] == ["bbbbbbbb"] * 20
    assert workers[21:].count("aaaaaaaa") in (4, 5)


@pytest.mark.parametrize("change", [{"ready": False}, {"draining": True}])
async def test_a_worker_that_is_not_ready_or_draining_gets_no_clients(bench: Bench, change: dict[str, bool]) -> None:
    leaving, staying = await bench.worker("aaaaaaaa"), await bench.worker("bbbbbbbb")
    await bench.start(leaving, staying)
    await leaving.tell(**change)
    await bench.until(lambda: len(bench.available) == 1)
    for _ in range(10):
        assert (await bench.get("/?sid=aaaaaaaa1")).said["worker"] == "bbbbbbbb"
    await leaving.tell(**{name: not value for name, value in change.items()})
    await bench.until(lambda: len(bench.available) == 2)
    assert (await bench.get("/?sid=aaaaaaaa1")).said["worker"] == "aaaaaaaa"


async def test_a_worker_is_gone_when_its_stream_breaks_and_comes_back(bench: Bench) -> None:
    worker, other = await bench.worker("aaaaaaaa"), await bench.worker("bbbbbbbb")
    await bench.start(worker, other)
    await worker.stop_grpc()
    await bench.until(lambda: len(bench.available) == 1)
    assert (await bench.get("/?sid=aaaaaaaa1")).said["worker"] == "bbbbbbbb"
    await worker.start_grpc()
    await bench.until(lambda: len(bench.available) == 2)
    assert (await bench.get("/?sid=aaaaaaaa1")).said["worker"] == "aaaaaaaa"


async def test_a_worker_that_starts_later_is_found(bench: Bench) -> None:
    await bench.start(workers=[f"unix:{bench.folder}/aaaaaaaa.grpc"])
    waiting = asyncio.ensure_future(bench.get())
    await bench.until(lambda: bench.waiting == 1)
    await bench.worker("aaaaaaaa")
    assert (await waiting).said["worker"] == "aaaaaaaa"


async def test_a_handoff_path_may_change(bench: Bench) -> None:
    worker = await bench.worker("aaaaaaaa")
    await bench.start(worker)
    assert (await bench.get()).said["via"] == "handoff"
    await worker.tell(handoff_path="")
    await bench.until(lambda: bench.available[0].link is None)
    assert (await bench.get()).said["via"] == "relay"


async def test_a_wrong_secret_is_said(bench: Bench, log_lines: LogLines) -> None:
    worker = await bench.worker("aaaaaaaa", secret="another secret of 16")
    await bench.start(workers=[worker.address], worker_wait=0)
    await bench.until(lambda: any("SOCKETCLUSTER_SECRET differs" in line for line in log_lines(logging.ERROR)))
    assert (await bench.get()).status == 503


async def test_hosts_of_a_name_come_and_go(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name server is the only part that is not real: it answers what the test says."""
    here, there = await bench.worker("aaaaaaaa", tcp="127.0.0.1"), await bench.worker("bbbbbbbb", tcp="127.0.0.2")
    port = await there.move_to_port_of(here)
    hosts = ["127.0.0.1"]
    asked: list[Any] = []

    async def getaddrinfo(host: str, port: int, **_: object) -> list[Any]:
        asked.append((host, port))
        if not hosts:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in hosts]

    monkeypatch.setattr("socketcluster_runtime.addresses.RESOLVE_INTERVAL", 0.01)
    monkeypatch.setattr("socketcluster_runtime.addresses.look_up", getaddrinfo)
    await bench.start(workers=[f"dns:///worker:{port}"])
    await bench.until(lambda: [worker.worker_id for worker in bench.available] == ["aaaaaaaa"])
    assert asked[0] == ("worker", port)
    hosts.append("127.0.0.2")
    await bench.until(lambda: len(bench.available) == 2)
    assert (await bench.get("/?sid=bbbbbbbb1")).said["worker"] == "bbbbbbbb"
    # A host that the name has no more stays while it lives: it may only be on its way out.
    hosts.remove("127.0.0.1")
    seen = len(asked)
    await bench.until(lambda: len(asked) > seen + 2)
    assert len(bench.available) == 2
    await here.stop_grpc()
    await bench.until(lambda: [worker.worker_id for worker in bench.available] == ["bbbbbbbb"])
    await bench.until(lambda: len(bench.balancer.workers.known) == 1)
    # A name server that does not answer takes no worker away.
    hosts.clear()
    seen = len(asked)
    await bench.until(lambda: len(asked) > seen + 2)
    assert (await bench.get()).said["worker"] == "bbbbbbbb"


async def test_a_real_name_is_looked_up(bench: Bench) -> None:
    worker = await bench.worker("aaaaaaaa", tcp="127.0.0.1", handoff=False)
    await bench.start(workers=[worker.address.replace("127.0.0.1", "dns:///localhost")])
    assert (await bench.get()).said["worker"] == "aaaaaaaa"


@pytest.mark.parametrize(
    ("address", "host"),
    [("worker:7100", "worker"), ("[::1]:7100", "::1"), ("unix:/run/worker", "127.0.0.1"), ("10.0.0.1:1", "10.0.0.1")],
)
def test_relayed_connections_go_to_the_watched_host(address: str, host: str) -> None:
    assert host_of(address) == host
