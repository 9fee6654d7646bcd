"""What is different in version 1 of SocketCluster's protocol, which clients before version 15 speak.

Its pings are texts, a handshake without ``cid`` has no answer, ``#disconnect`` goes ahead of a close frame, and all
events whose names begin with ``#`` are the protocol's own.
"""

from __future__ import annotations

from socketcluster_wire import socketcluster as wire
from socketcluster_wire.close_codes import CloseCode
from socketcluster_worker.protocols.socketcluster.peer import SocketClusterPeer


class SocketClusterV1Peer(SocketClusterPeer):
    """One connection that speaks version 1."""

    PING = wire.PING_V1
    PONG = wire.PONG_V1
    ANSWERS_WITHOUT_CID = False
    RESERVES_ALL = True

    def _end(self, code: int, reason: str) -> None:
        if code == CloseCode.NORMAL or code >= 3000:  # clients repeat the code, and browsers accept no other from them
            self.answer(wire.encode_event(wire.DISCONNECT, {"code": code, "data": reason}))
        super()._end(code, reason)
