"""Which pages may connect: the browser's same-origin policy, applied to WebSockets too."""

from __future__ import annotations

from urllib.parse import urlsplit

from socketcluster_worker.connection import Handshake

EVERYBODY = "*"
MAX_AGE = "600"
"""Seconds for which a browser may remember a preflight's answer."""


class OriginPolicy:
    """Judges the ``Origin`` that a browser names; other clients name none, and may connect.

    Args:
        allowed: origins beside the server's own, such as ``https://app.example.com``; ``*`` is all, without cookies.
    """

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self._allowed = frozenset(allowed)

    def allows(self, handshake: Handshake) -> bool:
        """May the page that sent this request connect?"""
        origin = handshake.headers.get("origin")
        if origin is None or EVERYBODY in self._allowed or origin in self._allowed:
            return True
        return _is_own(origin, handshake)

    def headers(self, handshake: Handshake) -> dict[str, str]:
        """Return the headers that let a page of another origin read the answer (CORS)."""
        origin = handshake.headers.get("origin")
        if origin is None or _is_own(origin, handshake):
            return {}
        if origin in self._allowed:
            return {
                "access-control-allow-origin": origin,
                "access-control-allow-credentials": "true",
                "vary": "Origin",
            }
        return {"access-control-allow-origin": EVERYBODY} if EVERYBODY in self._allowed else {}

    def preflight(self, handshake: Handshake) -> dict[str, str]:
        """Return the headers of the answer to an ``OPTIONS`` request."""
        headers = self.headers(handshake)
        if headers:
            headers |= {
                "access-control-allow-methods": "GET, POST, OPTIONS",
                "access-control-allow-headers": handshake.headers.get("access-control-request-headers", "content-type"),
                "access-control-max-age": MAX_AGE,
            }
        return headers


def _is_own(origin: str, handshake: Handshake) -> bool:
    try:
        return urlsplit(origin).netloc == handshake.headers.get("host")
    except ValueError:  # no browser sends such an origin
        return False
