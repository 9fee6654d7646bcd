"""The errors of the runtime library.

::

    ServiceError                what ends a service, with a line for its user
    ├── SettingsError           a setting is unknown, malformed or missing: no restart will help
    ├── AddressInUseError       somebody else listens there
    └── ControllerError         a controller is missing, has no ``run``, or raised
"""

from __future__ import annotations

EX_CONFIG = 78
"""Exit status of a service that no restart will mend (sysexits.h)."""


class ServiceError(Exception):
    """Ends a service; its text is logged as one line."""

    exit_status = 1


class SettingsError(ServiceError):
    """A setting is unknown, malformed or missing."""

    exit_status = EX_CONFIG


class AddressInUseError(ServiceError):
    """The address that a service was told to listen on is taken."""

    exit_status = EX_CONFIG


class ControllerError(ServiceError):
    """A controller is missing, has no ``run``, or raised; the text names file and line."""
