"""Which hosts requests may be for: the option ``allowed_hosts``.

A page of an attacker's own host can have that name lead to this server once it is loaded (DNS rebinding): its browser
takes both for one origin then. Its requests still say which host they are for.

A pattern is a host (``example.com``, ``192.0.2.1``, ``[2001:db8::1]``), every host below one (``*.example.com``), or
any (``*``); with a port (``example.com:8443``) it stands for that port alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

ANY = "*"

_HOST = r"\[[0-9a-f:.]+\]|[^\s:/?#@\[\]*,]+"
_AUTHORITY = re.compile(rf"({_HOST})(?::([0-9]{{0,5}}))?", re.IGNORECASE)
_PATTERN = re.compile(rf"(\*|(?:\*\.)?(?:{_HOST}))(?::([0-9]{{1,5}}))?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class HostPattern:
    """A pattern of the option ``allowed_hosts``."""

    host: str
    """``*`` means any, ``*.`` in front every host below."""
    port: str | None
    """``None`` means any."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a pattern.

        Raises:
            ValueError: it is none.
        """
        found = _PATTERN.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is no host such as example.com, *.example.com, example.com:8443, [::1] or *")
        return cls(found[1].lower().removesuffix("."), found[2])

    def matches(self, host: str, port: str) -> bool:
        """Is that one of the hosts that it stands for?"""
        if self.port is not None and port != self.port:
            return False
        return host.endswith(self.host[1:]) if self.host.startswith("*.") else self.host in (ANY, host)


class HostPolicy:
    """Judges the host that a request is for.

    Args:
        allowed: patterns; none allow any host.

    Raises:
        ValueError: one of ``allowed`` is no pattern.
    """

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self._patterns = tuple(HostPattern.parse(text) for text in allowed)

    def allows(self, authority: str, *, secure: bool) -> bool:
        """May a request be for this host and port, as its header ``Host`` names them? Without a port, the usual one."""
        if not self._patterns:
            return True
        found = _AUTHORITY.fullmatch(authority)
        if found is None:
            return False
        host, port = found[1].lower().removesuffix("."), found[2] or ("443" if secure else "80")
        return any(pattern.matches(host, port) for pattern in self._patterns)
