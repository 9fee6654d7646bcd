"""What a run was made on."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path

import pytest

from bench.peers.install import Peers
from bench.reporting.machine import NODE, machine, versions


def test_the_machine_is_known() -> None:
    found = machine()
    assert platform.python_version() in found["Python"]
    assert all(found.values())


def test_versions_are_those_that_are_installed(tmp_path: Path) -> None:
    for name in NODE:
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "package.json").write_text(json.dumps({"version": "1.2.3"}))
    found = versions(Peers(node=tmp_path, python=Path(sys.executable)))
    assert found["on Node"] == ", ".join(f"{name} 1.2.3" for name in NODE)
    assert "uvicorn " in found["this server"]


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    found = versions(Peers())
    assert found["haproxy"] == "missing"
    assert "on Node" not in found
