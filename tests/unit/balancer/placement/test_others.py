"""What workers are told of each other."""

from __future__ import annotations

from support.balancer.bench import Bench


async def test_workers_are_told_whether_others_could_take_their_clients(bench: Bench) -> None:
    one, two = await bench.worker("aaaaaaaa"), await bench.worker("bbbbbbbb")
    await bench.start(one, two)
    await bench.until(lambda: one.others == [False] == two.others)
    await two.tell(reaches_stores=True)
    await bench.until(lambda: one.others[-1])
    assert two.others == [False]  # nothing is news there
    await two.tell(draining=True)
    await bench.until(lambda: not one.others[-1])
    await two.tell(draining=False)
    await bench.until(lambda: one.others[-1])
    await one.tell(reaches_stores=True)
    await bench.until(lambda: two.others[-1])
    await two.stop_grpc()
    await bench.until(lambda: one.others == [False, True, False, True, False])


async def test_a_worker_without_the_tags_takes_nobodys_clients(bench: Bench) -> None:
    one = await bench.worker("aaaaaaaa", tags=["eu"], reaches_stores=True)
    two = await bench.worker("bbbbbbbb", tags=["eu", "big"], reaches_stores=True)
    await bench.start(one, two)
    await bench.until(lambda: one.others and one.others[-1])
    await bench.until(lambda: two.others)
    assert two.others == [False]
