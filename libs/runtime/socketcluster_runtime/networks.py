"""IP networks as an option, and which addresses lie in them."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, IPvAnyNetwork
from pydantic_settings import NoDecode


def _split(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Networks: TypeAlias = Annotated[tuple[IPvAnyNetwork, ...], NoDecode, BeforeValidator(_split)]
"""The type of an option: networks as ``10.0.0.0/8`` or ``fd00::/8``, or single addresses, comma-separated."""


class AddressSet:
    """The addresses of networks."""

    def __init__(self, networks: Iterable[IPvAnyNetwork]) -> None:
        self._networks = tuple(networks)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __contains__(self, host: object) -> bool:
        """Does an address lie in one of the networks? An IPv4 client of a dual-stack socket has an IPv4 address."""
        try:
            address = ip_address(str(host).partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)
