from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socketcluster_wire.forwarded import FIELDS, MAX_HOPS, Style, Told, read

PROXY = ("10.0.0.1", 40000)
OTHER = "10.0.0.2"
OTHERS = frozenset((PROXY[0], OTHER, "fd00::1"))
CLIENT = "203.0.113.7"


def by_x_forwarded(
    addresses: str, proto: str = "", host: str = "", trusted: frozenset[str] = OTHERS
) -> tuple[tuple[str, int], bool | None, str | None]:
    """Return what is told of client, TLS, and host."""
    names = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host")
    fields = {name: value for name, value in zip(names, (addresses, proto, host), strict=True) if value}
    told = read("x-forwarded", fields, PROXY, trusted)
    return told.client, told.secure, told.host


def by_forwarded(value: str) -> tuple[tuple[str, int], bool | None, str | None]:
    told = read("forwarded", {"forwarded": value}, PROXY, OTHERS)
    return told.client, told.secure, told.host


def test_the_client_the_protocol_and_the_host() -> None:
    assert by_x_forwarded(CLIENT, "https", "app.example") == ((CLIENT, 0), True, "app.example")
    assert by_x_forwarded(CLIENT, "HTTP", "app.example:8443") == ((CLIENT, 0), False, "app.example:8443")
    assert by_forwarded(f"for={CLIENT};proto=https;host=app.example") == ((CLIENT, 0), True, "app.example")
    assert by_forwarded(f'By=10.0.0.1; FOR="{CLIENT}:4711";Host="[::1]:80"; proto=http') == (
        (CLIENT, 4711),
        False,
        "[::1]:80",
    )


@pytest.mark.parametrize(("said", "secure"), [("wss", True), ("ws", False)])
def test_proxies_that_name_the_protocol_of_a_websocket(said: str, secure: bool) -> None:
    assert by_x_forwarded(CLIENT, said)[1] is secure


def test_where_nothing_is_said_the_proxy_is_the_client() -> None:
    for style in FIELDS:
        assert read(style, {}, PROXY, OTHERS) == Told(PROXY, None, None)
        assert read(style, dict.fromkeys(FIELDS[style], " "), PROXY, OTHERS) == Told(PROXY, None, None)


@pytest.mark.parametrize(
    ("written", "address"),
    [
        (CLIENT, (CLIENT, 0)),
        (f"{CLIENT}:4711", (CLIENT, 4711)),
        ("2001:db8::7", ("2001:db8::7", 0)),
        ("2001:DB8:0::0007", ("2001:db8::7", 0)),
        ("[2001:db8::7]", ("2001:db8::7", 0)),
        ("[2001:db8::7]:4711", ("2001:db8::7", 4711)),
        ("::ffff:203.0.113.7", (CLIENT, 0)),
        ("[::ffff:203.0.113.7]:4711", (CLIENT, 4711)),
        (f"{CLIENT}:_hidden", (CLIENT, 0)),
    ],
)
def test_how_addresses_are_written(written: str, address: tuple[str, int]) -> None:
    assert by_x_forwarded(written)[0] == address
    assert by_forwarded(f'for="{written}"')[0] == address
    assert by_forwarded(f"for={written}")[0] == address  # without the quotes that it should have
    assert not read("x-forwarded", {"x-forwarded-for": written}, PROXY, OTHERS).fault


@pytest.mark.parametrize("written", ["unknown", "Unknown", "_hidden", "_SEVKISEK", "unknown:80", "_hidden:_port"])
def test_a_client_that_a_proxy_does_not_name_is_the_proxy(written: str) -> None:
    assert by_x_forwarded(f"198.51.100.1, {written}", "https") == (PROXY, True, None)
    assert by_forwarded(f"for=198.51.100.1, for={written};proto=https") == (PROXY, True, None)
    assert by_forwarded("for=198.51.100.1, proto=https") == (PROXY, True, None)
    assert by_x_forwarded(f"198.51.100.1, {written}, {OTHER}")[0] == (OTHER, 0)
    assert not read("x-forwarded", {"x-forwarded-for": written}, PROXY, OTHERS).fault


@pytest.mark.parametrize(
    "written",
    [
        "",
        "localhost",
        "1.2.3",
        "1.2.3.4.5",
        "01.2.3.4",
        "1.2.3.4:",
        "1.2.3.4:65536",
        "1.2.3.4:80:80",
        "[1.2.3.4]:80",
        "[::1",
        "::1]",
        "[::g]",
        "1::2::3",
        "unix:",
        "1.2.3.4 5.6.7.8",
        "fe80::1%eth0",
        "１.2.3.4",  # a digit, but no ASCII one
        "x" * 10_000,
    ],
)
def test_what_is_malformed_is_believed_of_nobody(written: str) -> None:
    assert by_x_forwarded(f"198.51.100.1, {written}")[0] == PROXY
    assert by_x_forwarded(f"198.51.100.1, {written}, {OTHER}")[0] == (OTHER, 0)
    assert by_x_forwarded(f"{written}, {CLIENT}")[0] == (CLIENT, 0)
    assert by_forwarded(f"for=198.51.100.1, for={written}")[0] == PROXY
    told = read("x-forwarded", {"x-forwarded-for": f"198.51.100.1,{written}"}, PROXY, OTHERS)
    assert told.fault.startswith("malformed: ")
    assert len(told.fault) < 200


