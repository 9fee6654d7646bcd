"""What packages offer users by their own name, as in ``from socketcluster_store import Store``."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from support.types import lines_marked, type_errors

FACES = ("socketcluster", "socketcluster_balancer", "socketcluster_store", "socketcluster_worker")
COSTLY = {"grpc", "google", "lmdb", "msgspec", "prometheus_client", "pydantic", "redis", "structlog", "uvloop"}
"""What a package does not import before somebody needs it."""

STORE_CONTROLLER = """
from socketcluster_store import Procedure, ProcedureTree, Refusal, Store

def run(store: Store) -> None:
    @store.procedure("take")
    def take(tree: ProcedureTree, sku: str, amount: int) -> int:
        left = (tree.get(["stock", sku]) or 0) - amount
        if left < 0:
            raise ValueError("sold out")
        tree.set(["stock", sku], left)
        return left

    @store.procedure
    def visit(tree: ProcedureTree, pages: list[str]) -> dict[str, object] | None:
        try:
            return {"pages": tree.concat("pages", pages)}
        except Refusal:
            return None

    known: Procedure = take
    store.procedure(name="again", max_writes=1)(known)
"""
WRONG = """
import socketcluster_store
from socketcluster_store import ProcedureTree, Store

def run(store: Store) -> None:
    @store.procedure  # wrong
    async def waits(tree: ProcedureTree) -> None: ...
    @store.procedure("result")  # wrong
    def result(tree: ProcedureTree) -> set[int]:
        return set()
    @store.procedure(max_writes=1)  # wrong
    def argument(tree: int) -> None: ...
    store.procedures("misspelt")  # wrong

socketcluster_store.Tree  # wrong
"""


@pytest.mark.parametrize("package", FACES)
def test_the_names_are_the_same_for_people_checkers_and_python(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text())
    typed = [
        alias.name
        for branch in tree.body
        if isinstance(branch, ast.If)
        for line in branch.body
        if isinstance(line, ast.ImportFrom)
        for alias in line.names
    ]
    assert sorted(typed) == module.__all__
    assert [name for name in module.__all__ if getattr(module, name, None) is None] == []


def loaded_by(statement: str) -> set[str]:
    """Return which distributions' packages a new process has imported after a statement."""
    script = f"{statement}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return set(said.stdout.split())


@pytest.mark.parametrize("package", FACES)
def test_a_package_alone_costs_nothing(package: str) -> None:
    assert loaded_by(f"import {package}") & COSTLY == set()


def test_the_launcher_loads_no_more_of_services_than_their_settings() -> None:
    loaded = loaded_by("from socketcluster import SocketCluster")
    assert loaded & COSTLY == {"pydantic", "structlog"}
    assert "pydantic_settings" in loaded  # so they are loaded


def test_a_store_controller_is_typed(tmp_path: Path) -> None:
    assert type_errors(tmp_path, STORE_CONTROLLER) == {}


def test_what_a_store_controller_gets_wrong_is_found(tmp_path: Path) -> None:
    assert type_errors(tmp_path, WRONG).keys() == lines_marked("# wrong", WRONG)
