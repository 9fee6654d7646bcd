from __future__ import annotations

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socketcluster_wire import proxy_protocol
from socketcluster_wire.errors import MalformedProxyError, ProxyError, UntrustedProxyError
from socketcluster_wire.proxy_protocol import ProxyHeader

KEY = b"a secret of the cluster"
V4 = st.ip_addresses(v=4).map(str)
V6 = st.ip_addresses(v=6).map(str).filter(lambda address: not address.startswith("::ffff:"))
PORTS = st.integers(0, 65535)


def signed(command: int, family: int, body: bytes) -> bytes:
    start = proxy_protocol.SIGNATURE + bytes([command, family]) + (len(body) + 35).to_bytes(2, "big") + body
    return start + b"\xe0\x00\x20" + hmac.digest(KEY, start, "sha256")


def v2(command: int, family: int, body: bytes) -> bytes:
    """An unsigned header."""
    return proxy_protocol.SIGNATURE + bytes([command, family]) + len(body).to_bytes(2, "big") + body


@given(st.tuples(V4, V4) | st.tuples(V6, V6), PORTS, PORTS, st.booleans(), st.binary(max_size=50))
def test_a_header_says_what_was_put_in(hosts: tuple[str, str], one: int, other: int, tls: bool, rest: bytes) -> None:
    made = proxy_protocol.encode((hosts[0], one), (hosts[1], other), tls=tls, key=KEY)
    assert proxy_protocol.parse(made + rest, KEY) == ProxyHeader(source=(hosts[0], one), tls=tls, size=len(made))


def test_the_bytes_are_those_of_the_specification() -> None:
    made = proxy_protocol.encode(("192.0.2.1", 0x1234), ("198.51.100.2", 0x5678), tls=True, key=KEY)
    start = (
        b"\r\n\r\n\x00\r\nQUIT\n" + b"\x21\x11" + (12 + 8 + 35).to_bytes(2, "big")
        + bytes([192, 0, 2, 1, 198, 51, 100, 2]) + b"\x12\x34\x56\x78"
        + b"\x20\x00\x05\x01\x00\x00\x00\x01"
    )  # fmt: skip
    assert made == start + b"\xe0\x00\x20" + hmac.digest(KEY, start, "sha256")


def test_a_mapped_address_and_a_zone_are_understood() -> None:
    made = proxy_protocol.parse(
        proxy_protocol.encode(("::ffff:192.0.2.1", 1), ("198.51.100.2", 2), tls=False, key=KEY), KEY
    )
    assert made is not None
    assert made.source == ("192.0.2.1", 1)
    made = proxy_protocol.parse(proxy_protocol.encode(("fe80::1%eth0", 1), ("fe80::2", 2), tls=False, key=KEY), KEY)
    assert made is not None
    assert made.source == ("fe80::1", 1)


@pytest.mark.parametrize("source", ["", "host", "/run/socket"])
def test_what_is_no_address_is_local(source: str) -> None:
    made = proxy_protocol.encode((source, 1), ("127.0.0.1", 2), tls=True, key=KEY)
    assert proxy_protocol.parse(made, KEY) == ProxyHeader(source=None, tls=True, size=len(made))


@pytest.mark.parametrize(
    ("source", "destination"), [("192.0.2.1", "::1"), ("2001:db8::1", "127.0.0.1"), ("192.0.2.1", "")]
)
def test_a_client_is_told_of_though_it_came_to_an_address_of_the_other_family(source: str, destination: str) -> None:
    made = proxy_protocol.encode((source, 1), (destination, 2), tls=False, key=KEY)
    assert proxy_protocol.parse(made, KEY) == ProxyHeader(source=(source, 1), tls=False, size=len(made))


def test_a_balancer_is_known_by_a_signed_header_alone() -> None:
    for host in ("192.0.2.1", "no address"):
        made = proxy_protocol.encode((host, 1), ("192.0.2.2", 2), tls=True, key=KEY, balancer=b"one")
        parsed = proxy_protocol.parse(made, KEY)
        assert parsed is not None
        assert (parsed.balancer, parsed.tls, parsed.forwarded) == (b"one", True, False)
        unsigned = bytearray(made[: -3 - 32])
        unsigned[14:16] = (len(unsigned) - 16).to_bytes(2)
        parsed = proxy_protocol.parse(unsigned, KEY, trusted=True)
        assert parsed is not None
        assert parsed.balancer == b""


