"""What clients of each protocol say, and what they make of what a server says.

A text that is sent begins with ``MARK`` and the time at which it was due, so that whoever gets it knows how long it
took, whatever became of the message around it.
"""

from __future__ import annotations

import abc
import json
from typing import Any, Protocol

import msgspec

from socketcluster.bench import plan as plans
from socketcluster.bench.plan import Plan

MARK = b"bench|"
JOIN, PUBLISH = ":join", ":publish"
"""What the names of a controller's events for broadcasts end with, after the event's."""


class Said(Protocol):
    """Who is told what a server said; a client, for its dialect."""

    def send(self, payload: bytes) -> None:
        """Send a text."""

    def ready(self) -> None:
        """Learn that the server has let the client in."""

    def refused(self, reason: str) -> None:
        """Learn that it has not, or has thrown it out."""

    def answered(self, number: int | None, error: str = "") -> None:
        """Learn that a message has its answer, the oldest one if it has no number."""

    def delivered(self, payload: bytes) -> None:
        """Get a message that may be a broadcast."""


def text_of(due: int, size: int) -> str:
    """Return a message's text, of so many bytes if that is enough for what it begins with."""
    return f"{MARK.decode()}{due}|".ljust(size, "x")


def due_of(payload: bytes) -> int | None:
    """Return when a text that a message carries was due; ``None``: it carries none of ours."""
    start = payload.find(MARK)
    if start < 0:
        return None
    start += len(MARK)
    digits = payload[start : payload.find(b"|", start)]
    return int(digits) if digits.isdigit() else None


class Dialect(abc.ABC):
    """One protocol; without state, for all clients.

    Args:
        plan: what is done.
    """

    opening: tuple[bytes, ...] = ()
    """What a client sends first."""
    joins = True
    """Does a member have to say that it is one?"""
    acknowledges_publications = True

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def opened(self, client: Said) -> None:  # noqa: B027  # most have nothing to do
        """Go on after the WebSocket is open."""

    @abc.abstractmethod
    def take(self, client: Said, payload: bytes) -> None:
        """Take a message from the server."""

    @abc.abstractmethod
    def call(self, number: int, text: str) -> bytes:
        """Return a message that is to be answered."""

    @abc.abstractmethod
    def join(self, number: int) -> bytes:
        """Return what makes the client a member; it is to be answered."""

    @abc.abstractmethod
    def publish(self, number: int, text: str) -> bytes:
        """Return what all members are to get."""


