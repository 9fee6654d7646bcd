"""Transactions and procedures, on each engine."""

from __future__ import annotations

import gc
import signal
from contextlib import suppress
from typing import Any

import pytest
from support.store.data import ELSEWHERE, HERE, MAX_VALUE, Data, encode, number, watch

from socketcluster_runtime.time_limit import TimeLimit, TookTooLong
from socketcluster_store.commands import Command
from socketcluster_store.data.applied_log import AppliedLog, read_records
from socketcluster_store.data.procedures import ProcedureTree
from socketcluster_store.errors import (
    InvalidError,
    ProcedureError,
    Refusal,
    UnknownProcedureError,
    WrongTypeError,
)

# Transactions


async def test_a_transaction_returns_its_results(data: Data) -> None:
    await data.do("set", "k", value=[1])
    results = await data.transaction(
        ("add", ["k"], 2), ("get", ["k"]), ("set", ["l"], {"a": 1}), ("count", []), ("pop", ["k"]), ("remove", ["x"])
    )
    assert results == [1, [1, 2], None, 2, 2, False]
    assert await data.do("get_all") == {"k": [1], "l": {"a": 1}}


async def test_a_transaction_that_is_refused_changes_nothing(data: Data) -> None:
    await data.do("set", "k", value=[1])
    await data.do("set", "l", value={"a": 1})
    await data.do("expire", "l", value=50)
    await watch(data, ())
    with pytest.raises(WrongTypeError, match=r"operation 4 of a transaction: SET \['k', 'x'\]"):
        await data.transaction(
            ("add", ["k"], 2), ("remove", ["l"]), ("set", ["n"], 1), ("expire", ["k"], 1), ("set", ["k", "x"], 1)
        )
    assert await data.do("get_all") == {"k": [1], "l": {"a": 1}}
    assert await data.do("get_expiry", "l") == 50
    assert await data.do("get_expiry", "k") is None
    assert data.partition.next_expiry() == data.clock.now + 50
    assert data.changes() == []


@pytest.mark.parametrize("verb", ["transaction", "run", "watch", "unwatch", "session_attach", "channel_publish"])
async def test_what_a_transaction_may_not_have(data: Data, verb: str) -> None:
    with pytest.raises(InvalidError, match="no verb of a transaction"):
        await data.transaction(("set", ["k"], 1), (verb, ["k"]))
    assert await data.do("get_all") == {}


async def test_a_transaction_has_a_largest_length(data: Data) -> None:
    await data.transaction(*[("get", ["k"])] * 1000)
    with pytest.raises(InvalidError, match="1001 operations, 1000 are allowed"):
        await data.transaction(*[("get", ["k"])] * 1001)


async def test_the_applications_keys_of_a_transaction_lie_in_one_partition(data: Data) -> None:
    with pytest.raises(InvalidError, match=rf"'{ELSEWHERE}' belongs to partition .*, this one is 7"):
        await data.transaction(("set", [HERE], 1), ("set", [ELSEWHERE], 1), session=b"")
    assert await data.transaction(("set", [HERE], 1), ("get", [HERE]), session=b"") == [None, 1]


# Procedures


async def test_a_procedure_has_the_whole_vocabulary(data: Data) -> None:
    @data.procedure
    def everything(tree: Any, argument: int) -> Any:
        tree.set("k", [argument])
        return [
            tree.get("k"),
            tree.add("k", 8),
            tree.concat(["k"], [9]),
            tree.get(["k", 1]),
            tree.get_range("k", -2),
            tree.remove_range("k", 0, 1),
            tree.pop("k"),
            tree.count("k"),
            tree.expire("k", 5),
            tree.get_expiry("k"),
            tree.unexpire("k"),
            tree.get_expiry("k"),
            tree.exists("k"),
            tree.has_key("l"),
            tree.get_all(),
            tree.remove(["k", 0], get_value=True),
            tree.remove("k"),
            tree.remove_all(),
            tree.count(),
        ]

    assert await data.do("run", name="everything", value=[7]) == [
        *([7], 1, 3, 8, [8, 9], [7], 9, 1, True, 5.0, True, None, True, False),
        *({"k": [8]}, 8, True, None, 0),
    ]


async def test_what_a_procedure_raises_undoes_what_it_did(data: Data) -> None:
    await data.do("set", "k", value=1)

    @data.procedure
    def fail(tree: Any, kind: str) -> None:
        tree.set("k", 2)
        tree.expire("k", 1)
        if kind == "exit":
            raise SystemExit(3)
        if kind == "refused":
            tree.set(["k", "l"], 3)
        if kind == "unserialisable":
            tree.set("l", object())
        if kind == "keys":
            raise KeyError("sold out")

    for kind, name, text in (
        ("exit", "SystemExit", "RUN fail: 3"),
        ("unserialisable", "TypeError", "RUN fail: "),
        ("keys", "KeyError", "RUN fail: 'sold out'"),
    ):
        with pytest.raises(ProcedureError, match=text) as failed:
            await data.do("run", name="fail", value=[kind])
        assert failed.value.name == name
    with pytest.raises(WrongTypeError, match=r"RUN fail: SET \['k', 'l'\]: a number stands"):
        await data.do("run", name="fail", value=["refused"])
    with pytest.raises(ProcedureError, match="argument"):
        await data.do("run", name="fail", value=[])
    assert await data.do("get_all") == {"k": 1}
    assert data.partition.next_expiry() is None


