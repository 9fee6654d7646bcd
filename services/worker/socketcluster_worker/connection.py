"""What lies between a transport and a message protocol: a connection that carries messages, and who receives them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias
from urllib.parse import unquote

from socketcluster_wire.request_head import Target


@dataclass(frozen=True, slots=True)
class Handshake:
    """The HTTP request with which a client connected."""

    path: str
    query: Mapping[str, str]
    """The parameters of the query, those without a value too; of several of one name the last one."""
    headers: Mapping[str, str]
    """Names in lower case; of several of one name, joined by commas."""
    address: tuple[str, int] | None
    """The client's IP address and port."""
    secure: bool
    """Did the client come by TLS?"""
    auth: Any = None
    """What the client sent with its message protocol's handshake."""
    query_all: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """As ``query``, with all values of each name, in their order."""
    has_session: bool = False
    """Did the client bring the cookie of its session?"""

    @classmethod
    def parse(
        cls, target: str, headers: list[tuple[bytes, bytes]], address: tuple[str, int] | None, *, secure: bool
    ) -> Handshake:
        """Make it of a request's target and headers."""
        asked = Target.parse(target)
        query = asked.parameters()
        collected: dict[str, list[str]] = {}
        for raw_name, raw_value in headers:
            collected.setdefault(raw_name.decode("latin-1").lower(), []).append(raw_value.decode("latin-1"))
        joined = {name: ("; " if name == "cookie" else ", ").join(values) for name, values in collected.items()}
        if asked.authority is not None:
            joined["host"] = asked.authority
        last = {name: values[-1] for name, values in query.items()}
        return cls(unquote(asked.path), last, joined, address, secure, query_all=query)


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

    def close(self, code: int, reason: str = "") -> None:
        """End the connection; ``on_close`` of the receiver follows."""


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
