"""What is said of each distribution that is built from this repository: licence, version, what it needs."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LICENSE = ROOT / "LICENSE"


def tracked(name: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / path for path in listed.split("\0") if Path(path).name == name and (ROOT / path).is_file()]


DISTRIBUTIONS = [path.parent for path in tracked("pyproject.toml") if path.parent != ROOT]


def project(folder: Path) -> dict[str, Any]:
    described: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return described


@pytest.mark.parametrize("folder", DISTRIBUTIONS, ids=lambda folder: folder.name)
def test_each_distribution_has_the_licence_and_names_it(folder: Path) -> None:
    described = project(folder)
    assert described["license"] == "MIT"
    assert described["license-files"] == ["LICENSE"]  # it cannot reach a file above its own folder
    assert (folder / "LICENSE").read_bytes() == LICENSE.read_bytes()


@pytest.mark.parametrize("path", tracked("package.json"), ids=lambda path: path.parent.name)
def test_each_package_of_javascript_names_the_licence(path: Path) -> None:
    described = json.loads(path.read_text())
    assert described["license"] == "MIT"
    if "version" in described:  # it is to be given to others
        assert (path.parent / "LICENSE").read_bytes() == LICENSE.read_bytes()


def test_all_distributions_have_one_version_and_need_each_other_in_just_that() -> None:
    (version,) = {project(folder)["version"] for folder in DISTRIBUTIONS}
    assert json.loads((ROOT / "clients" / "js" / "package.json").read_text())["version"] == version
    names = {project(folder)["name"] for folder in DISTRIBUTIONS}
    for folder in DISTRIBUTIONS:
        described = project(folder)
        extras = described.get("optional-dependencies", {}).values()
        for line in [*described.get("dependencies", []), *(line for extra in extras for line in extra)]:
            requirement = Requirement(line)
            if requirement.name.startswith("socketcluster"):
                assert requirement.name in names, line
                assert str(requirement.specifier) == f"=={version}", line  # so pip installs no mix


def test_the_stubs_get_the_libraries_that_they_were_made_for() -> None:
    stubs = ROOT / "proto" / "socketcluster_proto" / "v1"
    (made_for,) = {
        re.findall(r"GRPC_GENERATED_VERSION = '(.*)'", path.read_text())[0] for path in stubs.glob("*_grpc.py")
    }
    (runtime,) = {
        ".".join(re.findall(r"^    (\d+),$", path.read_text(), re.MULTILINE)) for path in stubs.glob("*_pb2.py")
    }
    least = {Requirement(line).name: Requirement(line).specifier for line in project(ROOT / "proto")["dependencies"]}
    assert str(least["grpcio"]) == f">={Version(made_for)}"
    assert str(least["protobuf"]) == f">={Version(runtime)}"
