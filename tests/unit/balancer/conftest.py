"""What tests of the balancer need."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import structlog
import uvloop
from support.balancer.bench import Bench, LogLines
from support.network import certificates


def pytest_asyncio_loop_factories(
    config: object, item: object
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Use the loop that the service uses."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(dir="/tmp", prefix="scb"))  # short: a Unix socket's path has 108 characters
    yield made
    shutil.rmtree(made)


@pytest.fixture
async def bench(folder: Path) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        yield Bench(folder, stack)


@pytest.fixture
def log_lines() -> Iterator[LogLines]:
    """What was logged at a level or above it: ``log_lines(logging.ERROR)``."""
    with structlog.testing.capture_logs() as lines:

        def at(level: int) -> list[str]:
            return [line["event"] for line in lines if getattr(logging, line["log_level"].upper()) >= level]

        yield at


@pytest.fixture
def files(tmp_path: Path) -> certificates.Files:
    """What a server shows its clients, and its key."""
    return certificates.make(tmp_path, "first")
