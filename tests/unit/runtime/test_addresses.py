"""Addresses as ``host:port``."""

from __future__ import annotations

import pytest

from socketcluster_runtime.addresses import split_host_port
from socketcluster_runtime.errors import SettingsError


@pytest.mark.parametrize(
    ("text", "parts"),
    [("a.example:1", ("a.example", 1)), ("127.0.0.1:65535", ("127.0.0.1", 65535)), ("[::1]:80", ("::1", 80))],
)
def test_an_address_is_split(text: str, parts: tuple[str, int]) -> None:
    assert split_host_port(text) == parts


@pytest.mark.parametrize("text", ["", "host", "host:", ":80", "host:x", "host:-1"])
def test_what_is_none_is_named(text: str) -> None:
    with pytest.raises(SettingsError, match=f"'{text}' is no address of the form host:port"):
        split_host_port(text)


@pytest.mark.parametrize("any_port", [True, False])
def test_what_is_no_port_is_told_with_those_that_are(any_port: bool) -> None:
    wrong, least = ("host:65536", 0) if any_port else ("host:0", 1)
    with pytest.raises(SettingsError, match=f"'{wrong}' is no address: a port is between {least} and 65535"):
        split_host_port(wrong, any_port=any_port)


def test_any_port_may_be_listened_on() -> None:
    assert split_host_port("[::]:0", any_port=True) == ("::", 0)
