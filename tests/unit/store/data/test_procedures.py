"""How a controller registers procedures."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from socketcluster_store import ProcedureTree, Store, Value
from socketcluster_store.data.procedures import MAX_WRITES, Procedures, load
from socketcluster_store.errors import UnknownProcedureError


def test_a_procedure_is_called_as_its_function_or_otherwise() -> None:
    procedures = Procedures()
    store = Store(procedures)

    @store.procedure
    def plain(tree: ProcedureTree) -> None: ...

    @store.procedure()
    def empty(tree: ProcedureTree, *, amount: int = 1) -> dict[str, int]:
        return {"amount": amount}

    @store.procedure("first")
    @store.procedure(name="second", max_writes=2)
    def named(tree: ProcedureTree, *values: Value) -> int:
        return len(values)

    assert {name: procedures.get(name).function for name in ("plain", "empty", "first", "second")} == {
        "plain": plain,
        "empty": empty,
        "first": named,
        "second": named,
    }
    assert [procedures.get(name).max_writes for name in ("plain", "first", "second")] == [MAX_WRITES, MAX_WRITES, 2]
    with pytest.raises(UnknownProcedureError, match=r"no such procedure \(empty, first, plain, second\)"):
        procedures.get("named")


def test_a_function_that_is_given_at_once_has_its_bound_too() -> None:
    procedures = Procedures()

    def few(tree: ProcedureTree) -> None: ...

    assert Store(procedures).procedure(few, max_writes=3) is few
    assert procedures.get("few").max_writes == 3


def test_what_cannot_be_a_procedure() -> None:
    store = Store(Procedures())

    async def waits(tree: ProcedureTree) -> None: ...

    def generates(tree: ProcedureTree) -> Iterator[int]:
        yield 1

    async def streams(tree: ProcedureTree) -> AsyncIterator[int]:
        yield 1

    wrong: list[Any] = [waits, generates, streams, 5]
    for function in wrong:
        with pytest.raises(TypeError, match="a procedure is a plain function, not"):
            store.procedure(function)
    nameless = functools.partial(ProcedureTree.count)
    unusable: list[tuple[Any, str]] = [
        (lambda: None, "a procedure is given a tree first"),
        (lambda tree, *, more: None, "no call gives 'more'"),
        (nameless, r'has no name: @store\.procedure\("name"\)'),
    ]
    for function, told in unusable:
        with pytest.raises(TypeError, match=told):
            store.procedure(function)
    store.procedure("named")(nameless)
    store.procedure("builtin")(max)
    store.procedure("taken")(ProcedureTree.count)
    with pytest.raises(ValueError, match="'taken' already"):
        store.procedure("taken")(ProcedureTree.count)
    for limit in (0, 10_001):
        with pytest.raises(ValueError, match="max_writes"):
            store.procedure(max_writes=limit)


@pytest.mark.usefixtures("own_modules")
@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_a_controller_is_run_be_it_plain_or_async(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(f"{kind} run(store):\n    store.procedure('known')(lambda tree: None)\n")
    procedures = Procedures()
    await load(procedures, path)
    assert procedures.get("known").name == "known"


async def test_a_store_needs_no_controller() -> None:
    procedures = Procedures()
    await load(procedures, None)
    with pytest.raises(UnknownProcedureError, match="it has none"):
        procedures.get("known")