def test_a_forwarded_request_is_known_by_a_signed_header_alone() -> None:
    made = proxy_protocol.encode(("192.0.2.1", 1), ("192.0.2.2", 2), tls=False, key=KEY, forwarded=True)
    parsed = proxy_protocol.parse(made, KEY)
    assert parsed is not None
    assert parsed.forwarded
    assert parsed == proxy_protocol.parse(made, KEY, trusted=True)
    unsigned = v2(0x21, 0x11, bytes(12) + b"\xe1\x00\x00")
    parsed = proxy_protocol.parse(unsigned, KEY, trusted=True)
    assert parsed is not None
    assert not parsed.forwarded


def test_more_bytes_are_needed_until_the_last() -> None:
    made = proxy_protocol.encode(("::1", 1), ("::1", 2), tls=True, key=KEY)
    for size in range(len(made)):
        assert proxy_protocol.parse(made[:size], KEY) is None
    assert proxy_protocol.parse(bytearray(made), KEY) is not None


def test_every_changed_byte_is_noticed() -> None:
    made = proxy_protocol.encode(("192.0.2.1", 1), ("192.0.2.2", 2), tls=True, key=KEY)
    for position in range(len(made)):
        changed = bytearray(made)
        changed[position] ^= 1
        try:
            assert proxy_protocol.parse(changed, KEY) is None  # its length was changed: it waits for more
        except ProxyError:
            continue
        assert position in (14, 15)


def test_another_secret_is_untrusted() -> None:
    with pytest.raises(UntrustedProxyError, match="another secret"):
        proxy_protocol.parse(proxy_protocol.encode(("::1", 1), ("::1", 2), tls=False, key=b"x"), KEY)


def test_a_header_without_a_signature_is_untrusted() -> None:
    with pytest.raises(UntrustedProxyError, match="not signed"):
        proxy_protocol.parse(proxy_protocol.SIGNATURE + b"\x21\x11\x00\x0c" + bytes(12), KEY)


def test_what_follows_the_signature_is_not_believed() -> None:
    """Bytes behind the TLV that vouches would be nobody's word."""
    made = proxy_protocol.encode(("192.0.2.1", 1), ("192.0.2.2", 2), tls=False, key=KEY)
    tlv = b"\x20\x00\x05\x01\x00\x00\x00\x00"
    longer = made[:14] + (len(made) - 16 + len(tlv)).to_bytes(2, "big") + made[16:] + tlv
    with pytest.raises(UntrustedProxyError):
        proxy_protocol.parse(longer, KEY)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\r\n\r\r",
        proxy_protocol.SIGNATURE + b"\x11\x11\x00\x0c",
        proxy_protocol.SIGNATURE + b"\x22\x11\x00\x0c",
        proxy_protocol.SIGNATURE + b"\x21\x11\x03\xf1",
        signed(0x21, 0x11, bytes(12) + b"\x20\x00\x04\x01\x00\x00\x00"),
        signed(0x21, 0x11, bytes(12) + b"\x04\xff\xff"),
    ],
    ids=["http", "cut", "version 1", "command", "too long", "short ssl", "overlong tlv"],
)
def test_what_contradicts_itself_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedProxyError):
        proxy_protocol.parse(data, KEY)


def test_local_with_addresses_has_no_source() -> None:
    data = signed(0x20, 0x11, bytes(12))
    assert proxy_protocol.parse(data, KEY) == ProxyHeader(source=None, tls=False, size=len(data))


def test_unix_addresses_have_no_source() -> None:
    data = signed(0x21, 0x31, bytes(216))
    assert proxy_protocol.parse(data, KEY) == ProxyHeader(source=None, tls=False, size=len(data))


