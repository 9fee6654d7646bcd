"""Each distribution declares what it imports, and each requirement is pinned once."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.sources import ROOT, imported, tracked

SERVICES = ("balancer", "store", "worker")

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
