"""The peers are installed once, wholly or not at all, and what is missing is said."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from bench.peers import install as install_module
from bench.peers.install import default_folder, install


def program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins of what installs, which note that they were called."""
    folder = tmp_path / "bin"
    program(folder, "npm", f'echo npm >>"{tmp_path}/calls"; mkdir node_modules')
    program(folder, "node", "")
    program(folder, "cc", f'echo cc >>"{tmp_path}/calls"; touch "$3"')
    python = (
        f'echo "python $2" >>"{tmp_path}/calls"; [ "$2" != venv ] || {{ mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; }}'
    )
    program(folder, "python", python)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    return folder


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


def test_each_part_is_installed_once(programs: Path, tmp_path: Path) -> None:
    said: list[str] = []
    peers = install(tmp_path / "peers", said.append)
    assert peers.lacks == {}
    assert calls(tmp_path) == ["npm", "python venv", "python pip", "cc"]
    assert peers.node is not None
    assert peers.node.is_dir()
    assert len(said) == 3
    assert install(tmp_path / "peers", said.append) == peers
    assert len(calls(tmp_path)) == 4
    assert len(said) == 3


def test_what_failed_is_missing_and_tried_again(programs: Path, tmp_path: Path) -> None:
    program(programs, "npm", 'touch half; echo "no registry answers" >&2; exit 1')
    peers = install(tmp_path / "peers", lambda _: None)
    assert peers.lacks == {"node": "npm failed: no registry answers"}
    assert peers.node is None
    assert peers.floor is not None
    program(programs, "npm", "[ ! -e half ]; mkdir node_modules")
    assert install(tmp_path / "peers", lambda _: None).lacks == {}


def test_a_program_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setattr(install_module, "_digest", lambda *_: "0")
    lacks = install(tmp_path, lambda _: None).lacks
    assert lacks["node"] == "there is no node and no npm here"
    assert lacks["floor"] == "there is no cc here"
    assert lacks["python"].startswith("python failed: ")


def test_the_folder_is_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "socketcluster-bench"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert default_folder() == Path("/home/somebody/.cache/socketcluster-bench")


def test_every_version_is_exact() -> None:
    wanted = json.loads((install_module.HERE / "package.json").read_text())["dependencies"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in wanted.values())
    pinned = {Requirement(line).name.lower() for line in lines(install_module.REQUIREMENTS[1])}
    for line in lines(install_module.REQUIREMENTS[0]):
        requirement = Requirement(line)
        exact = re.fullmatch(r"==[\d.]+", str(requirement.specifier))
        assert exact if requirement.specifier else requirement.name.lower() in pinned, line


def lines(path: Path) -> list[str]:
    found = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in found if line and not line.startswith("-")]