class SocketCluster(Dialect):
    """SocketCluster's protocol, version 2."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        auth = json.loads(plan.auth) if plan.auth else None
        data = auth if isinstance(auth, dict) else {"authToken": auth}
        self.opening = (_json({"event": "#handshake", "data": {"authToken": None, **data}, "cid": 1}),)
        self._channel = json.dumps(plan.channel)
        # published to a channel that nobody listens to, so that the answer is all that comes
        self._call_channel = json.dumps(f"{plan.channel}:nobody")
        self._event = json.dumps(plan.event_name)

    def take(self, client: Said, payload: bytes) -> None:
        if payload == b"":
            client.send(b"")
        elif payload == b"#1":
            client.send(b"#2")
        elif payload.startswith(b'{"event":'):
            client.delivered(payload)
        elif payload[:1] in b"{[":
            self._take_json(client, payload)

    def _take_json(self, client: Said, payload: bytes) -> None:
        decoded = _decoded(payload)
        for message in decoded if isinstance(decoded, list) else [decoded]:
            if not isinstance(message, dict):
                continue
            if "rid" not in message:
                client.delivered(_json(message))
                continue
            error = message.get("error")
            reason = _reason(error) if error is not None else ""
            if message["rid"] != 1:
                client.answered(message["rid"], reason)
            elif reason:
                client.refused(reason)
            else:
                client.ready()

    def call(self, number: int, text: str) -> bytes:
        if self.plan.publishes:
            return self._publication(self._call_channel, number, text)
        return f'{{"event":{self._event},"data":"{text}","cid":{number}}}'.encode()

    def join(self, number: int) -> bytes:
        return f'{{"event":"#subscribe","data":{{"channel":{self._channel}}},"cid":{number}}}'.encode()

    def publish(self, number: int, text: str) -> bytes:
        return self._publication(self._channel, number, text)

    @staticmethod
    def _publication(channel: str, number: int, text: str) -> bytes:
        return f'{{"event":"#publish","data":{{"channel":{channel},"data":"{text}"}},"cid":{number}}}'.encode()


class SocketIO(Dialect):
    """Socket.IO's protocol, version 5, in the namespace ``/``."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._connect = b"40" + plan.auth.encode()
        self._channel = json.dumps(plan.channel)
        self._event, self._join, self._publish = (json.dumps(plan.event_name + kind) for kind in ("", JOIN, PUBLISH))

    def take(self, client: Said, payload: bytes) -> None:
        kind = payload[:2]
        if kind == b"42":
            client.delivered(payload)
        elif kind == b"43":
            number = payload[2 : payload.find(b"[")]
            if number.isdigit():
                client.answered(int(number))
        elif payload == b"2":
            client.send(b"3")
        elif payload[:1] == b"0":
            client.send(self._connect)
        elif kind == b"40":
            client.ready()
        elif kind == b"44":
            client.refused(_reason(_decoded(payload[2:])))
        elif kind == b"41":
            client.refused("the server disconnected it")

    def call(self, number: int, text: str) -> bytes:
        return f'42{number}[{self._event},"{text}"]'.encode()

    def join(self, number: int) -> bytes:
        return f"42{number}[{self._join},{self._channel}]".encode()

    def publish(self, number: int, text: str) -> bytes:
        return f'42{number}[{self._publish},{self._channel},"{text}"]'.encode()


class Plain(Dialect):
    """A raw WebSocket: each message is answered by one, in order; or, in a broadcast, goes to all."""

    joins = False
    acknowledges_publications = False
    _prefix = b""

    def opened(self, client: Said) -> None:
        client.ready()

    def take(self, client: Said, payload: bytes) -> None:
        if self.plan.mode is plans.Mode.ACK:
            client.answered(None)
        else:
            client.delivered(payload)

    def call(self, number: int, text: str) -> bytes:
        return self._prefix + text.encode()

    def join(self, number: int) -> bytes:
        raise ValueError("no rooms without a protocol that has them: the plan allows no broadcasts")

    def publish(self, number: int, text: str) -> bytes:
        return self._prefix + text.encode()


class EngineIO(Plain):
    """Engine.IO's protocol, version 4: messages are as those of a raw WebSocket."""

    _prefix = b"4"

    def opened(self, client: Said) -> None:
        """Wait for the server's packet ``open``."""

    def take(self, client: Said, payload: bytes) -> None:
        kind = payload[:1]
        if kind == b"4":
            super().take(client, payload)
        elif kind == b"2":
            client.send(b"3")
        elif kind == b"0":
            client.ready()
        elif kind == b"1":
            client.refused("the server closed it")


_DIALECTS: dict[plans.Protocol, type[Dialect]] = {
    plans.Protocol.SOCKETCLUSTER: SocketCluster,
    plans.Protocol.SOCKETIO: SocketIO,
    plans.Protocol.ENGINEIO: EngineIO,
    plans.Protocol.WEBSOCKET: Plain,
}


def dialect_of(plan: Plan) -> Dialect:
    """Return what the plan's clients speak."""
    return _DIALECTS[plan.protocol](plan)


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value)


def _decoded(payload: bytes) -> Any:
    try:
        return msgspec.json.decode(payload)
    except msgspec.DecodeError:
        return None


def _reason(error: Any) -> str:
    """Return what an error says of itself, in whatever form it comes."""
    if isinstance(error, dict):
        named = [str(error[key]) for key in ("name", "message") if error.get(key)]
        return ": ".join(named) or json.dumps(error)
    return str(error) if error else "an error without a text"
