"""Who the client of a request is, as the proxies that it came through say in its header fields.

Either ``X-Forwarded-For``, ``X-Forwarded-Proto`` and ``X-Forwarded-Host``, or ``Forwarded`` (RFC 7239); never both,
because a proxy that writes the one may pass on what clients write into the other. Each proxy adds at the right the
address that it was connected to from. So they are read from there: the client is the first address that is no trusted
proxy's. What is left of it anybody can have written. The protocol and the host are those at the same place.

Where a place says nothing that is known (``unknown``, ``_hidden``, something malformed), the client is the last one
that is known: the proxy that said so.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Literal, TypeAlias

Style: TypeAlias = Literal["x-forwarded", "forwarded"]
"""Which fields are believed."""

FIELDS: Mapping[Style, tuple[str, ...]] = {
    "x-forwarded": ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"),
    "forwarded": ("forwarded",),
}
"""The names of the fields of a style, in lower case."""

MAX_HOPS = 32
"""Places that are looked at, from the right."""

_MAX_HOST = 262  # a name of 255 characters (RFC 1035, section 2.3.4), a colon, and a port with a zero too many
_MAX_PORT = 65_535

_PORT = r"(?::(?:([0-9]{1,5})|_[A-Za-z0-9._-]{1,64}))?"
_NODE = re.compile(rf"\[([0-9A-Fa-f:.]{{2,45}})\]{_PORT}|([0-9.]{{7,15}}){_PORT}|([0-9A-Fa-f:.]{{2,45}})")
_NOT_KNOWN = re.compile(rf"(?:unknown|_[A-Za-z0-9._-]{{1,256}}){_PORT}", re.IGNORECASE)
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+;=%-]+)(?::[0-9]*)?")
_PAIR = re.compile(r"""([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:"([^"\\]*)"|([^"\\\s]*))""")
_SECURE = {"https": True, "wss": True, "http": False, "ws": False}  # Traefik says wss of a WebSocket

Address: TypeAlias = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Told:
    """What the proxies say of a request."""

    client: Address
    """The client's IP address and port; 0 where no port is told."""
    secure: bool | None
    """Did the client come by TLS? ``None``: that is not said."""
    host: str | None
    """The host, and perhaps port, that the request is for; ``None``: that is not said."""
    fault: str = ""
    """What could not be read, if anything."""


def read(style: Style, fields: Mapping[str, str], peer: Address, trusted: Container[str]) -> Told:
    """Return who the client of a request is.

    Args:
        style: which fields are believed.
        fields: the request's header fields, names in lower case, those of one name joined by commas.
        peer: the address of the trusted proxy that the request came from.
        trusted: the addresses of trusted proxies.
    """
    if style == "forwarded":
        return _read_forwarded(fields.get("forwarded", ""), peer, trusted)
    walk = _Walk(peer, trusted)
    for text in _places(fields.get("x-forwarded-for", "")):
        if walk.ends_at(text):
            break
    proto = _at(fields.get("x-forwarded-proto", ""), walk.position)
    host = _at(fields.get("x-forwarded-host", ""), walk.position)
    return _told(walk, proto, host)


def _read_forwarded(value: str, peer: Address, trusted: Container[str]) -> Told:
    walk = _Walk(peer, trusted)
    pairs: dict[str, str] = {}
    for text in _places(value):
        found = _pairs(text)
        if found is None:
            walk.fault = f"malformed: {text[:100]!r}"
            pairs = {}
            break
        pairs = found
        if walk.ends_at(pairs.get("for", "unknown")):
            break
    return _told(walk, pairs.get("proto", ""), pairs.get("host", ""))


class _Walk:
    """The way from the trusted proxy that a request came from towards its client.

    Attributes:
        client: the farthest address that is known.
        position: the place that was looked at last, counted from the right.
    """

    def __init__(self, peer: Address, trusted: Container[str]) -> None:
        self.client = peer
        self.position = -1
        self.fault = ""
        self._trusted = trusted

    def ends_at(self, text: str) -> bool:
        """Look at the next place; return whether it is the last one."""
        self.position += 1
        if _NOT_KNOWN.fullmatch(text):
            return True
        node = _node(text)
        if node is None:
            self.fault = f"malformed: {text[:100]!r}"
            return True
        self.client = node
        return node[0] not in self._trusted


def _told(walk: _Walk, proto: str, host: str) -> Told:
    secure = _SECURE.get(proto.lower())
    well_formed = len(host) <= _MAX_HOST and _HOST.fullmatch(host) is not None
    fault = walk.fault
    if not fault and proto and secure is None:
        fault = f"not a protocol: {proto[:100]!r}"
    if not fault and host and not well_formed:
        fault = f"not a host: {host[:100]!r}"
    return Told(walk.client, secure, host if well_formed else None, fault)


def _places(value: str) -> list[str]:
    """Return the last places of a list, from the right.

    No place of a proxy's own has a comma between quotes. So what clients wrote on the left, quotes that do not end
    included, changes nothing on the right.
    """
    value = value.strip(" \t")
    if not value:
        return []
    return [text.strip(" \t") for text in reversed(value.rsplit(",", MAX_HOPS)[-MAX_HOPS:])]


def _at(value: str, position: int) -> str:
    """Return what a list says at a place; a proxy that is content with one value for all writes fewer."""
    places = _places(value)
    return places[min(max(position, 0), len(places) - 1)] if places else ""


def _pairs(text: str) -> dict[str, str] | None:
    """Return the parameters of an element of ``Forwarded``; ``None``: it is malformed."""
    found: dict[str, str] = {}
    for part in text.split(";"):
        pair = _PAIR.fullmatch(part.strip(" \t"))
        if pair is None or pair[1].lower() in found:
            return None
        found[pair[1].lower()] = pair[3] if pair[2] is None else pair[2]
    return found


def _node(text: str) -> Address | None:
    """Return an address and its port, 0 if there is none that is known; ``None``: it is malformed."""
    found = _NODE.fullmatch(text)
    if found is None:
        return None
    port = int(found[2] or found[4] or "0")
    try:
        address = ip_address(found[1] or found[3] or found[5])
    except ValueError:
        return None
    if port > _MAX_PORT or (found[1] is not None and address.version == 4):
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address), port