@pytest.mark.parametrize(
    "written",
    [
        "for",
        "for=1.2.3.4 proto=https",
        "for=1.2.3.4;",
        ";for=1.2.3.4",
        "for=1.2.3.4;for=5.6.7.8",
        "for=1.2.3.4;FOR=1.2.3.4",
        'for="1.2.3.4',
        'for=1.2.3.4"',
        r'for="1\.2.3.4"',
        "f or=1.2.3.4",
    ],
)
def test_an_element_that_is_malformed_says_nothing(written: str) -> None:
    for value in (written, f"for=198.51.100.1;proto=https, {written}"):
        assert by_forwarded(value) == (PROXY, None, None)
    assert by_forwarded(f"{written}, for={CLIENT};proto=https") == ((CLIENT, 0), True, None)
    assert read("forwarded", {"forwarded": written}, PROXY, OTHERS).fault


@pytest.mark.parametrize("proto", ["ftp", "https://", "httpshttps", "on"])
def test_another_protocol_is_none(proto: str) -> None:
    assert by_x_forwarded(CLIENT, proto)[1] is None
    assert by_forwarded(f'for={CLIENT};proto="{proto}"')[1] is None
    assert read("x-forwarded", {"x-forwarded-proto": proto}, PROXY, OTHERS).fault


@pytest.mark.parametrize("host", ["a b", "a/b", "a@b", "a:b", "[::1", "a\r\nx: y", "é", "x" * 300, ":80"])
def test_what_is_no_host_is_none(host: str) -> None:
    assert by_x_forwarded(CLIENT, "", host)[2] is None
    assert by_forwarded(f'for={CLIENT};host="{host}"')[2] is None


def test_trusted_proxies_are_walked_through_from_the_right() -> None:
    assert by_x_forwarded(f"192.0.2.66, {CLIENT}, fd00::1, {OTHER}")[0] == (CLIENT, 0)
    assert by_forwarded(f'for=192.0.2.66, for={CLIENT}, for="[fd00::1]", for={OTHER}')[0] == (CLIENT, 0)
    assert by_x_forwarded(OTHER)[0] == (OTHER, 0)  # a proxy's own request


def test_protocol_and_host_are_those_at_the_clients_place() -> None:
    assert by_x_forwarded(f"192.0.2.66, {CLIENT}, {OTHER}", "http, https, http", "a, b, c") == (
        (CLIENT, 0),
        True,
        "b",
    )
    assert by_x_forwarded(f"192.0.2.66, {CLIENT}, {OTHER}", "https", "a") == ((CLIENT, 0), True, "a")
    assert by_x_forwarded(f"192.0.2.66, {CLIENT}", "https, http", "evil, b") == ((CLIENT, 0), False, "b")
    assert by_forwarded(f"for=192.0.2.66;proto=http;host=a,for={CLIENT};proto=https;host=b,for={OTHER};proto=http") == (
        (CLIENT, 0),
        True,
        "b",
    )
    assert by_forwarded(f"for=192.0.2.66;proto=https;host=a, for={CLIENT}") == ((CLIENT, 0), None, None)


@pytest.mark.parametrize("left", ['for="', "for=1.2.3.4;host=\"x, for=6.6.6.6;host='", '"\\', "for=" + '"' * 999])
def test_quotes_that_a_client_leaves_open_hide_nothing(left: str) -> None:
    said = f'for="{CLIENT}:4711";proto=https;host="app.example:443"'
    assert by_forwarded(f"{left}, {said}") == ((CLIENT, 4711), True, "app.example:443")


def test_the_way_is_bounded() -> None:
    assert by_x_forwarded(", ".join([CLIENT, *[OTHER] * MAX_HOPS]))[0] == (OTHER, 0)
    assert by_x_forwarded(", ".join([CLIENT, *[OTHER] * (MAX_HOPS - 1)]))[0] == (CLIENT, 0)
    assert by_x_forwarded("6.6.6.6," * 100_000 + CLIENT)[0] == (CLIENT, 0)
    assert by_forwarded("for=6.6.6.6," * 100_000 + f"for={CLIENT}")[0] == (CLIENT, 0)


@given(st.sampled_from(sorted(FIELDS)), st.text(max_size=60), st.sampled_from([CLIENT, OTHER, "unknown", "", "x"]))
def test_whatever_a_client_writes_the_proxy_in_front_is_believed(style: Style, written: str, last: str) -> None:
    last_place = last if style == "x-forwarded" else f"for={last};proto=http;host=h"
    fields = dict.fromkeys(FIELDS[style], f"{written}, {last_place}")
    told = read(style, fields, PROXY, frozenset((PROXY[0],)))
    assert told.client == ((last, 0) if last in (CLIENT, OTHER) else PROXY)
