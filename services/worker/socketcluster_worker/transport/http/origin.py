"""What is known of a connection before its first request."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a connection comes from, if its socket does not tell."""

    client: tuple[str, int] | None
    secure: bool
    forwarded: bool = False
    """Was it passed on by another worker?"""
    final: bool = False
    """Do the header fields of its requests say nothing more of the client, even if it comes from a trusted proxy?"""
    placed: bool = False
    """Did a balancer choose this worker by the connection's first request?"""
