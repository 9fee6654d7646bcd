"""Where a run connects to, and who does how much of it."""

from __future__ import annotations

import pytest

from socketcluster.bench.plan import PORTS_OF_AN_ADDRESS, Plan, PlanError, Protocol, source_address


@pytest.mark.parametrize(
    ("url", "protocol", "secure", "host", "port", "path"),
    [
        ("http://a", "socketio", False, "a", 80, "/socket.io/?EIO=4&transport=websocket"),
        ("a:8000", "socketio", False, "a", 8000, "/socket.io/?EIO=4&transport=websocket"),
        ("wss://a/", "socketcluster", True, "a", 443, "/socketcluster/"),
        ("https://a:8443/own/?x=1", "engineio", True, "a", 8443, "/own/?x=1&EIO=4&transport=websocket"),
        ("ws://[::1]:9/chat?room=1", "websocket", False, "::1", 9, "/chat?room=1"),
    ],
)
def test_a_url_names_one_place(url: str, protocol: str, secure: bool, host: str, port: int, path: str) -> None:
    target = Plan(url=url, protocol=Protocol(protocol)).target
    assert (target.secure, target.host, target.port, target.path) == (secure, host, port, path)


@pytest.mark.parametrize("url", ["ftp://a", "http://", "http://a:b", "http://a:99999"])
def test_a_url_that_names_none_is_refused(url: str) -> None:
    with pytest.raises(PlanError, match=url.split("/")[0]):
        _ = Plan(url=url).target


def test_the_host_and_origin_are_those_of_a_browser() -> None:
    assert Plan(url="https://a").target.authority == "a"
    assert Plan(url="http://[::1]:8000").target.authority == "[::1]:8000"
    assert Plan(url="wss://a:8443").target.origin == "https://a:8443"


def test_connections_are_shared_out_to_the_last_one() -> None:
    plan = Plan(url="a", connections=10, processes=3)
    assert [plan.share(index) for index in range(3)] == [4, 3, 3]
    assert [plan.first(index) for index in range(3)] == [0, 4, 7]


def test_only_to_loopback_more_than_one_address_is_used() -> None:
    last, next_one = PORTS_OF_AN_ADDRESS - 1, PORTS_OF_AN_ADDRESS
    assert source_address("127.0.0.1", last) is None
    assert source_address("127.0.0.1", next_one) == "127.1.0.1"
    assert source_address("127.0.0.1", 300 * next_one) == "127.1.1.44"
    assert source_address("10.0.0.1", next_one) is None
    assert source_address("::1", next_one) is None
    assert source_address("localhost", next_one) is None


def test_messages_of_socketcluster_without_an_event_are_publications() -> None:
    assert Plan(url="a", protocol=Protocol.SOCKETCLUSTER).publishes
    assert not Plan(url="a", protocol=Protocol.SOCKETCLUSTER, event="x").publishes
    assert not Plan(url="a").publishes
    assert (Plan(url="a").event_name, Plan(url="a", event="x").event_name) == ("bench", "x")
