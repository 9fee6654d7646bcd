"""The page that lists what the protocol documents ask for names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "design" / "conformance.md"
NAMED = re.compile(r"`((?:\w+/)*test_\w+)::(test_\w+)`")


def named_in(module: str) -> set[str]:
    """Return the tests of the module of that name, with as many of its folders as tell it from others."""
    (path,) = TESTS.rglob(f"{module}.py")
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, functions)}


def test_every_test_that_the_page_names_exists() -> None:
    named = NAMED.findall(PAGE.read_text())
    assert len(named) > 100
    known = {module: named_in(module) for module in {module for module, _ in named}}
    assert [f"{module}::{test}" for module, test in named if test not in known[module]] == []


def test_every_row_of_the_page_names_a_test() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("|") and "---" not in line]
    assert [row for row in rows if not NAMED.search(row) and not row.endswith("| test |")] == []
