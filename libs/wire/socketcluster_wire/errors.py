"""What malformed bytes raise: nothing else comes out of a decoder, whatever it is fed.

::

    WireError
    ├── MalformedPacketError    an Engine.IO packet or payload
    └── MalformedMessageError   a SocketCluster message
"""

from __future__ import annotations


class WireError(Exception):
    """The peer sent what the protocol does not allow."""


class MalformedPacketError(WireError):
    """An Engine.IO packet or payload that cannot be read."""


class MalformedMessageError(WireError):
    """A SocketCluster message that cannot be read."""
