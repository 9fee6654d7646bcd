from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from socketcluster_runtime.networks import AddressSet, Networks

READ = TypeAdapter(Networks).validate_python


@pytest.mark.parametrize(
    ("networks", "inside", "outside"),
    [
        ("10.0.0.0/8, fd00::/8", ["10.1.2.3", "::ffff:10.1.2.3", "fd00::1%eth0"], ["11.0.0.0", "fe80::1", "", "host"]),
        ("192.0.2.7", ["192.0.2.7"], ["192.0.2.8", "::c000:207"]),
        ("0.0.0.0/0", ["1.2.3.4"], ["::1"]),
        ("", [], ["127.0.0.1"]),
    ],
)
def test_addresses_in_networks(networks: str, inside: list[str], outside: list[str]) -> None:
    addresses = AddressSet(READ(networks))
    assert bool(addresses) is bool(networks)
    assert all(host in addresses for host in inside)
    assert not any(host in addresses for host in outside)


@pytest.mark.parametrize("wrong", ["10.0.0.1/8", "somewhere", "10.0.0.0/33", "10.0.0.0/8;fd00::/8"])
def test_what_is_no_network(wrong: str) -> None:
    with pytest.raises(ValidationError, match="not a valid IPv4 or IPv6 network"):
        READ(wrong)
