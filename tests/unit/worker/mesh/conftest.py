"""Workers that are linked."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from support.worker.meshed import Cluster, Worker


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    made = Cluster()
    yield made
    await made.close()


@pytest.fixture
async def two(cluster: Cluster) -> tuple[Worker, Worker]:
    one, other = await cluster.add("aaaaaaaa"), await cluster.add("bbbbbbbb")
    cluster.tell()
    await cluster.linked()
    return one, other
