"""The receiver of a WebSocket that carries an Engine.IO session, or is about to."""

from __future__ import annotations

from socketcluster_worker.transport.engineio.engine import MESSAGE, EngineSession
from socketcluster_worker.transport.websocket import WebSocket

_MESSAGE_TYPE = MESSAGE.decode()


class EngineWebSocket:
    """The receiver of a WebSocket that belongs to an Engine.IO session."""

    __slots__ = ("_session", "_websocket")

    def __init__(self, websocket: WebSocket, session: EngineSession) -> None:
        self._websocket = websocket
        self._session = session

    def on_message(self, message: str | bytes) -> None:
        """Pass a message on; nearly all are text messages of an open session, and go the short way."""
        session = self._session
        if type(message) is str and message[:1] == _MESSAGE_TYPE and session.websocket is self._websocket:
            if not session.closed:
                session.receiver.on_message(message[1:])
            return
        session.from_websocket(self._websocket, message)

    def on_close(self, code: int, reason: str) -> None:
        """Pass the end on."""
        self._session.websocket_closed(self._websocket, code, reason)
