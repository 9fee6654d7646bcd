"""The errors of the balancer.

::

    BalancerError
    ├── WorkerUnreachableError   a worker cannot be given a client now: another one may
    │   └── NoHandoffError       its handoff socket is not on this host: bytes can be relayed instead
    └── NoDescriptorError        the balancer itself has no descriptor for a connection to a worker
    RefusedError                 raised by a controller's middleware: the client is answered with its status

What ends the service is in ``socketcluster_runtime.errors``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus

_FIELD_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_MAX_REASON = 4096
_MAX_HEADERS = 8192
_OWN_FIELDS = {"connection", "content-length", "content-type", "date", "transfer-encoding"}


class BalancerError(Exception):
    """What the balancer's own parts tell each other."""


class WorkerUnreachableError(BalancerError):
    """A worker cannot be given a client now."""


class NoHandoffError(WorkerUnreachableError):
    """The worker's handoff socket is not on this host, or closed to this user."""


class NoDescriptorError(BalancerError):
    """The balancer has no descriptor left for a connection to a worker."""


class RefusedError(Exception):
    """What middleware raises to refuse a client: the client is answered, and its connection closed.

    Attributes:
        status: of HTTP, 300 to 599 (RFC 9110, section 15).
        reason: the answer's body, as text of at most 4,096 characters; by default what the status is called.
        headers: further fields of the answer, such as ``Retry-After`` or ``Location``, of at most 8,192 characters.

    Raises:
        ValueError: the status is none of those, something is too long, or a header cannot be sent or is one that the
            answer has anyway.
    """

    def __init__(self, status: int = 403, reason: str = "", *, headers: Mapping[str, str] | None = None) -> None:
        if isinstance(status, bool) or not isinstance(status, int) or not 300 <= status <= 599:
            raise ValueError(f"a client is refused with a status from 300 to 599, not {status!r}")
        self.status = int(status)
        self.reason = str(reason) or phrase_of(self.status)
        self.headers = dict(headers or {})
        size = sum(len(name) + len(value) for name, value in self.headers.items())
        if len(self.reason) > _MAX_REASON or size > _MAX_HEADERS:
            raise ValueError("the reason or the headers are too long")
        for name, value in self.headers.items():
            if not _FIELD_NAME.fullmatch(name) or not _FIELD_VALUE.fullmatch(value):
                raise ValueError(f"{name!r}: {value!r} is no header field")
            if name.lower() in _OWN_FIELDS:
                raise ValueError(f"the header field {name} is not yours to set")
        super().__init__(f"{self.status} {self.reason}")


def phrase_of(status: int) -> str:
    """Return what a status is called."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:  # a number without a name
        return "Refused"
