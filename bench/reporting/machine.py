"""What a run was made on: the machine, and the versions of everything."""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sysconfig
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.peers.install import Peers

OURS = ("socketcluster", "uvicorn", "uvloop", "httptools", "websockets", "grpcio", "msgspec", "lmdb")
NODE = ("socket.io", "@socket.io/cluster-adapter", "socketcluster-server", "ws", "bufferutil")
PYTHON = ("python-socketio", "uvicorn", "uvloop", "websockets", "channels", "channels_redis", "daphne", "Django")
PROGRAMS = {
    "haproxy": ("haproxy", "-v"),
    "redis-server": ("redis-server", "--version"),
    "cc": ("cc", "--version"),
    "Node": ("node", "--version"),
}


def machine() -> dict[str, str]:
    """Return what is to be known of the machine, by name."""
    memory = int(_first(r"MemTotal:\s+(\d+)", "/proc/meminfo") or 0) / 2**20
    model = _first(r"model name\s*: (.+)", "/proc/cpuinfo") or platform.machine()
    return {
        "processor": f"{os.cpu_count()} of {model}",
        "memory": f"{memory:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_version()}, {_optimised()}; this server's and the Python peers'",
        "descriptors a process": f"{resource.getrlimit(resource.RLIMIT_NOFILE)[1]:,} at most",
        "source": _said("git", "describe", "--always", "--dirty") or os.environ.get("BENCH_SOURCE", "?"),
    }


def _optimised() -> str:
    if sysconfig.get_config_var("PGO_PROF_USE_FLAG"):
        return "built with optimisation"
    if sysconfig.get_config_var("Py_ENABLE_SHARED") and "libpython" not in Path("/proc/self/maps").read_text():
        return "of which nothing says whether it was built with optimisation"  # Debian's: that is of its other build
    return "built without optimisation"


def versions(peers: Peers) -> dict[str, str]:
    """Return the versions of what was measured; of what is missing, that it is."""
    found = {"this server": ", ".join(f"{name} {_installed(name)}" for name in OURS)}
    if peers.node is not None:
        files = {name: peers.node / name / "package.json" for name in NODE}
        found["on Node"] = ", ".join(
            f"{name} {json.loads(path.read_text())['version']}" for name, path in files.items()
        )
    if peers.python is not None:
        script = f"from importlib.metadata import version\nfor n in {PYTHON!r}: print(n, version(n))"
        found["in Python"] = _said(str(peers.python), "-c", script).replace("\n", ", ")
    for name, command in PROGRAMS.items():
        text = _said(*command).partition("\n")[0] if shutil.which(command[0]) else ""
        found[name] = text or "missing"
    return found


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "of this tree"


def _first(pattern: str, path: str) -> str:
    found = re.search(pattern, Path(path).read_text())
    return found[1].strip() if found else ""


def _said(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
