"""What the parts may know of each other, and the rules that every file keeps."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
SERVICES = ("balancer", "store", "worker")
SERVICE_PACKAGES = {f"socketcluster_{service}" for service in SERVICES}
IO_MODULES = {"asyncio", "grpc", "logging", "select", "selectors", "socket", "ssl", "structlog", "threading", "uvloop"}
MAX_LINES = 500
ONE_SCRIPT_TAG = {"clients/js/socketcluster.js"}
"""Longer than the limit, because a page loads it with one tag and nothing builds it."""


def sources(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found, folder
    return found


def tracked() -> list[str]:
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
    return {(str(path.relative_to(ROOT)), name) for path in sources(folder) for name in imports(path.read_text())}


def those_of(found: set[tuple[str, str]], packages: set[str]) -> list[str]:
    return sorted(f"{path} imports {name}" for path, name in found if name.split(".")[0] in packages)


# Who imports whom.


def test_imports_are_found_wherever_they_stand() -> None:
    source = """
import a.b as c, d
from e.f import g, h
from . import i
def late():
    from j import *
    if late:
        import importlib
        importlib.import_module("k.l")
    class Inner:
        __import__("m")
"""
    found = {"a.b", "d", "e.f.g", "e.f.h", "j.*", "importlib", "k.l", "m"}
    assert set(imports(source)) == found


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_imports_no_other_service_and_not_the_cluster(service: str) -> None:
    found = imported(f"services/{service}")
    assert those_of(found, SERVICE_PACKAGES - {f"socketcluster_{service}"} | {"socketcluster"}) == []
    assert those_of(found, {f"socketcluster_{service}"})  # so the search finds something


@pytest.mark.parametrize("folder", ["libs", "proto"])
def test_what_is_shared_imports_no_service(folder: str) -> None:
    assert those_of(imported(folder), SERVICE_PACKAGES | {"socketcluster"}) == []


def test_the_wire_library_does_no_io() -> None:
    found = imported("libs/wire")
    assert those_of(found, IO_MODULES | {"socketcluster_runtime", "socketcluster_proto"}) == []


def test_the_cluster_knows_of_the_services_only_their_settings() -> None:
    found = imported("cluster")
    of_services = {(path, name) for path, name in found if name.split(".")[0] in SERVICE_PACKAGES}
    assert [f"{path} imports {name}" for path, name in of_services if name.split(".")[1:2] != ["settings"]] == []
    assert {name.split(".")[0] for _, name in of_services} == SERVICE_PACKAGES


# Files.


def too_long() -> dict[str, int]:
    lengths = {
        name: len((ROOT / name).read_text().splitlines())
        for name in tracked()
        if name.endswith((".py", ".js")) and not re.search(r"_pb2(_grpc)?\.py$", name)
    }
    assert lengths
    return {name: lines for name, lines in lengths.items() if lines > MAX_LINES}


def test_no_source_file_is_over_500_lines() -> None:
    over = too_long()
    assert {name: lines for name, lines in over.items() if name not in ONE_SCRIPT_TAG} == {}
    assert over.keys() == ONE_SCRIPT_TAG  # an exception that is no longer needed goes


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_is_made_of_its_own_service_only(service: str) -> None:
    dockerfile = (ROOT / "services" / service / "Dockerfile").read_text()
    assert set(re.findall(r"\bservices/([\w.*-]*)", dockerfile)) == {service}
    assert not re.search(r"\bservices(?!/\w)", dockerfile)  # the folder as a whole
    assert set(re.findall(r"\bsocketcluster_(\w+)", dockerfile)) == {service}
    assert set(re.findall(r"requirements/(\w+)\.txt", dockerfile)) == {service, "build"}
    assert not re.search(r"^(COPY|ADD)\s+(--\S+\s+)*\.\s", dockerfile, re.MULTILINE)  # the repository as a whole


def test_every_folder_of_a_service_is_looked_at() -> None:
    assert {path.name for path in (ROOT / "services").iterdir() if (path / "pyproject.toml").exists()} == set(SERVICES)


# Requirements.

REQUIREMENTS = sorted(path for path in (ROOT / "requirements").glob("*.txt") if path.name != "constraints.txt")


def lines_of(path: Path) -> list[str]:
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


def pins() -> dict[str, str]:
    requirements = [Requirement(line) for line in lines_of(ROOT / "requirements" / "constraints.txt")]
    named: dict[str, str] = {canonicalize_name(one.name): str(one.specifier) for one in requirements}
    assert len(named) == len(requirements)
    return named


def test_every_constraint_is_one_exact_version() -> None:
    for name, specifier in pins().items():
        assert re.fullmatch(r"==[0-9][0-9A-Za-z.+!]*", specifier), name


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.stem)
def test_every_requirement_is_pinned_by_the_constraints(path: Path) -> None:
    first, *rest = lines_of(path)
    assert first == "-c constraints.txt"
    known = pins()
    for line in rest:
        if line.startswith("-r "):
            assert path.with_name(line.removeprefix("-r ")) in REQUIREMENTS, line
        else:
            requirement = Requirement(line)
            assert canonicalize_name(requirement.name) in known, line
            assert not requirement.specifier, line  # the version stands in one place
            assert requirement.url is None, line


@pytest.mark.parametrize(
    "path", [ROOT / name for name in tracked() if name.endswith("/pyproject.toml")], ids=lambda path: path.parent.name
)
def test_every_dependency_of_a_package_is_pinned_by_the_constraints(path: Path) -> None:
    project = tomllib.loads(path.read_text())["project"]
    for line in project.get("dependencies", []):
        name = canonicalize_name(Requirement(line).name)
        assert name in pins() or name.startswith("socketcluster"), line


def test_no_index_is_named() -> None:
    files = [
        name
        for name in tracked()
        if re.search(r"^requirements/.*\.txt$|[-.]lock(\.\w+)?$|(^|/)(\.npmrc|pip\.conf)$", name)
    ]
    assert len(files) > len(REQUIREMENTS)
    for name in files:
        assert not re.search(r"https?://|--(extra-)?index-url|^-i\b", (ROOT / name).read_text(), re.MULTILINE), name
