"""What tests of several services need."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from support.log import WrittenLog, written


@pytest.fixture
def own_modules() -> Iterator[None]:
    """Forget at the test's end what it imported: controllers have one name each."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.fixture
def service_log() -> Iterator[WrittenLog]:
    """The log of a service, in the format for people."""
    with written("text") as log:
        yield log
