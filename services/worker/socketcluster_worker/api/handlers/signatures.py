"""What the handlers of the server's own events are called with, for editors and type checkers.

A handler may take fewer arguments than there are: surplus ones are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, overload

from socketcluster_worker.api.sockets.socket import Socket

No: TypeAlias = Callable[[], Any]
Connected = TypeVar("Connected", bound=Callable[[Socket], Any] | No)
"""``connection(socket)``."""
Gone = TypeVar(
    "Gone", bound=Callable[[Socket, int, str], Any] | Callable[[Socket, int], Any] | Callable[[Socket], Any] | No
)
"""``disconnect(socket, code, reason)``."""
Claims = TypeVar("Claims", bound=Callable[[Socket, dict[str, Any]], Any] | Callable[[Socket], Any] | No)
"""``authenticate(socket, claims)``, ``deauthenticate(socket, claims)``."""
Destroyed = TypeVar("Destroyed", bound=Callable[[str], Any] | No)
"""``session_destroy(session_id)``."""
Renewed = TypeVar("Renewed", bound=Callable[[str, str], Any] | Callable[[str], Any] | No)
"""``session_renew(session_id, renewed_id)``."""
Failed = TypeVar("Failed", bound=Callable[[Exception, str], Any] | Callable[[Exception], Any] | No)
"""``error(error, where)``."""


class NamespaceEvents(Protocol):
    """``on`` and ``once`` of a namespace."""

    @overload
    def __call__(self, event: Literal["connection"]) -> Callable[[Connected], Connected]: ...
    @overload
    def __call__(self, event: Literal["connection"], handler: Connected) -> Connected: ...
    @overload
    def __call__(self, event: Literal["disconnect"]) -> Callable[[Gone], Gone]: ...
    @overload
    def __call__(self, event: Literal["disconnect"], handler: Gone) -> Gone: ...


class ServerEvents(Protocol):
    """``on`` and ``once`` of ``ws_server``."""

    @overload
    def __call__(self, event: Literal["connection"]) -> Callable[[Connected], Connected]: ...
    @overload
    def __call__(self, event: Literal["connection"], handler: Connected) -> Connected: ...
    @overload
    def __call__(self, event: Literal["disconnect"]) -> Callable[[Gone], Gone]: ...
    @overload
    def __call__(self, event: Literal["disconnect"], handler: Gone) -> Gone: ...
    @overload
    def __call__(self, event: Literal["authenticate", "deauthenticate"]) -> Callable[[Claims], Claims]: ...
    @overload
    def __call__(self, event: Literal["authenticate", "deauthenticate"], handler: Claims) -> Claims: ...
    @overload
    def __call__(self, event: Literal["session_destroy"]) -> Callable[[Destroyed], Destroyed]: ...
    @overload
    def __call__(self, event: Literal["session_destroy"], handler: Destroyed) -> Destroyed: ...
    @overload
    def __call__(self, event: Literal["session_renew"]) -> Callable[[Renewed], Renewed]: ...
    @overload
    def __call__(self, event: Literal["session_renew"], handler: Renewed) -> Renewed: ...
    @overload
    def __call__(self, event: Literal["error"]) -> Callable[[Failed], Failed]: ...
    @overload
    def __call__(self, event: Literal["error"], handler: Failed) -> Failed: ...
