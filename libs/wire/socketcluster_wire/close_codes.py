"""Why a connection ends: every close code that this server sends or gives meaning to, in one place.

The ranges say what a client may do:

========== ============================================================ =================
range      meaning                                                      reconnect?
========== ============================================================ =================
1000       normal: one side was done                                    no
1001, 1012 this server goes away; another one is there                  at once
1002..1015 RFC 6455, section 7.4.1, and the IANA registry               with back-off
4000..4099 SocketCluster's, with the meanings that its clients give     with back-off
4100..4499 this server's                                                with back-off
4500..4999 for good: SocketCluster's clients stay away                  no
========== ============================================================ =================
"""

from __future__ import annotations

from enum import IntEnum


class CloseCode(IntEnum):
    """Close codes by name."""

    NORMAL = 1000
    """The purpose of the connection is fulfilled."""
    GOING_AWAY = 1001
    """The server stops, or the page was left."""
    PROTOCOL_ERROR = 1002
    """The peer broke the WebSocket protocol."""
    UNSUPPORTED_DATA = 1003
    """The peer sent a kind of message that this endpoint does not take."""
    NO_STATUS = 1005
    """Never sent: the peer closed without a code."""
    ABNORMAL = 1006
    """Never sent: the connection broke without a close frame."""
    INVALID_DATA = 1007
    """A message was not what its type promises: not UTF-8, not JSON, not a SocketCluster message."""
    POLICY_VIOLATION = 1008
    """The peer broke a rule of this server's, such as a limit."""
    TOO_BIG = 1009
    """A message exceeds the limit."""
    INTERNAL_ERROR = 1011
    """The server failed."""
    SERVICE_RESTART = 1012
    """This worker is being replaced; reconnect at once."""
    PING_TIMEOUT = 4001
    """The client did not answer in time; 4000 is the client's, for a server whose pings stay away."""
    HANDSHAKE_TIMEOUT = 4005
    """The client did not send ``#handshake`` in time."""
    HANDSHAKE_REFUSED = 4008
    """A middleware refused the handshake; SocketCluster's own meaning of 4008."""
    TOO_SLOW = 4008
    """The client did not read what was sent to it, and too much was waiting; the reason tells it from a refusal."""
    NO_HANDSHAKE = 4009
    """The client sent something else before its handshake: SocketCluster's ``#handshake``, Socket.IO's CONNECT."""
    REPLACED = 4100
    """Another connection of the same client recovered, and took this one's place."""
    SESSION_OVER = 4101
    """The client's session was destroyed, or renewed unheard; a client that comes back has a new session."""


def may_be_sent(code: int) -> bool:
    """Say whether ``code`` may stand in a close frame (RFC 6455, section 7.4)."""
    return (1000 <= code <= 1014 and code not in (1004, 1005, 1006)) or 3000 <= code <= 4999
