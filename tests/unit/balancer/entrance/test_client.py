"""Who a client is: as its socket says, a balancer in front, or a proxy in the request."""

from __future__ import annotations

import pytest

from socketcluster_balancer.entrance.client import Client
from socketcluster_runtime.sockets.relay import Relay
from socketcluster_wire.forwarded import Told
from socketcluster_wire.proxy_protocol import ProxyHeader

PEER, OWN = ("10.0.0.1", 1000), ("10.0.0.2", 80)
CLIENT = ("192.0.2.1", 2000)


class Plain(Client):
    """Has no connection, only its addresses."""

    ends_tls = False
    gone = False

    def _socket_addresses(self) -> tuple[tuple[str, int], tuple[str, int]]:
        if self.gone:
            raise ConnectionResetError
        return PEER, OWN

    async def go_on_in(self, relay: Relay, beginning: bytes) -> None:
        raise NotImplementedError


class Secure(Plain):
    """Speaks TLS with the balancer."""

    ends_tls = True


def header(source: tuple[str, int] | None, *, tls: bool = False) -> ProxyHeader:
    return ProxyHeader(source, tls=tls, size=28)


def test_without_proxies_it_is_who_its_socket_says() -> None:
    client = Plain(None, b"key")
    assert client.source is None
    assert client.addresses() == (PEER, OWN)
    assert client.identity() == (PEER, False)
    assert Secure(None, b"key").identity() == (PEER, True)


def test_a_balancer_in_front_says_who_it_is_and_whether_it_came_by_tls() -> None:
    assert Plain(header(CLIENT), b"").addresses() == (CLIENT, OWN)
    assert Plain(header(CLIENT), b"").identity() == (CLIENT, False)
    assert Plain(header(CLIENT, tls=True), b"").identity() == (CLIENT, True)
    assert Secure(header(CLIENT), b"").identity() == (CLIENT, True)


def test_the_balancer_in_front_may_speak_of_itself() -> None:
    client = Plain(header(None), b"")  # a health check of its own
    assert client.source is None
    assert client.addresses() == (PEER, OWN)


@pytest.mark.parametrize(("secure", "is_secure"), [(None, True), (True, True), (False, False)])
def test_what_a_proxy_says_in_the_request_is_nearest_to_the_client(secure: bool | None, is_secure: bool) -> None:
    client = Secure(None, b"")
    client.told = Told(client=CLIENT, secure=secure, host="a.example")
    assert client.identity() == (CLIENT, is_secure)
    assert client.addresses() == (PEER, OWN)  # what the worker is told: it reads each request itself


def test_one_that_has_gone_has_no_addresses() -> None:
    client = Plain(header(CLIENT), b"")
    client.gone = True
    with pytest.raises(ConnectionResetError):
        client.addresses()
    with pytest.raises(ConnectionResetError):
        client.identity()
