"""A folder for the launcher's sockets, and supervisors with stand-in processes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from support.cluster.stage import Stage

from socketcluster.notify import NotifyListener
from socketcluster.plan import notify_path


@pytest.fixture(autouse=True)
def _no_options_of_the_developer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("SOCKETCLUSTER_") or name in {"LOG_LEVEL", "LOG_FORMAT"}:
            monkeypatch.delenv(name)


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A private folder with a path short enough for Unix sockets."""
    path = Path(tempfile.mkdtemp(prefix="sc-test-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def stage(run_dir: Path) -> AsyncIterator[Stage]:
    made = Stage(run_dir)
    with NotifyListener(notify_path(run_dir), made.heard):
        yield made
        await made.close()
