"""The URL of Valkey, as users write it."""

from __future__ import annotations

import re

_SCHEMES = {"valkey": "redis", "redis": "redis", "valkeys": "rediss", "rediss": "rediss"}
_URL = re.compile(r"(?P<scheme>[a-z]+)://(?:(?P<user>[^@/]*)@)?(?P<hosts>[^/?@]+)(?P<rest>(?:/[0-9]*)?(?:\?.*)?)")


def urls_of(url: str) -> list[str]:
    """Return what the client library understands, one URL a server.

    Args:
        url: ``valkey://user:password@host:port/database``, or ``redis:``; with TLS ``valkeys:`` or ``rediss:``. Several
            servers of a Cluster stand with commas between them: ``valkey://one:6379,two:6379``. Options of the client
            library may follow: ``?ssl_ca_certs=/path``; ours is ``password_file=/path``.

    Raises:
        ValueError: it is no such URL; the text does not show its password.
    """
    match = _URL.fullmatch(url.strip())
    if match is None or match["scheme"] not in _SCHEMES:
        raise ValueError("it is no URL like valkey://127.0.0.1:6379, valkeys://user:password@host:6379 or redis://...")
    user = "" if match["user"] is None else f"{match['user']}@"
    return [f"{_SCHEMES[match['scheme']]}://{user}{host}{match['rest']}" for host in match["hosts"].split(",")]


def shown_url(url: str) -> str:
    """Return the URL without user, password and options, for logs."""
    match = _URL.fullmatch(url.strip())
    return "an unreadable URL" if match is None else f"{match['scheme']}://{match['hosts']}"
