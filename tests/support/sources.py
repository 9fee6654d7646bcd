"""The project's own files, what they import, and the circles in that."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator, Mapping, Set
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]


def sources(folder: str) -> list[Path]:
    """Return the Python files in and below a folder of the repository."""
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found, folder
    return found


def tracked() -> list[str]:
    """Return the names of the files that the repository keeps."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def imports(source: str) -> Iterator[str]:
    """Yield the dotted name of everything that is imported, at whatever depth, relative imports left out."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                yield from (f"{module}.{alias.name}" for alias in names)
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                yield module


def imported(folder: str) -> set[tuple[str, str]]:
    """Return what the files in and below a folder import, each with the file's name."""
    return {(str(path.relative_to(ROOT)), name) for path in sources(folder) for name in imports(path.read_text())}


def those_of(found: set[tuple[str, str]], packages: set[str]) -> list[str]:
    """Return, for people, the imports of some packages among those found."""
    return sorted(f"{path} imports {name}" for path, name in found if name.split(".")[0] in packages)


def modules(folder: str) -> dict[str, Path]:
    """Return the modules of the package in a distribution's folder, by their dotted names."""
    found = {}
    for path in sources(folder):
        *parents, name = path.relative_to(ROOT / folder).with_suffix("").parts
        found[".".join(parents if name == "__init__" else [*parents, name])] = path
    return found


def import_graph(found: Mapping[str, Path]) -> dict[str, set[str]]:
    """Return which of these modules each one imports, under ``TYPE_CHECKING`` and in functions, too."""
    graph: dict[str, set[str]] = {}
    for name, path in found.items():
        named = imports(path.read_text())
        targets = (one if one in found else one.rpartition(".")[0] for one in named)
        graph[name] = {target for target in targets if target in found and target != name}
    return graph


def circle_in(graph: Mapping[str, Set[str]]) -> list[str]:
    """Return the modules of a circle, each imported by the one before it; an empty list: there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle[::-1]
    return []
