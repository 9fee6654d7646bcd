"""The Autobahn suite against an echo endpoint of the worker; AUTOBAHN_ALL=1 runs all of its cases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from support.autobahn import runner

SERVER = Path(__file__).with_name("autobahn_server.py")
UNCOMPRESSED = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"]
COMPRESSED = [
    f"{group}.{case}"
    for group in [*(f"12.{n}" for n in range(1, 6)), *(f"13.{n}" for n in range(1, 8))]
    for case in range(1, 19)
]
ALL = os.environ.get("AUTOBAHN_ALL") == "1"
EXPLAINED = {"6.4.3", "6.4.4", "7.1.6", "7.13.1", "7.13.2"}
"""Cases that are not plainly OK; docs/design/websocket.md says why."""

pytestmark = [pytest.mark.autobahn, pytest.mark.timeout(3600 if ALL else 600)]


RUNS = {
    "off": UNCOMPRESSED,
    "each": COMPRESSED if ALL else COMPRESSED[3::10],
    "kept": COMPRESSED if ALL else COMPRESSED[8::40],
}
"""By the server's compression, the cases that are run against it."""

Results = dict[str, dict[str, str]]


def run(compression: str, cases: list[str], folder: Path) -> Results:
    """Run cases against a server of their own; return what became of each."""
    command = runner()
    assert command is not None
    with subprocess.Popen([sys.executable, SERVER, compression], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = f"ws://127.0.0.1:{int(server.stdout.readline())}"
            ran = subprocess.run([command, url, folder, *cases], capture_output=True, text=True, check=False)
        finally:
            server.kill()
    assert ran.returncode == 0, ran.stdout + ran.stderr
    results: Results = json.loads((folder / "index.json").read_text())["server"]
    return results


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Results]]]:
    """The runs with compression at a time: each keeps one core busy at most.

    The one without is alone and first: it has cases in which the suite gives up on a server after a second.
    """
    with ThreadPoolExecutor(len(RUNS)) as pool:
        runs: dict[str, Future[Results]] = {}
        for compression, cases in RUNS.items():
            runs[compression] = pool.submit(run, compression, cases, tmp_path_factory.mktemp(compression))
            if compression == "off":
                wait((runs[compression],))
        yield runs


@pytest.mark.parametrize("compression", RUNS)
def test_no_case_fails(compression: str, running: dict[str, Future[Results]]) -> None:
    results = running[compression].result()
    assert len(results) >= len(RUNS[compression])
    not_ok = {case for case, result in results.items() if {result["behavior"], result["behaviorClose"]} != {"OK"}}
    assert not_ok <= EXPLAINED
