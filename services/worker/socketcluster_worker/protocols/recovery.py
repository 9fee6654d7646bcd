"""Connection state recovery: a Socket.IO client that comes back takes up where it was.

https://socket.io/docs/v4/connection-state-recovery. A client is given a ticket (``pid``) and with each event its
offset; coming back with both, on whatever worker, it gets its id, rooms, data and session again, and what it missed. A
ticket's state is given to one connection, whose ticket it is from then on: that it is the same tells the client that it
has recovered. It belongs to the cookie of its session if the client keeps one: to whoever has the ticket alone, the
state is given only if its client had no cookie either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from socketcluster_store_client.messages import Position
from socketcluster_worker.api.position import read_position, write_position
from socketcluster_worker.api.sockets.broadcast_log import LoggedBroadcast
from socketcluster_worker.api.sockets.recovery_states import RecoveryState, RecoveryStates
from socketcluster_worker.api.sockets.socket import Socket


class Recovery:
    """What one socket recovers from, and with.

    Args:
        socket: the socket.
        states: those of its namespace.
    """

    def __init__(self, socket: Socket, states: RecoveryStates) -> None:
        self._socket = socket
        self._states = states
        self._start: Position | None = None
        self._state: RecoveryState | None = None
        self._shown: str | None = None  # the ticket that it recovers with
        self._saving = False
        self._was_connected = False

    async def resolve(self, pid: object, offset: object) -> None:
        """Make the socket the one that it was, if the client shows a ticket that is good."""
        socket = self._socket
        log = socket.namespace.broadcast_log
        state = await self._states.look(pid)
        if state is None or log is None or not self._belongs(state) or not socket.connected:
            return
        start = read_position(state["offset"])
        shown = read_position(offset)
        if shown is None or (start is not None and shown < start):  # what came before was never its own
            shown = start
        if shown is None:
            return
        await log.hear(shown)
        if log.since(shown) is None:
            return
        text = str(pid)
        state = await self._states.take(text)
        if state is None or not self._belongs(state) or not socket.connected:
            return
        self._start, self._shown = shown, text
        self._was_connected = state["connected"]
        socket.id, socket.data, socket.recovered = state["id"], state["data"], True
        socket.session = socket.namespace.sessions.get(state["session"])
        socket.recoveries = state["recoveries"] + 1
        socket.join(*state["rooms"])

    def _belongs(self, state: dict[str, Any]) -> bool:
        """Is a state this client's?"""
        socket = self._socket
        if state["namespace"] != socket.namespace.name:
            return False
        if socket.handshake.has_session:
            return bool(state["session"] == socket.session.id)
        return not state["has_cookie"]

    def missed(self) -> Sequence[LoggedBroadcast] | None:
        """Return what a socket that recovers missed until now; ``None``: that is not known any more."""
        log = self._socket.namespace.broadcast_log
        if not self._socket.recovered:
            return ()
        return None if log is None or self._start is None else log.since(self._start)

    def begin(self) -> str:
        """Begin to keep the socket's state; return the ticket for the client."""
        socket = self._socket
        if not socket.recovered and socket.namespace.broadcast_log is not None:
            self._start = socket.namespace.broadcast_log.latest
        self._state = self._states.new(self._shown)
        socket.is_recoverable = True
        socket.state_changed = self.save
        return self._state.ticket

    def took_place(self) -> None:
        """End the connection that the socket recovered from, wherever it still is."""
        if self._was_connected:
            self._socket.namespace.take_place(self._socket)

    def save(self) -> None:
        """Keep the state as it is at the end of this turn of the loop."""
        if self._state is not None and not self._saving:
            self._saving = True
            self._socket.namespace.run_for(self._socket, self._save, (self._state,), "keeping a client's state")

    async def _save(self, kept: RecoveryState) -> None:
        await asyncio.sleep(0)
        self._saving = False
        socket = self._socket
        state = {
            "id": socket.id,
            "namespace": socket.namespace.name,
            "session": socket.session.id,
            "has_cookie": socket.session.has_cookie,
            "rooms": list(socket.joined),
            "data": socket.data,
            "offset": None if self._start is None else write_position(self._start),
            "connected": socket.connected,
            "recoveries": socket.recoveries,
        }
        await kept.keep(state, connected=socket.connected)

    def forget(self) -> None:
        """Drop the state of a client that is not to recover."""
        state, self._state = self._state, None
        if state is not None:
            self._socket.namespace.run_for(self._socket, state.drop, (), "dropping a client's state")

    def leave(self) -> None:
        """Leave the state to the socket that has recovered."""
        state, self._state = self._state, None
        if state is not None:
            state.leave()
