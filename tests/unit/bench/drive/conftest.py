"""A server for clients of the load generator."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from support.plain_server import Served, serving


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as made:
        yield made
