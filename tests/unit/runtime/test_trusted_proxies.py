from __future__ import annotations

import asyncio
from ipaddress import ip_network

from structlog.testing import capture_logs

from socketcluster_runtime.trusted_proxies import SAMPLE, ForgottenProxy, TrustedProxies

NETWORKS = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
PEER = ("10.0.0.1", 40000)
PUBLIC = ("1.2.3.4", 40000)
FOR = b"x-forwarded-for"


def test_by_default_connections_begin_with_a_header() -> None:
    proxies = TrustedProxies(NETWORKS, "proxy-protocol")
    assert "10.1.2.3" in proxies.by_connection
    assert not proxies.by_request
    assert not proxies.tell("10.1.2.3")


async def test_those_that_tell_by_request_begin_their_connections_with_nothing() -> None:
    proxies = TrustedProxies(NETWORKS, "forwarded")
    assert not proxies.by_connection
    assert proxies.by_request
    assert proxies.tell("10.1.2.3")
    assert proxies.tell("::ffff:10.1.2.3")
    assert proxies.tell("fd00::1")
    assert not proxies.tell("11.1.2.3")
    assert not proxies.tell("")


async def test_several_lines_of_one_field_are_one_list() -> None:
    proxies = TrustedProxies(NETWORKS, "x-forwarded")
    lines = [(FOR, b"6.6.6.6"), (b"host", b"x"), (FOR, b"203.0.113.7"), (FOR, b"10.0.0.2")]
    assert proxies.read(lines, PEER).client == ("203.0.113.7", 0)


async def test_fields_of_the_other_kind_say_nothing() -> None:
    assert TrustedProxies(NETWORKS, "x-forwarded").read([(b"forwarded", b"for=6.6.6.6")], PEER).client == PEER
    others = [(FOR, b"6.6.6.6"), (b"x-forwarded-proto", b"https"), (b"x-forwarded-host", b"evil")]
    told = TrustedProxies(NETWORKS, "forwarded").read(others, PEER)
    assert (told.client, told.secure, told.host) == (PEER, None, None)


async def test_without_networks_nobody_is_believed_and_that_is_said() -> None:
    with capture_logs() as lines:
        proxies = TrustedProxies((), "x-forwarded")
    assert [line["setting"] for line in lines] == ["trusted_proxies"]
    assert not proxies.by_request
    assert not proxies.tell("10.0.0.1")


async def test_what_cannot_be_read_is_logged_once_a_second() -> None:
    proxies = TrustedProxies(NETWORKS, "x-forwarded")
    with capture_logs() as lines:
        for _ in range(5):
            assert proxies.read([(FOR, b"what?")], PEER).client == PEER
        proxies.close()
    assert [line["requests"] for line in lines] == [1, 4]
    assert "what?" in lines[0]["reason"]
    await asyncio.sleep(0)


def seen(*requests: tuple[tuple[str, int], bytes | None]) -> list[str]:
    """Return the peers that are named after these requests, which come again and again."""
    forgotten = ForgottenProxy()
    with capture_logs() as lines:
        for number in range(10 * SAMPLE):
            peer, client = requests[number % len(requests)]
            forgotten.see([] if client is None else [(b"host", b"x"), (FOR, client)], peer)
    return [line["trusted_proxies"] for line in lines]


def test_a_proxy_that_is_not_believed_is_named_once() -> None:
    assert seen((PEER, b"203.0.113.7")) == ["10.0.0.1"]
    assert seen((PEER, b"203.0.113.7"), (("10.0.0.2", 1), b"203.0.113.8")) == ["10.0.0.1,10.0.0.2"]
    assert seen(*((PUBLIC, b"203.0.113.%d" % number) for number in range(3))) == ["1.2.3.4"]


def test_its_option_is_named() -> None:
    forgotten = ForgottenProxy()
    with capture_logs() as lines:
        for _ in range(SAMPLE):
            forgotten.see([(b"forwarded", b"for=203.0.113.7")], PEER)
    assert [line["proxy_headers"] for line in lines] == ["forwarded"]


def test_a_client_that_sends_such_fields_is_no_proxy() -> None:
    assert seen((PUBLIC, b"203.0.113.7")) == []  # it makes all the requests that there are
    assert seen((PUBLIC, b"1.1.1.1, 2.2.2.2, 3.3.3.3, 203.0.113.7")) == []
    assert seen((PEER, b"203.0.113.7"), (PUBLIC, None)) == []  # every second request


def test_many_clients_that_send_such_fields_are_no_proxy() -> None:
    assert seen(*(((f"10.0.0.{number}", 1), b"203.0.113.%d" % number) for number in range(8))) == []


def test_requests_without_such_fields_say_nothing() -> None:
    assert seen((PEER, None)) == []
