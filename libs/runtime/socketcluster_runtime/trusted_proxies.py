"""The proxies in front of this cluster: which are believed, what they say of clients, and whether one was forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Literal, TypeAlias

from pydantic import IPvAnyNetwork

from socketcluster_runtime.logs.logging import get_logger
from socketcluster_runtime.logs.throttle import Throttle
from socketcluster_runtime.networks import AddressSet
from socketcluster_wire import forwarded
from socketcluster_wire.forwarded import Address, Told

log = get_logger(__name__)

ProxyHeaders: TypeAlias = Literal["proxy-protocol", "x-forwarded", "forwarded"]
"""The type of an option: how trusted proxies say who their clients are."""

Headers: TypeAlias = list[tuple[bytes, bytes]]


class TrustedProxies:
    """Those whom a service believes.

    Args:
        networks: where they are.
        headers: how they say who their clients are.

    Attributes:
        by_connection: the addresses whose connections must begin with a PROXY header.
        forgotten: looks whether one is missing; ``None``: nobody does.
    """

    def __init__(self, networks: Iterable[IPvAnyNetwork], headers: ProxyHeaders) -> None:
        addresses = AddressSet(networks)
        self.by_connection = AddressSet(())
        self._addresses: AddressSet | None = None
        self._style: forwarded.Style = "x-forwarded"
        if headers == "proxy-protocol":
            self.by_connection = addresses
        else:
            self._style = headers
            if addresses:
                self._addresses = addresses
            else:
                log.warning("nobody is believed: proxy_headers is about trusted_proxies", setting="trusted_proxies")
        self.forgotten = None if self.by_connection else ForgottenProxy()
        self._names = {name.encode("ascii"): name for name in forwarded.FIELDS[self._style]}
        self._unreadable = Throttle(
            lambda count: log.warning(
                "header fields of trusted proxies could not be read: the client is unknown",
                requests=count,
                reason=self._unreadable.last,
                setting="proxy_headers",
            )
        )

    @property
    def by_request(self) -> bool:
        """Are there any that say in the header fields of each request whose it is?"""
        return self._addresses is not None

    def tell(self, host: str) -> bool:
        """Is this the address of one of those?"""
        return self._addresses is not None and host in self._addresses

    def read(self, headers: Headers, peer: Address) -> Told:
        """Return what is said of the client of a request.

        Args:
            headers: the request's header fields, names in lower case.
            peer: the address of the proxy that it came from.
        """
        fields: dict[str, str] = {}
        for raw, value in headers:
            name = self._names.get(raw)
            if name is not None:
                text = value.decode("latin-1")
                fields[name] = f"{fields[name]},{text}" if name in fields else text
        return self.read_joined(fields, peer)

    def read_joined(self, fields: Mapping[str, str], peer: Address) -> Told:
        """Do the same with fields of which those of one name are joined by commas."""
        told = forwarded.read(self._style, fields, peer, self._addresses or AddressSet(()))
        if told.fault:
            self._unreadable.add(told.fault)
        return told

    def close(self) -> None:
        """Log what is left."""
        self._unreadable.close()


SAMPLE = 20
"""Requests that are looked at together."""
FORWARDED = 19
"""How many of them a proxy must have forwarded, as they say, for it to be no matter of single clients."""
MAX_PEERS = 4
"""Addresses that they come from, at most: those of proxies."""
MIN_CLIENTS = 3
"""Addresses that they name, at least, unless they come from a network where no clients of the Internet are."""

TELLING: Mapping[str, forwarded.Style] = {"x-forwarded-for": "x-forwarded", "forwarded": "forwarded"}
"""The fields that are looked for, and whose style they are."""

_TELLING = {name.encode("ascii"): style for name, style in TELLING.items()}


class ForgottenProxy:
    """Says once, if practically every request was forwarded by a proxy that is not believed.

    Anybody can send such fields. A single client among others changes nothing; one that makes all the requests that
    there are can bring about this one line.
    """

    def __init__(self) -> None:
        self._told = False
        self._begin()

    def see(self, headers: Headers, peer: Address | None) -> None:
        """Look at a request, whose names of fields are in lower case, that came from a ``peer`` who is not believed."""
        if self._told:
            return
        self._requests += 1
        for name, value in headers:
            if name in _TELLING:
                self._forwarded += 1
                if peer is not None and len(self._peers) <= MAX_PEERS:
                    self._peers[peer[0]] = _TELLING[name]
                if len(self._clients) < MIN_CLIENTS:
                    self._clients.add(value[-64:].rpartition(b",")[2].strip())
                break
        if self._requests >= SAMPLE:
            self._judge()
            self._begin()

    def _begin(self) -> None:
        self._requests = self._forwarded = 0
        self._peers: dict[str, str] = {}
        self._clients: set[bytes] = set()

    def _judge(self) -> None:
        if self._forwarded < FORWARDED or not 1 <= len(self._peers) <= MAX_PEERS:
            return
        if len(self._clients) < MIN_CLIENTS and not all(map(_is_private, self._peers)):
            return
        self._told = True
        style = next(iter(self._peers.values()))
        log.warning(
            "requests come from a proxy that is not believed, so that it counts as the client, and none as secure: "
            "if it is yours, set trusted_proxies and proxy_headers",
            peer=", ".join(self._peers),
            trusted_proxies=",".join(self._peers),
            proxy_headers=style,
        )


def _is_private(host: str) -> bool:
    try:
        return ip_address(host.partition("%")[0]).is_private
    except ValueError:
        return False
