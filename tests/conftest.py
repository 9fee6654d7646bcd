"""Leaves out, and reports by name, the tests whose requirements this machine lacks; with CI=true they fail instead."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache

import hypothesis
import pytest
from coverage import Coverage
from support import autobahn
from support.machine import disk
from support.network import fronts, haproxy, namespaces
from support.store import valkey

hypothesis.settings.register_profile(
    "steady",
    deadline=None,  # of an example: a machine that is busy with something else exceeds it
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("steady")

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def _docker() -> str | None:
    for command, lack in (
        (["docker", "info"], "no Docker engine answers"),
        (["docker", "compose", "version"], "Docker has no Compose v2"),
    ):
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=30)
        except (OSError, subprocess.SubprocessError):
            return lack
    return None


def _browser() -> str | None:
    return None if any(map(shutil.which, BROWSERS)) else "no Chromium"


def _node() -> str | None:
    return None if shutil.which("node") and shutil.which("npm") else "no Node.js with npm"


def _autobahn() -> str | None:
    return None if autobahn.runner() else "no runner of the Autobahn suite; AUTOBAHN may name one"


def _valkey() -> str | None:
    return None if valkey.program() else f"neither {' nor '.join(valkey.SERVERS)}"


def _haproxy() -> str | None:
    return None if haproxy.program() else "no HAProxy"


def _nginx() -> str | None:
    return None if fronts.program("nginx") else "no NGINX"


def _caddy() -> str | None:
    return None if fronts.program("caddy") else "no Caddy"


def _ipv6() -> str | None:
    with socket.socket(socket.AF_INET6) as sock, suppress(OSError):
        sock.bind(("::1", 0))
        return None
    return "no IPv6 on the loopback interface"


REQUIREMENTS: dict[str, Callable[[], str | None]] = {
    "docker": _docker,
    "browser": _browser,
    "node": _node,
    "autobahn": _autobahn,
    "valkey": _valkey,
    "haproxy": _haproxy,
    "nginx": _nginx,
    "caddy": _caddy,
    "ipv6": _ipv6,
    "mount": disk.lack,
    "network": namespaces.lack,
}
"""By marker, what says what this machine lacks; ``None``: nothing."""


@cache
def lack_of(marker: str) -> str | None:
    """Return what a marked test would miss on this machine."""
    return REQUIREMENTS[marker]()


def _lacks(item: pytest.Item) -> Iterator[tuple[str, str]]:
    for marker in REQUIREMENTS:
        if item.get_closest_marker(marker) is not None:
            lack = lack_of(marker)
            if lack is not None:
                yield marker, lack


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, lack in _lacks(item):
        if os.environ.get("CI") == "true":
            pytest.fail(f"{marker}: {lack}, and CI=true means that everything is tested", pytrace=False)
        pytest.skip(f"{marker}: {lack}")


NOT_TESTED = pytest.StashKey[dict[str, int]]()


def pytest_collection_finish(session: pytest.Session) -> None:
    counts: dict[str, int] = {}
    if lack_of("node"):  # even if no test here needs it, those of the browser client do, which run before these
        counts[f"node: {lack_of('node')}"] = 0
    for item in session.items:
        for marker, lack in _lacks(item):
            counts[f"{marker}: {lack}"] = counts.get(f"{marker}: {lack}", 0) + 1
    session.config.stash[NOT_TESTED] = counts


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for reason, count in config.stash.get(NOT_TESTED, {}).items():
        marker, _, lack = reason.partition(": ")
        what = f"{count} test{'s' if count != 1 else ''}{', and those of clients/js' if marker == 'node' else ''}"
        terminalreporter.write_line(f"NOT TESTED on this machine: {marker}: {what} ({lack})", yellow=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    """Keep what was measured while there is time: pytest-xdist kills its processes 10 s after their last test."""
    measured = Coverage.current()
    if measured is not None:
        measured.stop()  # what it has is written once, here
        measured.save()


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their argument: frames are masked at random, and a test is to have one name."""
    return argname if isinstance(val, bytes) else None
