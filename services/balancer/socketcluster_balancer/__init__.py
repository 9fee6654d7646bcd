"""SocketCluster's balancer: accepts clients and hands each one to a worker.

What is in ``__all__`` is for balancer controllers; each name is imported when it is asked for. The launcher imports
``settings``.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from socketcluster_balancer.api import Balancer, Request, WorkerInfo
    from socketcluster_balancer.errors import RefusedError
else:
    from socketcluster_runtime.lazy import names_of

    __getattr__, __dir__ = names_of(
        __name__,
        {
            "socketcluster_balancer.api": ["Balancer", "Request", "WorkerInfo"],
            "socketcluster_balancer.errors": ["RefusedError"],
        },
    )

__all__ = ["Balancer", "RefusedError", "Request", "WorkerInfo"]
