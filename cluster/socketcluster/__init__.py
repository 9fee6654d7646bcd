"""SocketCluster as local processes: the class :class:`SocketCluster` and the command ``socketcluster``."""

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
