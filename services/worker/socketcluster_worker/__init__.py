"""SocketCluster's worker: serves clients and runs the user's controller.

What is in ``__all__`` is for controllers; each name is imported when it is asked for. The launcher imports
``settings``.
"""

from typing import TYPE_CHECKING

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
else:
    from socketcluster_runtime.lazy import names_of

    __getattr__, __dir__ = names_of(
        __name__,
        {
            "socketcluster_wire.close_codes": ["CloseCode"],
            "socketcluster_worker.api.channels.channel": ["Channel"],
            "socketcluster_worker.api.channels.exchange": ["Exchange"],
            "socketcluster_worker.api.handlers.client_handlers": ["Handlers"],
            "socketcluster_worker.api.http_server": ["Request"],
            "socketcluster_worker.api.sockets.action": ["Action"],
            "socketcluster_worker.api.sockets.namespace": ["Namespace"],
            "socketcluster_worker.api.sockets.session": ["Session"],
            "socketcluster_worker.api.sockets.socket": ["Socket"],
            "socketcluster_worker.api.worker": ["Worker"],
            "socketcluster_worker.errors": ["EventError"],
        },
    )

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
