"""What options come to: processes that are planned, or a line that says what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from click.testing import CliRunner

from socketcluster import SocketCluster
from socketcluster.cli import main
from socketcluster.plan import Plan, plan

RUN_DIR = Path("/run-dir")


def planned(**options: Any) -> Plan:
    """Return what the class would start; the balancers' sockets have the descriptors from 10 on."""
    settings = SocketCluster(**options).settings
    return plan(settings, RUN_DIR, range(10, 10 + settings.balancers))


def failure(*arguments: str, **environ: str) -> str:
    """Run the command, which must end with status 2 before it starts anything; return what it says."""
    result = CliRunner().invoke(main, ["run", *arguments], env=environ)
    assert result.exit_code == 2
    return result.output
