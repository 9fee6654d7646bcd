"""What the balancer counts, for its metrics."""

from __future__ import annotations

from dataclasses import dataclass, field

REFUSALS = (
    "socket_limit",
    "address_socket_limit",
    "address_connection_rate",
    "no_descriptor",
    "first_byte_timeout",
    "head_timeout",
    "head_malformed",
    "head_too_large",
    "tls_handshake",
    "plain_http",
    "no_worker",
    "proxy_header",
    "controller",
)
"""Why a connection was refused: the setting that it was over, or what was wrong."""


@dataclass(slots=True)
class BalancerCounters:
    """Numbers that only rise."""

    accepted: int = 0
    """Connections that were neither refused at once nor left in the kernel's queue."""
    refused: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REFUSALS, 0))
    """Connections by the reason for which they were not served, which is one of ``REFUSALS``."""
    handovers: int = 0
    """Clients that a worker has acknowledged."""
    handovers_failed: int = 0
    """Attempts to give a client to a worker, by handover or connection, that failed."""
    relays: int = 0
    """Clients whose bytes were copied."""
