"""Addresses of services: single ones, and names behind which there are any number of hosts."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable

from socketcluster_runtime.errors import SettingsError

DNS_SCHEME = "dns:///"


def split_host_port(text: str) -> tuple[str, int]:
    """Split ``host:port``; the host may be an IPv6 address in brackets.

    Raises:
        SettingsError: ``text`` is not of that form.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise SettingsError(f"{text!r} is no address of the form host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_name(address: str) -> bool:
    """Does ``address`` stand for every host of a name?"""
    return address.startswith(DNS_SCHEME)


async def resolve(address: str) -> list[str]:
    """Return ``host:port`` of every host that ``dns:///name:port`` stands for now, sorted; none if nobody has the name.

    A host with addresses of both kinds appears once: the IPv6 addresses count only if there are no others.
    """
    host, port = split_host_port(address.removeprefix(DNS_SCHEME))
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # nobody has it, or it can be nobody's
        return []
    return sorted(_hosts(found, socket.AF_INET, port) or _hosts(found, socket.AF_INET6, port))


def _hosts(found: Iterable[tuple[object, ...]], family: socket.AddressFamily, port: int) -> set[str]:
    hosts = set()
    for item in found:
        if item[0] == family:
            address = item[4]
            host = str(address[0]) if isinstance(address, tuple) else ""
            hosts.add(f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}")
    return hosts
