"""What lies between a transport and a message protocol: a connection that carries messages, and who receives them."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping
from functools import lru_cache
from typing import Any, Literal, Protocol, Self, TypeAlias
from urllib.parse import unquote

from socketcluster_wire.request_head import Target

MAX_CACHED = 128
"""Characters of a target that is worth remembering: those that many clients have in common are shorter."""
_LINE_ENDS = re.compile(r"[\r\n]+")
_FIELD = re.compile(r"([^:\r\n]+):[ \t]*(.*?)[ \t]*\r?\n")


class _Asked:
    """What a request's target says, of all requests that have the same one."""

    __slots__ = ("authority", "path", "query", "query_all")

    def __init__(self, target: str) -> None:
        asked = Target.parse(target)
        query = asked.parameters()
        self.authority = asked.authority
        self.path = unquote(asked.path)
        self.query_all = query
        self.query = {name: values[-1] for name, values in query.items()}


_asked_of_all = lru_cache(maxsize=256)(_Asked)


class Handshake:
    """The HTTP request with which a client connected.

    Its header fields are kept as they came, a fifth of what they take once they are read.

    Attributes:
        address: the client's IP address and port.
        secure: did the client come by TLS?
        auth: what the client sent with its message protocol's handshake.
        has_session: did the client bring the cookie of its session?
    """

    __slots__ = ("_asked", "_headers", "_raw", "address", "auth", "has_session", "secure")

    def __init__(
        self,
        target: str,
        headers: Mapping[str, str],
        address: tuple[str, int] | None,
        *,
        secure: bool,
        raw: bytes = b"",
    ) -> None:
        """Make it of what was read.

        Args:
            target: path and query, or a URL.
            headers: as the attribute.
            address: the client's IP address and port.
            secure: did the client come by TLS?
            raw: the lines of the header fields, if they are at hand.
        """
        self._asked = _asked_of_all(target) if len(target) <= MAX_CACHED else _Asked(target)
        self._headers: Mapping[str, str] | None = headers
        self._raw = raw
        self.address = address
        self.secure = secure
        self.auth: Any = None
        self.has_session = False

    @classmethod
    def parse(
        cls, target: str, headers: list[tuple[bytes, bytes]], address: tuple[str, int] | None, *, secure: bool
    ) -> Self:
        """Make it of a request's target and headers."""
        fields = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers]
        made = cls(target, joined(fields), address, secure=secure)
        if made._asked.authority is not None:
            made._headers = {**made.headers, "host": made._asked.authority}
        return made

    @property
    def path(self) -> str:
        """The target's path, decoded."""
        return self._asked.path

    @property
    def query(self) -> Mapping[str, str]:
        """The parameters of the query, those without a value too; of several of one name the last one."""
        return self._asked.query.copy()  # the other clients have it, too

    @property
    def query_all(self) -> Mapping[str, tuple[str, ...]]:
        """As ``query``, with all values of each name, in their order."""
        return self._asked.query_all.copy()

    def parameter(self, name: str) -> str | None:
        """Return the last parameter of that name in the query."""
        return self._asked.query.get(name)

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in lower case; of several of one name, joined by commas. Read anew each time on an open connection."""
        return read_fields(self._raw) if self._headers is None else self._headers

    def pack(self) -> None:
        """Keep the header fields in as little memory as they came in, from now on."""
        if self._headers is not None:
            if not self._raw:
                lines = (f"{name}:{_LINE_ENDS.sub(' ', value)}\r\n" for name, value in self._headers.items())
                self._raw = "".join(lines).encode("latin-1")
            self._headers = None

    def with_auth(self, auth: Any) -> Handshake:
        """Return the same request, with what the client sent in its message protocol's handshake."""
        if auth is None:
            return self
        made = object.__new__(Handshake)
        made._asked, made._headers, made._raw = self._asked, self._headers, self._raw
        made.address, made.secure, made.has_session = self.address, self.secure, self.has_session
        made.auth = auth
        return made

    def __repr__(self) -> str:
        return f"<Handshake {self.path} {self.address}>"


