"""The types of the options: as the settings have them, and of use to whoever writes ``SocketCluster(...)``."""

from __future__ import annotations

import difflib
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest
from support.sources import ROOT
from support.types import lines_marked, type_errors

from socketcluster import OptionError, Options, SocketCluster
from socketcluster.settings import OPTIONS

COMMITTED = "cluster/socketcluster/options.py"
RIGHT = """
from pathlib import Path
from socketcluster import Options, SocketCluster

SocketCluster()
SocketCluster(
    workers=3, stores=[9200, 9201], balancers=1, port=8000, app_name="myapp", worker_controller=Path("controller.py")
).run()
SocketCluster(workers=None, session_timeout=60, origins=["https://app.example.com"], trusted_proxies="10.0.0.0/8")
SocketCluster(protocol="https", protocol_options={"cert": "cert.pem", "key": Path("key.pem")}, serial=True)
options: Options = {"head_timeout": 2.5, "channel_history": "chat:*: 100, 3600"}
if options["head_timeout"]:
    options["slow_consumer"] = "latest_only"
SocketCluster(**options)
"""
WRONG = """
from socketcluster import Options, SocketCluster

SocketCluster(sesion_timeout=60)  # wrong
SocketCluster(session_timeout="soon")  # wrong
SocketCluster(slow_consumer="wait")  # wrong
SocketCluster(handoff_dir="/tmp")  # wrong
SocketCluster(protocol="gopher")  # wrong
SocketCluster(protocol="https", protocol_options={"pfx": "a"})  # wrong
SocketCluster(3)  # wrong
options: Options = {"port": 80, "prot": 8000}  # wrong
"""


def test_the_types_are_those_of_the_settings(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "scripts/write_options.py", tmp_path / "options.py"], check=True, timeout=60)
    committed, made = (path.read_text() for path in (ROOT / COMMITTED, tmp_path / "options.py"))
    lines = difflib.unified_diff(committed.splitlines(), made.splitlines(), COMMITTED, "of the settings", lineterm="")
    assert committed == made, "\n".join([f"{COMMITTED} is stale: run `make options`", *lines])


def test_there_is_a_type_for_every_option() -> None:
    assert get_type_hints(Options).keys() == {"protocol", "protocol_options", *OPTIONS}


def test_options_are_typed(tmp_path: Path) -> None:
    assert type_errors(tmp_path, RIGHT) == {}


def test_wrong_options_are_found(tmp_path: Path) -> None:
    found = type_errors(tmp_path, WRONG)
    assert found.keys() == lines_marked("# wrong", WRONG)
    assert 'did you mean "session_timeout"' in found[4]


def test_what_is_wrong_is_refused_without_types_too() -> None:
    wrong: dict[str, object] = {"sesion_timeout": 60}
    with pytest.raises(OptionError, match="did you mean session_timeout"):
        SocketCluster(**wrong)  # type: ignore[arg-type]
