"""The PROXY protocol: who the client of a connection is, told in front of the client's own bytes.

https://www.haproxy.org/download/3.1/doc/proxy-protocol.txt. Between the processes of a cluster the header is one of
version 2 (section 2.2) and ends with a TLV of type ``TYPE_SIGNATURE`` (0xE0, in the range for private use): the
HMAC-SHA256, with a key of the cluster's, of all the header's bytes in front of that TLV. Nobody else can make a
worker believe an address, but for those load balancers that it is told to trust: they may also write version 1
(section 2.1), and sign nothing.
"""

from __future__ import annotations

import hmac
import re
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from socketcluster_wire.errors import MalformedProxyError, UntrustedProxyError

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
"""The first twelve bytes of every header of version 2; no HTTP request begins like this."""

SIGNATURE_V1 = b"PROXY "
"""The first bytes of every header of version 1."""

MAX_HEADER_BYTES = 1024
"""The size of the largest header that is read, TLVs included."""

MAX_V1_BYTES = 107
"""The size of the largest header of version 1, its CRLF included."""

TYPE_SSL = 0x20
"""PP2_TYPE_SSL: the client came by TLS."""

TYPE_SIGNATURE = 0xE0
"""The TLV that vouches for the header."""

TYPE_FORWARDED = 0xE1
"""Without a value: another worker forwards this request, and it is not to be forwarded again. Private use, as 0xE0."""

TYPE_BALANCER = 0xE2
"""The bytes by which the balancer that copies the connection's bytes calls itself. Private use, as 0xE0."""

_START = struct.Struct("!12sBBH")  # signature, version and command, family and protocol, length of what follows
_TLV = struct.Struct("!BH")
_SSL = struct.Struct("!BI")
_UNSPECIFIED = 0x00
_ADDRESSES = {
    0x11: struct.Struct("!4s4sHH"),  # TCP over IPv4
    0x21: struct.Struct("!16s16sHH"),  # TCP over IPv6
}
_LOCAL = 0x20
_PROXY = 0x21
_CLIENT_SSL = 0x01
_NOT_VERIFIED = 1  # no client certificate was asked for
_DIGEST_BYTES = 32
_MAX_PORT = 65_535
_V1 = re.compile(rb"PROXY (TCP4|TCP6) ([0-9A-Fa-f.:]{2,39}) ([0-9A-Fa-f.:]{2,39}) ([0-9]{1,5}) ([0-9]{1,5})")
_V1_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*)?")


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """What a header says."""

    source: tuple[str, int] | None
    """The client's host and port; ``None`` if the sender speaks for itself or has no such address."""
    tls: bool
    """Did the client come by TLS?"""
    size: int
    """The header's bytes; the client's own begin behind them."""
    forwarded: bool = False
    """Is it a request that a worker forwards?"""
    balancer: bytes = b""
    """What the balancer calls itself that copies the connection's bytes; empty if it is none of the cluster's."""


def encode(
    source: tuple[str, int],
    destination: tuple[str, int],
    *,
    tls: bool,
    key: bytes,
    forwarded: bool = False,
    balancer: bytes = b"",
) -> bytes:
    """Return the signed header for a client.

    Args:
        source: the client's IP address and port.
        destination: the address and port that it connected to; an address of the other family is left out.
        tls: did it come by TLS?
        key: the cluster's secret.
        forwarded: does a worker forward its request?
        balancer: what the balancer calls itself, if one copies its bytes.
    """
    pair = _same_family(source[0], destination[0])
    if pair is None:
        command, family, body = _LOCAL, _UNSPECIFIED, b""
    else:
        command, family = _PROXY, 0x11 if pair[0].version == 4 else 0x21
        body = _ADDRESSES[family].pack(pair[0].packed, pair[1].packed, source[1], destination[1])
    if tls:
        body += _TLV.pack(TYPE_SSL, _SSL.size) + _SSL.pack(_CLIENT_SSL, _NOT_VERIFIED)
    if forwarded:
        body += _TLV.pack(TYPE_FORWARDED, 0)
    if balancer:
        body += _TLV.pack(TYPE_BALANCER, len(balancer)) + balancer
    length = len(body) + _TLV.size + _DIGEST_BYTES
    signed = _START.pack(SIGNATURE, command, family, length) + body
    return signed + _TLV.pack(TYPE_SIGNATURE, _DIGEST_BYTES) + hmac.digest(key, signed, "sha256")


