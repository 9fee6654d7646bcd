"""Addresses of services: single ones, and names behind which there are any number of hosts."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NoReturn

from socketcluster_runtime.errors import SettingsError
from socketcluster_runtime.logs.logging import get_logger

log = get_logger(__name__)

DNS_SCHEME = "dns:///"
RESOLVE_INTERVAL = 0.5
"""Seconds between two look-ups of a name."""

AddressInfo = tuple[int, int, int, str, Any]
"""What ``socket.getaddrinfo`` says of one address."""


def split_host_port(text: str, *, any_port: bool = False) -> tuple[str, int]:
    """Split ``host:port``; the host may be an IPv6 address in brackets.

    Args:
        text: the address.
        any_port: may the port be 0, which stands for any that is free? Where one listens, it may.

    Raises:
        SettingsError: ``text`` is not of that form.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal():
        raise SettingsError(f"{text!r} is no address of the form host:port")
    least = 0 if any_port else 1
    if not least <= int(port) <= 65535:
        raise SettingsError(f"{text!r} is no address: a port is between {least} and 65535")
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_name(address: str) -> bool:
    """Does ``address`` stand for every host of a name?"""
    return address.startswith(DNS_SCHEME)


async def follow(name: str, found: Callable[[list[str]], None]) -> NoReturn:
    """Look ``dns:///name:port`` up again and again until cancelled, and tell what was found each time.

    ``found`` is given ``host:port`` of every host that has the name, sorted. A host with addresses of both kinds
    appears once: the IPv6 addresses count only if there are no others. While the name cannot be looked up, nothing is
    told.
    """
    host, port = split_host_port(name.removeprefix(DNS_SCHEME))
    known = True
    while True:
        try:
            entries = await look_up(host, port)
        except (OSError, UnicodeError) as error:  # nobody has it, or it can be nobody's
            if known:
                log.warning("a name cannot be looked up", address=name, error=str(error))
            known = False
        else:
            known = True
            found(sorted(_hosts(entries, socket.AF_INET, port) or _hosts(entries, socket.AF_INET6, port)))
        await asyncio.sleep(RESOLVE_INTERVAL)


async def look_up(host: str, port: int) -> list[AddressInfo]:
    """Look a name up, in a thread that does not keep the process from ending while a name server is silent.

    Raises:
        OSError: the name cannot be looked up.
        UnicodeError: it can be nobody's name.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[AddressInfo]] = loop.create_future()

    def settle(answer: list[AddressInfo] | Exception) -> None:
        if found.done():  # nobody waits any more
            return
        if isinstance(answer, Exception):
            found.set_exception(answer)
        else:
            found.set_result(answer)

    def ask() -> None:
        answer: list[AddressInfo] | Exception
        try:
            answer = list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answer = error
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, answer)

    threading.Thread(target=ask, name="look-up", daemon=True).start()
    return await found


def _hosts(entries: Iterable[AddressInfo], family: socket.AddressFamily, port: int) -> set[str]:
    hosts = (str(entry[4][0]) for entry in entries if entry[0] == family)
    return {f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}" for host in hosts}