@given(st.binary(max_size=80), st.sampled_from([0x20, 0x21]), st.sampled_from([0, 0x11, 0x21, 0x31]))
def test_any_signed_bytes_are_a_header_or_the_documented_error(body: bytes, command: int, family: int) -> None:
    data = signed(command, family, body)
    try:
        parsed = proxy_protocol.parse(data, KEY)
    except MalformedProxyError:
        return
    assert parsed is not None
    assert parsed.size == len(data)


@given(st.binary(max_size=80), st.integers(0, 16))
def test_any_bytes_are_the_documented_error_or_wait_for_more(data: bytes, signature: int) -> None:
    try:
        parsed = proxy_protocol.parse(proxy_protocol.SIGNATURE[:signature] + data, KEY)
    except ProxyError:
        return
    assert parsed is None


# What a trusted load balancer may send.


def test_an_unsigned_header_is_believed_of_a_trusted_sender_alone() -> None:
    data = v2(0x21, 0x11, bytes([192, 0, 2, 1, 198, 51, 100, 2]) + b"\x12\x34\x01\xbb" + b"\x03\x00\x04crc\x00")
    assert proxy_protocol.parse(data, KEY, trusted=True) == ProxyHeader(
        ("192.0.2.1", 0x1234), tls=False, size=len(data)
    )
    with pytest.raises(UntrustedProxyError, match="not signed"):
        proxy_protocol.parse(data, KEY)


def test_a_trusted_sender_tells_of_tls() -> None:
    data = v2(0x21, 0x21, bytes(15) + b"\x01" + bytes(20) + b"\x20\x00\x05\x01\x00\x00\x00\x00")
    assert proxy_protocol.parse(data, KEY, trusted=True) == ProxyHeader(("::1", 0), tls=True, size=len(data))


def test_a_mapped_address_of_a_trusted_sender_is_the_ipv4_address() -> None:
    data = v2(0x21, 0x21, bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 1]) + bytes(18) + b"\x00\x01")
    parsed = proxy_protocol.parse(data, KEY, trusted=True)
    assert parsed is not None
    assert parsed.source == ("192.0.2.1", 0)


def test_a_wrong_signature_is_no_better_for_being_trusted() -> None:
    with pytest.raises(UntrustedProxyError, match="another secret"):
        proxy_protocol.parse(proxy_protocol.encode(("::1", 1), ("::1", 2), tls=False, key=b"x"), KEY, trusted=True)


@pytest.mark.parametrize(
    ("line", "source"),
    [
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 4711 443\r\n", ("192.0.2.1", 4711)),
        (b"PROXY TCP6 2001:DB8::1 ::1 65535 0\r\n", ("2001:db8::1", 65535)),
        (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", ("192.0.2.1", 1)),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", None),
    ],
)
def test_version_1(line: bytes, source: tuple[str, int] | None) -> None:
    expected = ProxyHeader(source, tls=False, size=len(line))
    assert proxy_protocol.parse(line, KEY, trusted=True) == expected
    assert proxy_protocol.parse(line + b"GET / HTTP/1.1\r\n\r\n" * 9, KEY, trusted=True) == expected
    for size in range(len(line)):
        assert proxy_protocol.parse(line[:size], KEY, trusted=True) is None
    with pytest.raises(MalformedProxyError):
        proxy_protocol.parse(line, KEY)


@pytest.mark.parametrize(
    "data",
    [
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
        b"PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
        b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY UNKNOWN" + b" " * 94,
        b"proxy UNKNOWN\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_malformed_of_a_trusted_sender(data: bytes) -> None:
    with pytest.raises(MalformedProxyError):
        proxy_protocol.parse(data, KEY, trusted=True)


@given(st.binary(max_size=80), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 192.0.2.1 ", proxy_protocol.SIGNATURE]))
def test_any_bytes_of_a_trusted_sender_are_a_header_or_the_documented_error(data: bytes, start: bytes) -> None:
    try:
        parsed = proxy_protocol.parse(start + data, KEY, trusted=True)
    except ProxyError:
        return
    assert parsed is None or 0 < parsed.size <= len(start + data)