def parse(data: bytes | bytearray, key: bytes, *, trusted: bool = False) -> ProxyHeader | None:
    """Read the header that ``data`` begins with; ``None`` if more bytes are needed to tell.

    Args:
        data: what was received, from its first byte on.
        key: the cluster's secret; a signature that is there must be right, whoever sent it.
        trusted: is a header believed that is not signed, of either version?

    Raises:
        MalformedProxyError: ``data`` does not begin with a header, or with one over ``MAX_HEADER_BYTES``.
        UntrustedProxyError: whoever made the header does not know ``key``, and is not ``trusted``.
    """
    start = bytes(data[: _START.size])
    if trusted and start and start[: len(SIGNATURE_V1)] == SIGNATURE_V1[: len(start)]:
        return _parse_v1(bytes(data[:MAX_V1_BYTES]))
    if start[: len(SIGNATURE)] != SIGNATURE[: len(start)]:
        raise MalformedProxyError("the PROXY protocol's signature is missing")
    if len(start) < _START.size:
        return None
    _, command, family, length = _START.unpack(start)
    size = _START.size + length
    if command not in (_LOCAL, _PROXY):
        raise MalformedProxyError(f"unknown PROXY version and command {command:#04x}")
    if size > MAX_HEADER_BYTES:
        raise MalformedProxyError(f"a PROXY header of {size} bytes is over the limit of {MAX_HEADER_BYTES}")
    if len(data) < size:
        return None
    header = bytes(data[:size])
    signed = _check_signature(header, key, needed=not trusted)
    if family == _UNSPECIFIED:
        tls, forwarded, balancer = _read_tlvs(header, _START.size, signed=signed)
        return ProxyHeader(source=None, tls=tls, size=size, forwarded=forwarded, balancer=balancer)
    addresses = _ADDRESSES.get(family)
    if addresses is None:  # datagrams, Unix sockets: nothing a worker could use
        return ProxyHeader(source=None, tls=False, size=size)
    try:
        packed, _, port, _ = addresses.unpack_from(header, _START.size)
    except struct.error:
        raise MalformedProxyError("a PROXY header ends within its addresses") from None
    tls, forwarded, balancer = _read_tlvs(header, _START.size + addresses.size, signed=signed)
    return ProxyHeader(
        source=(_text(packed), port) if command == _PROXY else None,
        tls=tls,
        size=size,
        forwarded=forwarded,
        balancer=balancer,
    )


def _parse_v1(data: bytes) -> ProxyHeader | None:
    line, end, _ = data.partition(b"\r\n")
    if not end:
        if len(data) >= MAX_V1_BYTES or b"\n" in data:
            raise MalformedProxyError("a PROXY header of version 1 does not end")
        return None
    size = len(line) + len(end)
    if _V1_UNKNOWN.fullmatch(line):
        return ProxyHeader(source=None, tls=False, size=size)
    found = _V1.fullmatch(line)
    if found is None:
        raise MalformedProxyError("a PROXY header of version 1 cannot be read")
    protocol, *pair = (group.decode("ascii") for group in found.groups())
    version = 4 if protocol == "TCP4" else 6
    try:
        source, destination = ip_address(pair[0]), ip_address(pair[1])
    except ValueError:
        raise MalformedProxyError("a PROXY header of version 1 has a malformed address") from None
    ports = int(pair[2]), int(pair[3])
    if source.version != version or destination.version != version or max(ports) > _MAX_PORT:
        raise MalformedProxyError("a PROXY header of version 1 contradicts itself")
    return ProxyHeader(source=(_text(source.packed), ports[0]), tls=False, size=size)


def _text(packed: bytes) -> str:
    address = ip_address(packed)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def _same_family(
    source: str, destination: str
) -> tuple[IPv4Address, IPv4Address] | tuple[IPv6Address, IPv6Address] | None:
    try:
        one = _address(source)
    except ValueError:
        return None
    try:
        other = _address(destination)
    except ValueError:
        other = None
    if isinstance(one, IPv4Address):
        return one, other if isinstance(other, IPv4Address) else IPv4Address(0)
    return one, other if isinstance(other, IPv6Address) else IPv6Address(0)


def _address(host: str) -> IPv4Address | IPv6Address:
    """Return an address without its zone; an IPv4 client of a dual-stack socket is an IPv4 client."""
    address = ip_address(host.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _check_signature(header: bytes, key: bytes, *, needed: bool) -> bool:
    """Return whether the header is signed."""
    end = len(header) - _TLV.size - _DIGEST_BYTES
    if end < _START.size or header[end : end + _TLV.size] != _TLV.pack(TYPE_SIGNATURE, _DIGEST_BYTES):
        if needed:
            raise UntrustedProxyError("a PROXY header is not signed")
        return False
    if not hmac.compare_digest(header[end + _TLV.size :], hmac.digest(key, header[:end], "sha256")):
        raise UntrustedProxyError("a PROXY header is signed with another secret")
    return True


def _read_tlvs(header: bytes, position: int, *, signed: bool) -> tuple[bool, bool, bytes]:
    """Go through the TLVs from ``position`` on; return whether the client came by TLS, was forwarded, and by whom.

    The last two are believed if the header is ``signed``.
    """
    tls = forwarded = False
    balancer = b""
    while position < len(header):
        if position + _TLV.size > len(header):
            raise MalformedProxyError("a PROXY header ends within a TLV")
        kind, length = _TLV.unpack_from(header, position)
        position += _TLV.size
        if position + length > len(header):
            raise MalformedProxyError("a PROXY header ends within a TLV")
        if kind == TYPE_SSL:
            if length < _SSL.size:
                raise MalformedProxyError("a PROXY header's SSL TLV is too short")
            tls = bool(header[position] & _CLIENT_SSL)
        elif kind == TYPE_FORWARDED:
            forwarded = signed
        elif kind == TYPE_BALANCER and signed:
            balancer = header[position : position + length]
        position += length
    return tls, forwarded, balancer
