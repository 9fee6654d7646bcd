"""A client's connection, from the accept until it is somebody else's."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, ClassVar

from socketcluster_wire.request_head import RequestHead

if TYPE_CHECKING:
    from socketcluster_balancer.splice import Splice
    from socketcluster_balancer.workers import Worker


class Client(abc.ABC):
    """A connection that belongs to the balancer."""

    __slots__ = ("data", "head", "tried", "wait_until", "wanted")

    secure: ClassVar[bool]
    """Did it come by TLS, which ends here?"""

    def __init__(self) -> None:
        self.data = b""
        """Everything read so far."""
        self.head: RequestHead | None = None
        """The first request, once its head has arrived."""
        self.tried: tuple[Worker, ...] = ()
        """The workers that could not take it over."""
        self.wait_until = 0.0
        """Loop time until which it waits for a worker; 0 if it never had to."""
        self.wanted: frozenset[str] | None = None
        """Names, ids and tags of the workers that the controller wants it to be given to; ``None``: any."""

    @abc.abstractmethod
    def addresses(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """Return its host and port, and those that it connected to.

        Raises:
            OSError: it has gone.
        """

    @abc.abstractmethod
    async def go_on_in(self, splice: Splice, beginning: bytes) -> None:
        """Give its connection to a splice, which sends the worker ``beginning`` first.

        Raises:
            OSError: it has gone; the splice is aborted.
        """
