"""The errors of the balancer.

::

    BalancerError
    └── WorkerUnreachableError   a worker cannot be given a client now: another one may
        └── NoHandoffError       its handoff socket is not on this host: bytes can be spliced instead

What ends the service is in ``socketcluster_runtime.errors``.
"""

from __future__ import annotations


class BalancerError(Exception):
    """What the balancer's own parts tell each other."""


class WorkerUnreachableError(BalancerError):
    """A worker cannot be given a client now."""


class NoHandoffError(WorkerUnreachableError):
    """The worker's handoff socket is not on this host, or closed to this user."""
