"""Names of events that only the message protocols themselves may send, whatever a client speaks."""

from __future__ import annotations

from socketcluster_wire import socketcluster, socketio

RESERVED_EVENTS = socketio.RESERVED_EVENTS | socketcluster.RESERVED
"""Those of all protocols: one controller serves them all."""
