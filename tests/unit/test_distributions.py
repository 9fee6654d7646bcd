"""What is said of each distribution that is built from this repository: licence, version, what it needs."""

from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

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
