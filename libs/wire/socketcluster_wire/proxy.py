"""The PROXY protocol, version 2: who a spliced connection's client is, told in front of the client's own bytes.

The header is the one of https://www.haproxy.org/download/3.1/doc/proxy-protocol.txt (section 2.2) and ends with a TLV
of type ``TYPE_SIGNATURE`` (0xE0, in the range for private use): the HMAC-SHA256, keyed with the cluster's secret, of
all the header's bytes in front of that TLV. Nobody else can make a worker believe an address.
"""

from __future__ import annotations

import hmac
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from socketcluster_wire.errors import MalformedProxyError, UntrustedProxyError

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
"""The first twelve bytes of every header; no HTTP request begins like this."""

MAX_HEADER_BYTES = 1024
"""The size of the largest header that is read, TLVs included."""

TYPE_SSL = 0x20
"""PP2_TYPE_SSL: the client came by TLS."""

TYPE_SIGNATURE = 0xE0
"""The TLV that vouches for the header."""

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


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """What a header says."""

    source: tuple[str, int] | None
    """The client's host and port; ``None`` if the sender speaks for itself or has no such address."""
    tls: bool
    """Did the client come by TLS?"""
    size: int
    """The header's bytes; the client's own begin behind them."""


def encode(source: tuple[str, int], destination: tuple[str, int], *, tls: bool, key: bytes) -> bytes:
    """Return the header for a client.

    Args:
        source: the client's IP address and port.
        destination: the address and port that it connected to.
        tls: did it come by TLS?
        key: the cluster's secret.
    """
    pair = _same_family(source[0], destination[0])
    if pair is None:
        command, family, body = _LOCAL, _UNSPECIFIED, b""
    else:
        command, family = _PROXY, 0x11 if pair[0].version == 4 else 0x21
        body = _ADDRESSES[family].pack(pair[0].packed, pair[1].packed, source[1], destination[1])
    if tls:
        body += _TLV.pack(TYPE_SSL, _SSL.size) + _SSL.pack(_CLIENT_SSL, _NOT_VERIFIED)
    length = len(body) + _TLV.size + _DIGEST_BYTES
    signed = _START.pack(SIGNATURE, command, family, length) + body
    return signed + _TLV.pack(TYPE_SIGNATURE, _DIGEST_BYTES) + hmac.digest(key, signed, "sha256")


def parse(data: bytes | bytearray, key: bytes) -> ProxyHeader | None:
    """Read the header that ``data`` begins with; ``None`` if more bytes are needed to tell.

    Raises:
        MalformedProxyError: ``data`` does not begin with a header of version 2, or one over ``MAX_HEADER_BYTES``.
        UntrustedProxyError: whoever made the header does not know ``key``.
    """
    start = bytes(data[: _START.size])
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
    _check_signature(header, key)
    if family == _UNSPECIFIED:
        return ProxyHeader(source=None, tls=_has_tls(header, _START.size), size=size)
    addresses = _ADDRESSES.get(family)
    if addresses is None:  # datagrams, Unix sockets: nothing a worker could use
        return ProxyHeader(source=None, tls=False, size=size)
    try:
        packed, _, port, _ = addresses.unpack_from(header, _START.size)
    except struct.error:
        raise MalformedProxyError("a PROXY header ends within its addresses") from None
    return ProxyHeader(
        source=(str(ip_address(packed)), port) if command == _PROXY else None,
        tls=_has_tls(header, _START.size + addresses.size),
        size=size,
    )


def _same_family(
    source: str, destination: str
) -> tuple[IPv4Address, IPv4Address] | tuple[IPv6Address, IPv6Address] | None:
    try:
        one, other = _address(source), _address(destination)
    except ValueError:
        return None
    if isinstance(one, IPv4Address) and isinstance(other, IPv4Address):
        return one, other
    if isinstance(one, IPv6Address) and isinstance(other, IPv6Address):
        return one, other
    return None


def _address(host: str) -> IPv4Address | IPv6Address:
    """Return an address without its zone; an IPv4 client of a dual-stack socket is an IPv4 client."""
    address = ip_address(host.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _check_signature(header: bytes, key: bytes) -> None:
    end = len(header) - _TLV.size - _DIGEST_BYTES
    if end < _START.size or header[end : end + _TLV.size] != _TLV.pack(TYPE_SIGNATURE, _DIGEST_BYTES):
        raise UntrustedProxyError("a PROXY header is not signed")
    if not hmac.compare_digest(header[end + _TLV.size :], hmac.digest(key, header[:end], "sha256")):
        raise UntrustedProxyError("a PROXY header is signed with another secret")


def _has_tls(header: bytes, position: int) -> bool:
    """Go through the TLVs from ``position`` on."""
    tls = False
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
        position += length
    return tls
