"""The limit of descriptors of a process."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest
import structlog

from socketcluster_runtime.sockets import descriptors


@pytest.fixture(autouse=True)
def _limit() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_limit_becomes_what_the_user_may_have() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most // 2, most))
    assert descriptors.raise_limit() == most
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (most, most)


def test_a_low_limit_is_told_with_how_many_clients_fit() -> None:
    with structlog.testing.capture_logs() as lines:
        descriptors.warn_of_limit(descriptors.FEW, 1)
        assert not lines
        descriptors.warn_of_limit(1024, 2)
        descriptors.warn_of_limit(100, 1)
    assert [line["clients"] for line in lines] == [412, 0]


def test_partitions_that_do_not_fit_are_told() -> None:
    with structlog.testing.capture_logs() as lines:
        assert descriptors.partitions_that_fit(1024, 9, 64) == 64
        assert descriptors.partitions_that_fit(100, 0, 64) == 64
        assert not lines
        assert descriptors.partitions_that_fit(256, 9, 64) == 21
        assert descriptors.partitions_that_fit(64, 9, 64) == 0
    assert [(line["descriptors"], line["partitions"], line["of"]) for line in lines] == [(256, 21, 64), (64, 0, 64)]
