"""SocketCluster as local processes: the class :class:`SocketCluster` and the command ``socketcluster``.

What is in ``__all__`` may be imported from outside; each name is imported when it is asked for.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from socketcluster.errors import (
        ChildFailedError,
        ClusterError,
        DataInUseError,
        ListenError,
        OptionError,
        PortInUseError,
    )
    from socketcluster.launcher import SocketCluster
    from socketcluster.options import Options, ProtocolOptions
else:
    from socketcluster_runtime.lazy import names_of

    __getattr__, __dir__ = names_of(
        __name__,
        {
            "socketcluster.errors": [
                "ChildFailedError",
                "ClusterError",
                "DataInUseError",
                "ListenError",
                "OptionError",
                "PortInUseError",
            ],
            "socketcluster.launcher": ["SocketCluster"],
            "socketcluster.options": ["Options", "ProtocolOptions"],
        },
    )

__all__ = [
    "ChildFailedError",
    "ClusterError",
    "DataInUseError",
    "ListenError",
    "OptionError",
    "Options",
    "PortInUseError",
    "ProtocolOptions",
    "SocketCluster",
]
