"""What malformed bytes raise: nothing else comes out of a decoder, whatever it is fed.

::

    WireError
    ├── MalformedPacketError    an Engine.IO packet or payload, or a Socket.IO packet
    ├── PacketTooLargeError     a Socket.IO packet and its attachments are larger than the limit
    ├── MalformedMessageError   a SocketCluster message
    ├── InflateError            compressed bytes of a WebSocket message
    │   └── InflatedTooBigError     they inflate to more than the limit
    ├── MalformedHandoffError   a packet of a descriptor's handover
    ├── ProxyError              a PROXY protocol header
    │   ├── MalformedProxyError     it cannot be read
    │   └── UntrustedProxyError     its sender neither knows the cluster's secret nor is trusted
    └── RequestHeadError        the head of a connection's first request
        ├── MalformedHeadError      it is not one of HTTP/1
        └── HeadTooLargeError       it is larger than the limit
"""

from __future__ import annotations


class WireError(Exception):
    """The peer sent what the protocol does not allow."""


class MalformedPacketError(WireError):
    """An Engine.IO packet or payload, or a Socket.IO packet, that cannot be read."""


class PacketTooLargeError(WireError):
    """A Socket.IO packet is larger than the limit, its attachments included."""


class MalformedMessageError(WireError):
    """A SocketCluster message that cannot be read."""


class InflateError(WireError):
    """Compressed bytes of a WebSocket message that cannot be inflated."""


class InflatedTooBigError(InflateError):
    """They inflate to more than the limit."""


class MalformedHandoffError(WireError):
    """A packet of a descriptor's handover that cannot be read."""


class ProxyError(WireError):
    """A PROXY protocol header that is not believed."""


class MalformedProxyError(ProxyError):
    """There is no header, or it contradicts itself."""


class UntrustedProxyError(ProxyError):
    """The header's sender neither knows the cluster's secret nor is trusted."""


class RequestHeadError(WireError):
    """The head of a connection's first request cannot be used."""


class MalformedHeadError(RequestHeadError):
    """These bytes begin no request of HTTP/1."""


class HeadTooLargeError(RequestHeadError):
    """The head is larger than the limit."""
