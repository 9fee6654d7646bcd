"""The errors of the runtime library.

::

    ServiceError                what ends a service, with a line for its user
    ├── SettingsError           a setting is unknown, malformed or missing: no restart will help
    └── AddressInUseError       somebody else listens there
    LinkError                   what a caller of the store link may meet
    ├── StoreUnavailableError   no store answered within ``store_timeout``
    └── OperationError          the store answered: it will not carry the operation out
        ├── InvalidOperationError   the operation can never succeed as it stands
        ├── WrongTypeError          a value of another type stands at the key chain
        └── TooLargeError           a value, key chain or session exceeds its limit
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


class LinkError(Exception):
    """An operation on the store did not succeed."""


class StoreUnavailableError(LinkError, TimeoutError):
    """No store answered within ``store_timeout`` seconds; the operation may or may not have been applied."""


class OperationError(LinkError):
    """The store answered that it will not carry the operation out."""


class InvalidOperationError(OperationError):
    """The operation can never succeed as it stands."""


class WrongTypeError(OperationError):
    """A value of another type stands at the key chain."""


class TooLargeError(OperationError):
    """A value, key chain or session exceeds its limit."""
