"""SocketCluster as local processes: the class :class:`SocketCluster` and the command ``socketcluster``.

What is in ``__all__`` may be imported from outside.
"""

from socketcluster.errors import (
    ChildFailedError,
    ClusterError,
    DataInUseError,
    ListenError,
    OptionError,
    PortInUseError,
)
from socketcluster.launcher import SocketCluster

__all__ = [
    "ChildFailedError",
    "ClusterError",
    "DataInUseError",
    "ListenError",
    "OptionError",
    "PortInUseError",
    "SocketCluster",
]
