"""What the parts may know of each other, and the rules that every file keeps."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

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


DISTRIBUTIONS = [ROOT / name for name in tracked() if name.endswith("/pyproject.toml")]
of_each_distribution = pytest.mark.parametrize("path", DISTRIBUTIONS, ids=lambda path: path.parent.name)


def project(path: Path) -> dict[str, Any]:
    described: dict[str, Any] = tomllib.loads(path.read_text())["project"]
    return described


def declared(path: Path) -> list[Requirement]:
    """Return all that a distribution says it needs, for its extras too."""
    described = project(path)
    extras = described.get("optional-dependencies", {}).values()
    return [
        Requirement(line)
        for line in [*described.get("dependencies", []), *(line for extra in extras for line in extra)]
    ]


@of_each_distribution
def test_every_dependency_of_a_package_is_pinned_by_the_constraints(path: Path) -> None:
    for requirement in declared(path):
        name = canonicalize_name(requirement.name)
        assert name in pins() or name.startswith("socketcluster"), name


@of_each_distribution
def test_every_import_of_a_package_is_declared_and_nothing_else(path: Path) -> None:
    own = canonicalize_name(project(path)["name"])
    installed = packages_distributions()  # a folder of an editable package is in none
    needed: dict[str, set[str]] = {}
    for file, name in imported(str(path.parent.relative_to(ROOT))):
        package = name.partition(".")[0]
        if package not in sys.stdlib_module_names and canonicalize_name(package) != own:
            needed.setdefault(package, set()).add(file)
    known = {canonicalize_name(requirement.name) for requirement in declared(path)}
    providers = {package: {canonicalize_name(one) for one in installed.get(package, [package])} for package in needed}
    assert {package: sorted(needed[package])[:3] for package, names in providers.items() if not names & known} == {}
    assert known - set().union(*providers.values()) == set()


def needed_by(name: str, extras: frozenset[str] = frozenset()) -> set[str]:
    """Return what is needed of others by a distribution of ours, and by those of ours that it needs."""
    (described,) = (each for each in map(project, DISTRIBUTIONS) if canonicalize_name(each["name"]) == name)
    lines = [
        *described.get("dependencies", []),
        *(line for extra in extras for line in described["optional-dependencies"][extra]),
    ]
    found: set[str] = set()
    for requirement in map(Requirement, lines):
        needs = canonicalize_name(requirement.name)
        found |= needed_by(needs, frozenset(requirement.extras)) if needs.startswith("socketcluster") else {needs}
    return found


@pytest.mark.parametrize(
    ("stem", "name"), [*((service, f"socketcluster-{service}") for service in SERVICES), ("cluster", "socketcluster")]
)
def test_the_requirements_of_an_image_have_what_its_packages_declare(stem: str, name: str) -> None:
    def listed(path: Path) -> set[str]:
        found: set[str] = set()
        for line in lines_of(path)[1:]:
            other = line.removeprefix("-r ")
            found |= {canonicalize_name(Requirement(line).name)} if other == line else listed(path.with_name(other))
        return found

    brought_along = {"fastapi"}  # for controllers
    assert listed(ROOT / "requirements" / f"{stem}.txt") - brought_along == needed_by(name)


def test_no_index_is_named() -> None:
    files = [
        name
        for name in tracked()
        if re.search(r"^requirements/.*\.txt$|[-.]lock(\.\w+)?$|(^|/)(\.npmrc|pip\.conf)$", name)
    ]
    assert len(files) > len(REQUIREMENTS)
    for name in files:
        assert not re.search(r"https?://|--(extra-)?index-url|^-i\b", (ROOT / name).read_text(), re.MULTILINE), name
