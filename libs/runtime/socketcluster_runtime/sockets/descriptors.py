"""How many files and sockets a process may have open: each client's connection is one, a partition has several."""

from __future__ import annotations

import resource
from contextlib import suppress

from socketcluster_runtime.logs.logging import get_logger

log = get_logger(__name__)

OWN = 200
"""Descriptors that a service needs for itself."""
OWN_OF_STORE = 64
"""The same of a store, which no client comes to: its engine, and a link of each worker."""
FEW = 10_000
"""A limit below this is worth a warning."""


def raise_limit() -> int:
    """Allow as many descriptors as this user may have; return how many that are.

    Most systems allow 1024 unless a process asks for more.
    """
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # a host that forbids it is served with what there is
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        return most
    return soft


def partitions_that_fit(limit: int, each: int, wanted: int) -> int:
    """Return how many of the partitions that a store may have to open fit; log it if not all do.

    Args:
        limit: descriptors.
        each: what an open partition needs of them.
        wanted: how many partitions there are.
    """
    fit = min(wanted, max(0, limit - OWN_OF_STORE) // each) if each else wanted
    if fit < wanted:
        log.warning(
            "few descriptors: raise the hard limit (ulimit -Hn, LimitNOFILE=, compose's ulimits)",
            descriptors=limit,
            partitions=fit,
            of=wanted,
        )
    return fit


def warn_of_limit(limit: int, each: int) -> None:
    """Log how many clients fit, if those are few.

    Args:
        limit: descriptors.
        each: what one client needs of them.
    """
    if limit < FEW:
        log.warning(
            "few descriptors: raise the hard limit (ulimit -Hn, LimitNOFILE=, compose's ulimits)",
            descriptors=limit,
            clients=max(0, limit - OWN) // each,
        )
