"""The errors of the launcher; the text of each is one line for its user.

::

    ClusterError
    ├── OptionError         an option is unknown or malformed; nothing was started
    ├── DataInUseError      another cluster uses the data folder; nothing was started
    ├── ListenError         the client port cannot be listened on; nothing was started
    │   └── PortInUseError  because somebody else does
    └── ChildFailedError    a child process said that no restart will help; everything was stopped
"""

from __future__ import annotations


class ClusterError(Exception):
    """Why the cluster does not run."""

    exit_status = 1


class OptionError(ClusterError):
    """An option is unknown or malformed, or a file that an option names cannot be used."""

    exit_status = 2


class DataInUseError(ClusterError):
    """Another cluster of the same application uses the data folder."""


class ListenError(ClusterError):
    """The client port cannot be listened on."""


class PortInUseError(ListenError):
    """Somebody else listens on the client port."""


class ChildFailedError(ClusterError):
    """A child process ended with a status that says that no restart will help."""
