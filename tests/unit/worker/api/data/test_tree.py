"""Data as a controller sees it: sessions and ``worker.store``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from support.worker.running import Running, RunningWorker, StartWorker

from socketcluster_store_client.errors import (
    ChainTooDeepError,
    CrossPartitionError,
    InvalidOperationError,
    LinkError,
    ProcedureError,
    SessionTooLargeError,
    StoreUnavailableError,
    TooLargeError,
    UnknownProcedureError,
    UpdateConflictError,
    WrongTypeError,
)
from socketcluster_store_client.partitioning import partition_of
from socketcluster_worker.api.data.tree import Tree
from socketcluster_worker.api.sockets.session import Session
from socketcluster_worker.errors import NotSerializableError


async def test_the_vocabulary(tree: Tree) -> None:
    assert await tree.get("k") is None
    await tree.set(["k", "list"], [1, b"two"])
    assert await tree.get(["k", "list", 1]) == b"two"
    assert await tree.add(["k", "list"], {"three": None}) == 2
    assert await tree.concat(["k", "list"], [4, 5]) == 5
    assert await tree.get_range(["k", "list"], -2) == [4, 5]
    assert await tree.get_range(["k", "list"], stop=1) == [1]
    assert await tree.remove_range(["k", "list"], 0, 2) == [1, b"two"]
    assert await tree.pop(["k", "list"]) == 5
    assert await tree.count(["k", "list"]) == 2
    assert await tree.exists(["k", "list", 0, "three"]) is True
    assert await tree.has_key(["k", "list", 2]) is False
    assert await tree.get_all("k") == {"list": [{"three": None}, 4]}
    assert await tree.remove(["k", "list", 0]) is True
    assert await tree.remove(["k", "list", 0], get_value=True) == 4
    assert await tree.expire(["k", "list"], 100) is True
    assert 0 < (await tree.get_expiry(["k", "list"]) or 0) <= 100
    assert await tree.unexpire(["k", "list"]) is True
    assert await tree.get_expiry(["k", "list"]) is None
    await tree.remove_all("k")
    assert await tree.get("k") == {}
    assert await tree.remove("k") is True
    assert await tree.remove("k") is False


HUGE = 10**20


async def test_integers_of_more_than_64_bits_are_exact_wherever_they_stand(tree: Tree) -> None:
    for number in (HUGE, -HUGE, 2**64, -(2**63) - 1, 10**300):
        await tree.set("k", number)
        assert await tree.get("k") == number
    assert await tree.add("k", HUGE) == 1
    assert await tree.concat("k", [HUGE + 1, {"n": HUGE + 2}]) == 4
    assert await tree.get("k") == [10**300, HUGE, HUGE + 1, {"n": HUGE + 2}]
    assert await tree.get(["k", 3, "n"]) == HUGE + 2
    await tree.set(["k", 3, "n"], HUGE + 3)
    assert await tree.get_all(["k", 3]) == {"n": HUGE + 3}
    assert await tree.get_range("k", 1, 2) == [HUGE]
    assert await tree.remove_range("k", 0, 2) == [10**300, HUGE]
    assert await tree.pop("k") == {"n": HUGE + 3}
    assert await tree.remove(["k", 0], get_value=True) == HUGE + 1
    assert await tree.update(["k", "0"], lambda found: HUGE if found is None else found + 1) == HUGE
    assert await tree.update(["k", "0"], lambda found: found + 1) == HUGE + 1
    async with tree.watch("k") as changes:
        await tree.set("k", HUGE)
        assert (await anext(changes)).value == HUGE
    async with tree.transaction() as transaction:
        transaction.set("k", HUGE)
        transaction.get("k")
    assert transaction.results == [None, HUGE]
    with pytest.raises(WrongTypeError, match="a number stands at"):
        await tree.pop("k")
    with pytest.raises(InvalidOperationError, match="not 1000"):
        await tree.expire("k", HUGE)


async def test_a_procedure_counts_with_integers_of_more_than_64_bits(session: Session) -> None:
    await session.set("stock", HUGE)
    assert await session.run("take", HUGE // 2) == HUGE // 2
    assert await session.run("take", -HUGE) == HUGE + HUGE // 2
    assert await session.get("stock") == HUGE + HUGE // 2


async def test_what_is_nested_too_deeply_for_others_is_refused_where_it_is_sent(tree: Tree) -> None:
    def nested(depth: int, leaf: Any) -> Any:
        for _ in range(depth):
            leaf = [leaf]
        return leaf

    for leaf in (None, HUGE, "é" * 500, b"\x90" * 500):
        await tree.set("k", nested(128, leaf))
        assert await tree.get("k") == nested(128, leaf)
        for depth in (133, 500, 5000):
            with pytest.raises(NotSerializableError, match=r"nested deeper|recursion"):
                await tree.set("k", nested(depth, leaf))


async def test_the_whole_tree(tree: Tree) -> None:
    everything = {f"key{number}": number for number in range(50)}
    await asyncio.gather(*(tree.set(key, value) for key, value in everything.items()))
    await tree.set("\0own", 1)
    assert await tree.get_all() == everything
    assert await tree.count() == 50
    await tree.remove_all()
    assert await tree.get_all() == {}
    assert await tree.get("\0own") == 1


@pytest.mark.parametrize(
    ("error", "operation", "keys", "call"),
    [
        (WrongTypeError, "pop", ("k", "l"), lambda tree: tree.pop(["k", "l"])),
        (ChainTooDeepError, "get", ("k",) * 33, lambda tree: tree.get(["k"] * 33)),
        (TooLargeError, "set", ("k",), lambda tree: tree.set("k", "x" * 3000)),
        (TooLargeError, "get", ("k" * 300,), lambda tree: tree.get("k" * 300)),
        (InvalidOperationError, "set", ("m", "5"), lambda tree: tree.set(["m", 5], 0)),
        (InvalidOperationError, "expire", ("k",), lambda tree: tree.expire("k", -1)),
        (InvalidOperationError, "get", (), lambda tree: tree.get([])),
        (InvalidOperationError, "get_range", ("m",), lambda tree: tree.get_range("m", "0")),
    ],
)
async def test_errors_name_operation_and_keys(
    tree: Tree, error: type[LinkError], operation: str, keys: tuple[str, ...], call: Callable[[Tree], Any]
) -> None:
    await tree.set("k", {"l": 1})
    await tree.set("m", [1])
    with pytest.raises(error) as refused:
        await call(tree)
    assert type(refused.value) is error
    assert (refused.value.operation, refused.value.keys) == (operation, keys)
    assert operation.upper() in str(refused.value) or keys == ()
    assert (await tree.get("k"), await tree.get("m")) == ({"l": 1}, [1])


async def test_a_session_too_large(session: Session) -> None:
    for key in "ab":
        await session.set(key, "x" * 1900)
    with pytest.raises(SessionTooLargeError, match=r"ADD \['c'\]: .* would exceed 4000 bytes") as refused:
        await session.add("c", "x" * 500)
    assert (refused.value.operation, refused.value.keys) == ("add", ("c",))


async def test_a_store_that_does_not_answer(start_worker: StartWorker, running_store: Running) -> None:
    worker = await start_worker(store_timeout=1)
    await running_store.stop()
    with pytest.raises(StoreUnavailableError, match=r"no store answered ADD \['k'\] within 1 s") as failed:
        await worker.worker.store.add("k", 1)
    assert isinstance(failed.value, TimeoutError)
    assert (failed.value.operation, failed.value.keys) == ("add", ("k",))


async def test_what_is_no_value(tree: Tree) -> None:
    with pytest.raises(NotSerializableError):
        await tree.set("k", object())


# Update


async def test_updates_lose_nothing(start_worker: StartWorker, session: Session) -> None:
    other = (await start_worker(name="other")).worker.ws_server.sessions.get(session.id)
    calls = 0

    def increase(value: Any) -> Any:
        nonlocal calls
        calls += 1
        return (value or 0) + 1

    async def increase_slowly(value: Any) -> Any:
        await asyncio.sleep(0)
        return increase(value)

    await asyncio.gather(
        *(one.update(["k", "n"], increase) for one in (session, other) for _ in range(20)),
        *(one.update(["k", "n"], increase_slowly) for one in (session, other) for _ in range(5)),
    )
    assert await session.get("k") == {"n": 50}
    assert calls > 50  # they did meet


async def test_an_update_gives_up(session: Session) -> None:
    calls = 0

    async def meddle(value: Any) -> Any:
        nonlocal calls
        calls += 1
        await session.set("n", [calls])
        return "mine"

    with pytest.raises(UpdateConflictError, match=r"UPDATE \['n'\]: .* each of 3 times") as failed:
        await session.update("n", meddle, attempts=3)
    assert (failed.value.operation, failed.value.keys) == ("update", ("n",))
    assert await session.get("n") == [3]


async def test_an_update_that_raises_changes_nothing(session: Session) -> None:
    await session.set("n", [1])

    def fail(value: list[int]) -> None:
        value.append(2)
        raise LookupError("no")

    with pytest.raises(LookupError):
        await session.update("n", fail)
    assert await session.get("n") == [1]


# Transactions


async def test_a_transaction(tree: Tree) -> None:
    async with tree.transaction() as transaction:
        transaction.set(["k", "a"], 1)
        transaction.add(["k", "l"], "x")
        transaction.concat(["k", "l"], ["y", "z"])
        transaction.get_range(["k", "l"], 1)
        transaction.remove_range(["k", "l"], 0, 1)
        transaction.pop(["k", "l"])
        transaction.count(["k", "l"])
        transaction.get(["k", "a"])
        transaction.exists("k")
        transaction.has_key(["k", "b"])
        transaction.get_all("k")
        transaction.expire("k", 50)
        transaction.unexpire("k")
        transaction.get_expiry("k")
        transaction.remove(["k", "a"])
        transaction.remove(["k", "l"], get_value=True)
        transaction.remove_all("k")
    assert transaction.results == [
        *(None, 0, 3, ["y", "z"], ["x"], "z", 1, 1, True, False),
        *({"a": 1, "l": ["y"]}, True, True, None, True, ["y"], None),
    ]
    assert await tree.get_all() == {"k": {}}


async def test_a_transaction_holds_as_a_whole_or_not_at_all(tree: Tree) -> None:
    await tree.set("k", 1)
    transaction = tree.transaction()

    async def refused() -> None:
        async with transaction:
            transaction.set("k", 2)
            transaction.set(["k", "l"], 3)

    with pytest.raises(WrongTypeError, match=r"operation 1 of a transaction: SET \['k', 'l'\]") as error:
        await refused()
    assert error.value.operation == "transaction"
    assert await tree.get("k") == 1
    with pytest.raises(InvalidOperationError, match="is over"):
        transaction.set("k", 4)


async def test_a_transaction_that_is_given_up_is_not_sent(session: Session) -> None:
    async def give_up() -> None:
        async with session.transaction() as transaction:
            transaction.set("k", 2)
            raise LookupError("no")

    with pytest.raises(LookupError):
        await give_up()
    assert await session.get("k") is None
    async with session.transaction() as nothing:
        pass
    assert nothing.results == []


async def test_a_transaction_s_keys_lie_together(worker: RunningWorker) -> None:
    store = worker.worker.store
    names = iter(f"key{number}" for number in range(1000))
    here = next(names)
    together = next(name for name in names if partition_of(name) == partition_of(here))
    apart = next(name for name in names if partition_of(name) != partition_of(here))
    async with store.transaction() as transaction:
        transaction.set(here, 1)
        transaction.set(together, 2)
        with pytest.raises(CrossPartitionError, match=rf"SET \['{apart}'\]: .* lies in partition") as refused:
            transaction.set(apart, 3)
        with pytest.raises(CrossPartitionError, match="all partitions"):
            transaction.get_all()
    assert (refused.value.operation, refused.value.keys) == ("set", (apart,))
    assert await store.get_all() == {here: 1, together: 2}


# Procedures


async def test_a_procedure_is_called_by_name(session: Session, worker: RunningWorker) -> None:
    await session.set("stock", 5)
    assert await session.run("take", 3) == 2
    with pytest.raises(ProcedureError, match="RUN take: sold out") as raised:
        await session.run("take", 3)
    assert (raised.value.name, raised.value.operation) == ("ValueError", "run")
    assert await session.get("stock") == 2
    with pytest.raises(WrongTypeError, match=r"RUN misuse: ADD \['n', 'm'\]"):
        await session.run("misuse")
    assert await session.get("n") is None
    with pytest.raises(UnknownProcedureError, match=r"RUN nothing: .* \(misuse, take\)"):
        await session.run("nothing")
    await worker.worker.store.set("stock", 10)
    assert await worker.worker.store.run("take", 1, key="stock") == 9
    with pytest.raises(InvalidOperationError, match="'stock' belongs to partition"):
        await worker.worker.store.run("take", 1)


async def test_procedures_of_many_callers_come_one_after_the_other(start_worker: StartWorker, session: Session) -> None:
    other = (await start_worker(name="other")).worker.ws_server.sessions.get(session.id)
    await session.set("stock", 30)
    results = await asyncio.gather(
        *(one.run("take", 1) for one in (session, other) for _ in range(20)), return_exceptions=True
    )
    assert sorted(left for left in results if isinstance(left, int)) == list(range(30))
    assert sum(isinstance(result, ProcedureError) for result in results) == 10
    assert await session.get("stock") == 0
