"""What a balancer's controller has to do with: ``run(balancer)``, and the requests that its middleware is shown."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias, TypeVar, get_args
from urllib.parse import unquote

from socketcluster_runtime.session_cookies import SessionCookies
from socketcluster_runtime.settings import did_you_mean
from socketcluster_wire.request_head import RequestHead, Target

Stage: TypeAlias = Literal["request", "upgrade"]
"""``upgrade``: the first request asks for a WebSocket; ``request``: any other."""

STAGES: tuple[Stage, ...] = get_args(Stage)


class Request:
    """The first request of a connection, before a worker is chosen; names as those of ``socket.handshake``.

    Attributes:
        address: the client's IP address and port.
        secure: did the client come by TLS?
        worker: set it to have the client given to the worker of that name or id, or to one of those with that tag; to
            several of those, and it is one of all these. ``None``: any worker. If none of them is there, the client
            waits for one, and is answered 503 in the end.
    """

    def __init__(
        self,
        head: RequestHead,
        address: tuple[str, int],
        cookies: SessionCookies,
        *,
        secure: bool,
        host: str | None = None,
    ) -> None:
        self._head = head
        self._host = host
        self._cookies = cookies
        self.address = address
        self.secure = secure
        self.worker: str | Iterable[str] | None = None

    @property
    def method(self) -> str:
        """``GET``, for example."""
        return self._head.method

    @cached_property
    def path(self) -> str:
        """Without query and fragment, and with what was percent-encoded decoded: what the worker chooses by."""
        return unquote(self._head.path)

    @cached_property
    def query(self) -> Mapping[str, str]:
        """The parameters of the query; of several of one name the last one."""
        return {name: values[-1] for name, values in self.query_all.items()}

    @cached_property
    def query_all(self) -> Mapping[str, tuple[str, ...]]:
        """As ``query``, with all values of each name, in their order."""
        return Target.parse(self._head.target).parameters()

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """Names in lower case; of several of one name, joined by commas.

        ``host`` is the one that a proxy in front tells, else the target's, if that has one.
        """
        host = Target.parse(self._head.target).authority if self._host is None else self._host
        return self._head.headers() | ({} if host is None else {"host": host})

    @cached_property
    def session_id(self) -> str | None:
        """The session that the cookie names, if this cluster signed it; ``None`` of a browser that was never here."""
        return self._cookies.read(self.headers.get("cookie", ""), secure=self.secure)


Middleware: TypeAlias = Callable[[Request], Awaitable[None] | None]
M = TypeVar("M", bound=Middleware)


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker that may be given clients."""

    id: str
    """Eight characters, the same after a restart."""
    name: str
    """For people."""
    tags: tuple[str, ...]
    """Its option of that name."""
    connections: int
    """As it last told, some times a second."""


class Balancer:
    """What ``run(balancer)`` is given: one balancer process; each runs the controller once.

    Attributes:
        name: for people.
        app_name: the option of that name.
    """

    def __init__(self, name: str, app_name: str) -> None:
        self.name = name
        self.app_name = app_name
        self.by_stage: dict[Stage, tuple[Middleware, ...]] = dict.fromkeys(STAGES, ())
        """Who is asked, by stage, in the order in which it was added."""
        self._look: Callable[[], tuple[WorkerInfo, ...]] = tuple

    @property
    def workers(self) -> tuple[WorkerInfo, ...]:
        """The workers that may be given clients now; none yet while ``run`` is running."""
        return self._look()

    def look_by(self, look: Callable[[], tuple[WorkerInfo, ...]]) -> None:
        """Have ``workers`` answered by ``look``."""
        self._look = look

    def middleware(self, stage: Stage) -> Callable[[M], M]:
        """Decorate a function, plain or async, that is shown the first request of each connection.

        It lets the client in by returning nothing, perhaps after setting ``request.worker``; it refuses the client by
        raising ``RefusedError``. If it raises anything else, or returns something, the client is answered 500; if it
        takes longer than ``controller_timeout``, 503.

        Args:
            stage: ``upgrade``, when the request asks for a WebSocket, or ``request``, when it does not.

        Raises:
            ValueError: there is no such stage.
            TypeError: what is decorated is no function of a request.
        """
        if stage not in STAGES:
            raise ValueError(f"there is no stage {stage!r}, only {', '.join(STAGES)}{did_you_mean(str(stage), STAGES)}")

        def decorate(function: M) -> M:
            if not callable(function) or inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
                raise TypeError(f"middleware is a function, plain or async, not {function!r}")
            try:
                inspect.signature(function, follow_wrapped=False).bind(None)
            except TypeError as error:
                raise TypeError(f"middleware is called with the request alone, and {function!r}: {error}") from None
            except ValueError:  # a builtin may not say what it takes
                pass
            self.by_stage[stage] = (*self.by_stage[stage], function)
            return function

        return decorate


def stages_of(head: RequestHead) -> tuple[Stage, ...]:
    """Return the stages of a request; both, if it is written so that a worker may take it for either."""
    upgrade = head.header("upgrade")
    if upgrade is None:
        return ("request",)
    headers = head.headers()
    tokens = [token.strip().lower() for token in headers.get("connection", "").split(",")]
    connections = head.fields.lower().count(b"\nconnection:")
    if headers["upgrade"].lower() == "websocket" and "upgrade" in tokens and connections == 1 and head.method == "GET":
        return ("upgrade",)
    return STAGES if "websocket" in headers["upgrade"].lower() else ("request",)