def read_fields(raw: bytes) -> dict[str, str]:
    """Read the lines of header fields, of which each one is in order."""
    return joined([(name.lower(), value) for name, value in _FIELD.findall(raw.decode("latin-1"))])


def joined(fields: list[tuple[str, str]]) -> dict[str, str]:
    """Return header fields by name, those of one name joined."""
    found = dict(fields)
    if len(found) < len(fields):
        found.clear()
        for name, value in fields:
            separator = "; " if name == "cookie" else ", "
            found[name] = f"{found[name]}{separator}{value}" if name in found else value
    return found


SlowConsumer: TypeAlias = Literal["disconnect", "drop_oldest", "latest_only"]
"""What becomes of a message for a client that does not read, once too much waits for it.

``disconnect``: it may not be lost; the client is disconnected. ``drop_oldest``: the oldest that may be lost is dropped.
``latest_only``: as that, and of those with one key (a channel's name, say) only the newest ever waits.
"""


class Receiver(Protocol):
    """Who gets what arrives on a connection."""

    def on_message(self, message: str | bytes) -> None:
        """Take a message."""

    def on_close(self, code: int, reason: str) -> None:
        """Learn that the connection has ended; called exactly once."""


class _Nobody:
    """Receives nothing."""

    def on_message(self, message: str | bytes) -> None:
        """Forget it."""

    def on_close(self, code: int, reason: str) -> None:
        """Forget it."""


NOBODY: Receiver = _Nobody()
"""The receiver of a connection that has ended: what it had is freed at once then, as no two hold each other."""


class Connection(Protocol):
    """Carries messages to one client, in order, until it is closed."""

    receiver: Receiver

    @property
    def transport_name(self) -> str:
        """``"websocket"`` or ``"polling"``."""

    @property
    def writable(self) -> bool:
        """Is nothing waiting to be sent?"""

    @property
    def ended_by_client(self) -> bool:
        """Has the client ended it in good order, so that what it had sent before is still to be taken?"""

    @property
    def held(self) -> bool:
        """Is nothing read from the client at the moment? Then a heartbeat's answer may be on its way for long."""

    def pause_reading(self) -> None:
        """Read nothing more until ``resume_reading`` was called as often.

        What has been read already is not given to the receiver either, but for what comes by the same call.
        """

    def resume_reading(self) -> None:
        """Take back one ``pause_reading``; not to be called after the end of the connection."""

    def send_text(self, text: bytes, policy: SlowConsumer | None = None, key: Hashable = None) -> None:
        """Send a text message; after the end of the connection nothing happens.

        Args:
            text: UTF-8.
            policy: what becomes of it if the client reads too slowly; by default what the options say.
            key: of the messages with ``latest_only`` and one key, only the newest waits.
        """

    def send_binary(self, data: bytes, policy: SlowConsumer | None = None, key: Hashable = None) -> None:
        """Send a binary message; see ``send_text``."""

    def send_outgoing(self, outgoing: Outgoing, policy: SlowConsumer | None = None, key: Hashable = None) -> None:
        """Send a text message that goes to other clients too; see ``send_text``."""

    def share(self, outgoing: Outgoing) -> tuple[Line, bytes] | None:
        """Return the straight way to the client, and what goes there for a message that goes to other clients too.

        ``None`` where there is none: by polling, or where messages are compressed.
        """

    def close(self, code: int, reason: str = "") -> None:
        """End the connection; ``on_close`` of the receiver follows."""


class Line(Protocol):
    """Takes finished frames for one client; those of its kind take the very same bytes."""

    @property
    def writable(self) -> bool:
        """Is nothing waiting to be sent?"""

    def send_frame(self, frame: bytes) -> bool:
        """Send a frame if nothing waits and the connection is open; return whether that is done."""


class Outgoing:
    """A text message on its way to many clients: what each kind of transport makes of it is made once."""

    __slots__ = ("_forms", "text")

    def __init__(self, text: bytes) -> None:
        self.text = text
        self._forms: dict[Callable[[bytes], bytes], bytes] = {}

    def form(self, make: Callable[[bytes], bytes]) -> bytes:
        """Return ``make(text)``, remembered."""
        made = self._forms.get(make)
        if made is None:
            made = self._forms[make] = make(self.text)
        return made
