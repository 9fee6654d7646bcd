"""SocketCluster's worker: serves clients and runs the user's controller.

A controller imports from here whatever it names; each name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from socketcluster_wire.close_codes import CloseCode
    from socketcluster_worker.api.channels.channel import Channel
    from socketcluster_worker.api.channels.exchange import Exchange
    from socketcluster_worker.api.handlers.client_handlers import Handlers
    from socketcluster_worker.api.http_server import Request
    from socketcluster_worker.api.sockets.action import Action
    from socketcluster_worker.api.sockets.namespace import Namespace
    from socketcluster_worker.api.sockets.session import Session
    from socketcluster_worker.api.sockets.socket import Socket
    from socketcluster_worker.api.worker import Worker
    from socketcluster_worker.errors import EventError

__all__ = [
    "Action",
    "Channel",
    "CloseCode",
    "EventError",
    "Exchange",
    "Handlers",
    "Namespace",
    "Request",
    "Session",
    "Socket",
    "Worker",
]

_HOMES = {
    "Action": "socketcluster_worker.api.sockets.action",
    "Channel": "socketcluster_worker.api.channels.channel",
    "CloseCode": "socketcluster_wire.close_codes",
    "EventError": "socketcluster_worker.errors",
    "Exchange": "socketcluster_worker.api.channels.exchange",
    "Handlers": "socketcluster_worker.api.handlers.client_handlers",
    "Namespace": "socketcluster_worker.api.sockets.namespace",
    "Request": "socketcluster_worker.api.http_server",
    "Session": "socketcluster_worker.api.sockets.session",
    "Socket": "socketcluster_worker.api.sockets.socket",
    "Worker": "socketcluster_worker.api.worker",
}


def __getattr__(name: str) -> Any:
    """Load a name that controllers use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
