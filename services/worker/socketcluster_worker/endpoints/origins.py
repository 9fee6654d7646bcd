"""Which pages may connect: the browser's same-origin policy, applied to WebSockets too.

A pattern of the option ``origins`` is one of

- ``https://app.example.com``, ``https://app.example.com:8443``: that origin (RFC 6454), no other scheme or port;
- ``example.com:8080``: a host and its port, by http or https;
- ``example.com:*``: a host with any port; ``example.com``: with the scheme's own port;
- ``*.example.com:*``: every host below ``example.com``, which itself is not among them;
- ``*:8080``: any host with that port; ``*:*`` or ``*``: everybody;
- ``null``: pages without an origin, such as files and sandboxed frames.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from socketcluster_worker.connection import Handshake

ANY = "*"
MAX_AGE = "600"
"""Seconds for which a browser may remember a preflight's answer."""

_PORTS = {"http": 80, "https": 443}
_HOST = r"\[[0-9a-f:.]+\]|[^\s:/?#@\[\]*,]+"
_ORIGIN = re.compile(rf"([a-z][a-z0-9+.-]*)://({_HOST})(?::([0-9]{{1,5}}))?", re.IGNORECASE)
_PATTERN = re.compile(rf"(?:([a-z][a-z0-9+.-]*)://)?(\*|(?:\*\.)?(?:{_HOST}))(?::([0-9]{{1,5}}|\*))?/?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PageOrigin:
    """Where a page came from, as its browser says."""

    scheme: str
    host: str
    port: int | None
    """The scheme's own if none is named; ``None`` for a scheme that has none."""


@lru_cache(maxsize=1024)
def parse_origin(text: str) -> PageOrigin | None:
    """Return the origin that a header names; ``None`` for ``null`` and for what no browser sends."""
    found = _ORIGIN.fullmatch(text)
    if found is None:
        return None
    scheme, host = found[1].lower(), found[2].lower()
    return PageOrigin(scheme, host, int(found[3]) if found[3] else _PORTS.get(scheme))


@dataclass(frozen=True, slots=True)
class OriginPattern:
    """A pattern of the option ``origins``."""

    scheme: str | None
    """``None`` means http and https, and with any host every other one."""
    host: str
    """``*`` means any, ``*.`` in front every host below."""
    port: int | str | None
    """``*`` means any, ``None`` the scheme's own."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a pattern.

        Raises:
            ValueError: it is none.
        """
        found = _PATTERN.fullmatch(text)
        if found is None or ((found[3] or "").isdigit() and int(found[3]) > 65535):
            raise ValueError(f"{text!r} is no origin such as https://example.com, example.com:*, *:8080, *:* or null")
        port: int | str | None = found[3]
        if port == ANY or (port is None and found[2] == ANY and found[1] is None):
            port = ANY
        elif port is not None:
            port = int(port)
        return cls(found[1] and found[1].lower(), found[2].lower(), port)

    @property
    def is_everybody(self) -> bool:
        """Does it match whatever there is?"""
        return self.scheme is None and self.host == ANY and self.port == ANY

    def matches(self, origin: PageOrigin) -> bool:
        """Is that one of the origins that it stands for?"""
        if origin.scheme != self.scheme if self.scheme else origin.scheme not in _PORTS:
            return False
        if self.port != ANY and origin.port != (self.port or _PORTS.get(origin.scheme)):
            return False
        if self.host.startswith("*."):
            return origin.host.endswith(self.host[1:])
        return self.host in (ANY, origin.host)


class OriginPolicy:
    """Judges the ``Origin`` that a browser names; other clients name none, and may connect.

    Args:
        allowed: patterns of the origins that may connect beside the server's own; see above.
        match_protocol: must the page have come as its request does, both by TLS or both without?

    Raises:
        ValueError: one of ``allowed`` is no pattern.
    """

    def __init__(self, allowed: tuple[str, ...], *, match_protocol: bool = True) -> None:
        self._allows_null = "null" in allowed
        patterns = [OriginPattern.parse(text) for text in allowed if text != "null"]
        self._everybody = any(pattern.is_everybody for pattern in patterns)
        self._named = tuple(pattern for pattern in patterns if pattern.host != ANY)
        self._any_host = tuple(pattern for pattern in patterns if pattern.host == ANY)
        self._match_protocol = match_protocol

    def refusal(self, handshake: Handshake) -> str | None:
        """Say why the page that sent this request may not connect; ``None`` if it may."""
        text = handshake.headers.get("origin")
        if text is None:
            return None
        origin = parse_origin(text)
        if self._match_protocol and origin is not None and origin.scheme in _PORTS:
            if handshake.secure and origin.scheme == "http":
                if _is_port_of(origin, handshake):
                    return None
                return "the page came by http, its request by https (option match_origin_protocol)"
            if not handshake.secure and origin.scheme == "https":
                return "the page came by https, its request by http (options trusted_proxies, match_origin_protocol)"
        if self._everybody or (self._allows_null and text == "null"):
            return None
        if origin is not None and (
            _is_own(origin, handshake)
            or any(pattern.matches(origin) for pattern in self._named)
            or any(pattern.matches(origin) for pattern in self._any_host)
        ):
            return None
        return "the page's origin is not among the option origins"

    def headers(self, handshake: Handshake) -> dict[str, str]:
        """Return the headers that let a page of another origin read the answer (CORS): cookies only for named hosts."""
        text = handshake.headers.get("origin")
        if text is None or self.refusal(handshake) is not None:
            return {}
        origin = parse_origin(text)
        if origin is not None and (_is_own(origin, handshake) or _is_port_of(origin, handshake)):
            return {}
        if origin is not None and any(pattern.matches(origin) for pattern in self._named):
            return {
                "access-control-allow-origin": text,
                "access-control-allow-credentials": "true",
                "vary": "Origin",
            }
        if self._everybody:
            return {"access-control-allow-origin": ANY}
        return {"access-control-allow-origin": text, "vary": "Origin"}

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


def _is_own(origin: PageOrigin, handshake: Handshake) -> bool:
    """Is it the host and port that the request went to? Whether the scheme must agree is another question."""
    return parse_origin(f"{origin.scheme}://{handshake.headers.get('host', '')}") == origin


def _is_port_of(origin: PageOrigin, handshake: Handshake) -> bool:
    """Is it the very host and port that the request went to, by TLS?

    No page comes from there by http, but some programs write ``http://`` whatever they connect by.
    """
    own = parse_origin(f"https://{handshake.headers.get('host', '')}") if handshake.secure else None
    return own is not None and (own.host, own.port) == (origin.host, origin.port)