class SoldOutError(Refusal):
    """A refusal of a controller's own."""

    def __init__(self, sku: str, left: int) -> None:
        super().__init__(f"{left} {sku} left")


class NoTextError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("it has none")


@pytest.mark.parametrize(
    ("error", "name", "text"),
    [
        (Refusal("not today"), "Refusal", "RUN fail: not today"),
        (SoldOutError("tea", 2), "SoldOutError", "RUN fail: 2 tea left"),
        (NoTextError(), "NoTextError", "RUN fail: it has no text"),
        (OSError("caf\udce9"), "OSError", "RUN fail: caf?"),
        (KeyError("x" * 100_000), "KeyError", "RUN fail: '" + "x" * 1999),
    ],
    ids=[
        "a plain refusal",
        "a refusal of its own",
        "an error without a text",
        "a text that is not Unicode",
        "a long text",
    ],
)
async def test_whatever_a_procedure_raises_is_its_error_and_no_other_commands(
    data: Data, error: Exception, name: str, text: str
) -> None:
    @data.procedure
    def fail(tree: ProcedureTree) -> None:
        tree.set("k", 1)
        raise error

    process = AppliedLog(b"worker01/1")
    outcomes = await data.partition.apply(
        [
            Command(number("set"), b"s", ["l"], encode(2)),
            Command(number("run"), b"s", (), b"", "fail"),
            process.command(2, 0, (), lambda: (1, 2), 0),
        ]
    )
    assert outcomes[0] == b""
    (kept,) = read_records(await data.partition.applied()).values()  # for whoever asks again
    for refused in (outcomes[1], kept.outcome(2)):
        assert isinstance(refused, Refusal)
        assert (refused.code, refused.name, str(refused)) == (ProcedureError.code, name, text)
    assert await data.do("get_all") == {"l": 2}


async def test_a_procedure_may_go_on_after_a_refusal(data: Data) -> None:
    @data.procedure
    def patient(tree: Any) -> str:
        tree.set("k", 1)
        try:
            tree.add(["k", "l"], 2)
        except Refusal as refusal:
            tree.set("why", str(refusal)[:3])
        return "done"

    assert await data.do("run", name="patient") == "done"
    assert await data.do("get_all") == {"k": 1, "why": "ADD"}


async def test_a_procedure_s_writes_are_bounded(data: Data) -> None:
    @data.procedure(name="few", max_writes=3)
    def write(tree: Any, times: int) -> None:
        for _ in range(times):
            tree.get("k")
            tree.set("k", 1)

    await data.do("run", name="few", value=[3])
    with pytest.raises(InvalidError, match="RUN few: a procedure may write 3 times"):
        await data.do("run", name="few", value=[4], session=b"other")
    assert await data.do("get_all", session=b"other") == {}


@pytest.mark.parametrize("procedure_timeout", [0.05])
@pytest.mark.filterwarnings("ignore:.*gc_callback:pytest.PytestUnraisableExceptionWarning")  # hypothesis's: the alarm
# may interrupt it, too, where nothing can be raised, and is repeated
async def test_a_procedure_that_takes_too_long_is_ended_and_undone(data: Data) -> None:
    gc.collect()  # loops of earlier tests, in whose __del__ nothing can be raised either

    @data.procedure
    def forever(tree: Any) -> None:
        while True:
            with suppress(Exception):  # it does not hear of its 10,000th write, either
                tree.set("k", 1)
                tree.expire("k", 1)

    with pytest.raises(ProcedureError, match=r"RUN forever: it took longer than 0.05 s, and was undone") as failed:
        await data.do("run", name="forever")
    assert failed.value.name == "TimeoutError"
    assert await data.do("get_all") == {}
    assert data.partition.next_expiry() is None


def test_a_block_that_catches_its_end_is_ended_again() -> None:
    caught = 0

    def stubborn() -> None:
        nonlocal caught
        while True:
            try:
                signal.pause()
            except TookTooLong:
                caught += 1
                if caught == 3:
                    raise

    with pytest.raises(TookTooLong), TimeLimit(0.001).running():
        stubborn()
    assert caught == 3


async def test_a_procedure_s_result_has_a_largest_size(data: Data) -> None:
    @data.procedure
    def much(tree: Any) -> str:
        tree.set("k", 1)
        return "x" * MAX_VALUE

    with pytest.raises(ProcedureError, match="RUN much: the result has 2003 bytes"):
        await data.do("run", name="much")
    assert await data.do("get_all") == {}


async def test_an_unknown_procedure_is_told_with_the_known(data: Data) -> None:
    data.procedure(name="known")(lambda tree: None)
    with pytest.raises(UnknownProcedureError, match=r"RUN unknown: .*no such procedure \(known\)"):
        await data.do("run", name="unknown")


async def test_a_procedure_s_tree_ends_with_it(data: Data) -> None:
    kept: list[Any] = []
    data.procedure(name="keep")(kept.append)
    await data.do("run", name="keep")
    with pytest.raises(InvalidError, match="has returned"):
        kept[0].get("k")


async def test_a_procedure_reaches_one_partition_of_the_applications_tree(data: Data) -> None:
    @data.procedure
    def put(tree: Any, key: str) -> None:
        tree.set(key, 1)

    await data.do("run", HERE, name="put", value=[HERE], session=b"")
    assert await data.do("get", HERE, session=b"") == 1
    with pytest.raises(InvalidError, match="belongs to partition"):
        await data.do("run", HERE, name="put", value=[ELSEWHERE], session=b"")
