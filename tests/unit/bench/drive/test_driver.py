"""The load generator counts what really came, and fails where something did not, or came twice."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from support.plain_server import Served

from bench.drive import driver as driver_module
from bench.drive.driver import Driver


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "PATIENCE", 0.3)


@pytest.fixture
async def driver(served: Served) -> AsyncIterator[Driver]:
    made = Driver("plain", served.port, 7, None)
    yield made
    await made.close()


async def test_clients_come_from_addresses_of_their_own(
    driver: Driver, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "PER_SOURCE", 2)
    found = await driver.open(5)
    assert found["opened"] == 5
    assert found["vain"] == {}
    await driver.acknowledge(0)  # so that the server has seen all of them
    assert served.addresses == {"127.8.1.1", "127.8.1.2", "127.8.1.3"}
    assert 0 < found["served"]["p50"] <= found["served"]["max"] <= found["seconds"]


async def test_every_event_that_was_begun_is_answered_and_counted(driver: Driver) -> None:
    await driver.open(3)
    found = await driver.acknowledge(0.05)
    assert found["events"] >= 3
    assert found["seconds"] >= 0.05
    assert sum(client.number - 1 for client in driver._clients) == found["events"]


async def test_with_a_window_all_clients_have_their_turn(driver: Driver) -> None:
    await driver.open(4)
    found = await driver.acknowledge(0.1, window=2, payload=70_000)
    numbers = [client.number - 1 for client in driver._clients]
    assert sum(numbers) == found["events"]
    assert max(numbers) - min(numbers) <= 2


@pytest.mark.usefixtures("impatient")
async def test_what_is_not_answered_fails(driver: Driver, served: Served) -> None:
    await driver.open(1)
    served.delay = 30
    with pytest.raises(RuntimeError, match="1 events without an answer, 0 with one"):
        await driver.acknowledge(0.01)


async def test_latency_is_that_of_the_server(driver: Driver, served: Served) -> None:
    await driver.open(5)
    served.delay = 0.05
    found = await driver.paced(0.2, rate=50)
    assert found["events"] == 10
    assert 0.05 <= found["kept"]["p50"] <= found["kept"]["max"]
    assert found["late"]["p50"] >= 0


async def test_a_broadcast_reaches_each_member_once(driver: Driver, served: Served) -> None:
    await driver.open(4)
    assert await driver.join("room", 3) == {"members": 3}
    found = await driver.broadcast(0.05, ["room"])
    assert found["delivered"] == 3 * found["spoken"] == served.delivered
    assert found["reached"]["p50"] > 0


async def test_broadcasts_come_at_a_rate(driver: Driver) -> None:
    await driver.open(3)
    await driver.join("room", 2)
    found = await driver.broadcast(0.2, ["room"], rate=20)
    assert (found["spoken"], found["delivered"]) == (4, 8)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("times", "lack"), [(0, "deliveries came"), (2, "deliveries instead of")])
async def test_a_delivery_that_is_lost_or_doubled_fails(driver: Driver, served: Served, times: int, lack: str) -> None:
    await driver.open(4)
    await driver.join("room", 3)
    served.spoil = lambda number: times if number == 3 else 1
    with pytest.raises(RuntimeError, match=lack):
        await driver.broadcast(0, ["room"])


async def test_members_are_spread_over_places(driver: Driver, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "SPARE", 0)
    served.places = ["one", "one", "other"]
    await driver.open(2)
    assert await driver.join_spread("room", 4, 2) == {"members": 4, "clients": 6}
    served.places = ["one"]
    with pytest.raises(RuntimeError, match=r"on \[\d+, 2\]: not 3 on each"):
        await driver.join_spread("room", 6, 2)


async def test_each_client_has_its_share_of_many_rooms(driver: Driver, served: Served) -> None:
    await driver.open(3)
    await driver.join_many(7)
    assert {name: len(members) for name, members in served.rooms.items()} == {f"room{number}": 1 for number in range(7)}
    found = await driver.broadcast(0.02, [f"room{number}" for number in range(7)])
    assert found["delivered"] == found["spoken"]


async def test_who_is_refused_in_a_storm_comes_again(driver: Driver, served: Served) -> None:
    served.refusals = 2
    found = await driver.come(4)
    assert found["opened"] == 4
    assert sum(found["vain"].values()) == 2
    assert 0.5 < found["served"]["max"] <= found["seconds"]
    assert served.came == 4


async def test_clients_come_and_leave(driver: Driver, served: Served) -> None:
    found = await driver.churn(9, at_once=4)
    assert (found["came"], found["errors"]) == (9, {})
    assert served.came == 9


async def test_a_check_sees_that_the_answer_is_the_event(driver: Driver, served: Served) -> None:
    await driver.open(1)
    assert await driver.check(70_000) == {}
    driver._dialect = type(driver._dialect)(
        **{**driver._dialect.__dict__, "call": driver._dialect.join.replace("join", "where")}
    )
    with pytest.raises(RuntimeError, match="another answer than the event"):
        await driver.check()


async def test_connections_that_were_lost_are_counted(driver: Driver, served: Served) -> None:
    await driver.open(3)
    await driver.join("room", 1)
    await served.rooms["room"][0].close()
    assert await driver.close() == {"lost": 1}
