"""What the clients of one process do in each mode, and what is counted."""

from __future__ import annotations

import asyncio

import pytest
from support.cluster.bench_server import bench_server
from support.worker.running import until

from socketcluster.bench.advice import NO_ANSWER
from socketcluster.bench.modes import Crowd, FatalError
from socketcluster.bench.plan import Mode, Plan, Protocol


def plan(url: str, mode: str, **options: object) -> Plan:
    made = {
        "url": url,
        "protocol": Protocol.WEBSOCKET,
        "mode": Mode(mode),
        "connections": 3,
        "duration": 30.0,
        **options,
    }
    return Plan(**made)  # type: ignore[arg-type]


async def test_without_a_rate_each_client_sends_when_it_has_its_answer() -> None:
    async with bench_server() as server:
        crowd = Crowd(plan(server.url, "ack"), 0)
        await crowd.connect()
        running = asyncio.create_task(crowd.run())
        await until(lambda: crowd.tally.answered > 30)
        crowd.stop()
        await running
        await crowd.settle()
        tally = crowd.tally
        assert (tally.open, tally.unanswered, tally.errors) == (3, 0, {})
        assert tally.answered == tally.latency.count == tally.sent
        crowd.close()


async def test_at_a_rate_messages_go_at_their_times_whatever_becomes_of_the_answers() -> None:
    async with bench_server() as server:
        crowd = Crowd(plan(server.url, "ack", rate=200.0, duration=0.2, timeout=0.3), 0)
        await crowd.connect()
        server.answers = False
        await crowd.run()
        assert (crowd.tally.sent, crowd.tally.answered) == (40, 0)
        await crowd.settle()
        assert crowd.tally.unanswered == 40
        assert crowd.tally.errors == {NO_ANSWER: 40}
        crowd.close()


async def test_where_nobody_answers_nothing_begins() -> None:
    async with bench_server() as server:
        server.answers = False
        crowd = Crowd(plan(server.url, "ack", timeout=0.1), 0)
        with pytest.raises(FatalError, match=NO_ANSWER):
            await crowd.connect()
        crowd.close()


async def test_where_nobody_is_let_in_the_commonest_reason_is_told() -> None:
    async with bench_server() as server:
        server.status = 404
        with pytest.raises(FatalError, match="HTTP 404"):
            await Crowd(plan(server.url, "idle"), 0).connect()
    with pytest.raises(FatalError, match="no such host"):
        await Crowd(plan("ws://nowhere.invalid", "idle"), 0).connect()


async def test_what_one_publishes_is_delivered_to_all_and_counted() -> None:
    async with bench_server() as server:
        server.to_all = True
        crowd = Crowd(plan(server.url, "broadcast", rate=100.0, duration=0.1), 0)
        await crowd.connect()
        assert crowd.tally.joined == 3
        await crowd.run()
        await until(lambda: crowd.tally.delivered == 30)
        assert (crowd.tally.sent, crowd.tally.answered, crowd.tally.latency.count) == (10, 10, 30)
        crowd.close()


async def test_connections_that_are_lost_while_they_are_held_are_counted_with_what_was_on_them() -> None:
    async with bench_server() as server:
        crowd = Crowd(plan(server.url, "idle"), 0)
        await crowd.connect()
        running = asyncio.create_task(crowd.run())
        server.writers[0].close()
        await until(lambda: crowd.tally.lost == 1)
        assert (crowd.tally.open, crowd.tally.errors) == (2, {"the connection was closed": 1})
        crowd.stop()
        await running
        crowd.close()
        assert crowd.tally.open == 0
        assert crowd.tally.lost == 1  # closing is no loss


async def test_in_a_storm_all_come_back_also_who_is_refused_at_first() -> None:
    async with bench_server() as server:
        crowd = Crowd(plan(server.url, "storm"), 0)
        await crowd.connect()
        server.status = 503
        running = asyncio.create_task(crowd.run())
        await until(lambda: crowd.tally.errors.get("HTTP 503", 0) >= 3)
        server.status = 101
        await running
        assert (crowd.tally.opened, crowd.tally.open, crowd.tally.latency.count) == (3, 3, 3)
        crowd.close()
